//! The system calls that the crates hide: the only `unsafe` of the program.
//!
//! Owns `recvmsg` with its flags and control messages (nix returns no flags, and `MSG_CONFIRM` is the proof that a CAN
//! frame was sent), the interface queries, the questions to an input device, the scheduler and memory calls, and shared
//! words in mapped files. Relies on libc. Never decides anything; each function is one call and its translation.

#![allow(unsafe_code, reason = "this file is the one place for it; every block says why it is sound")]

use core::mem::{self, MaybeUninit};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU64, Ordering};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

/// What one `recvmsg` call brought.
#[derive(Debug)]
pub struct Message {
    /// Bytes written to the buffer; 0 means that the peer closed.
    pub len: usize,
    /// The message flags (`MSG_CONFIRM`, `MSG_DONTROUTE`, `MSG_TRUNC`).
    pub flags: i32,
    /// Receive queue overflows since the socket was opened, where the kernel attached the count (`SO_RXQ_OVFL`).
    pub overflows: Option<u32>,
    /// A file descriptor that the peer sent along.
    pub attached: Option<OwnedFd>,
}

/// Room for the control messages we ask for: one `u32` count and one descriptor. Aligned as `cmsghdr` needs.
#[repr(C, align(8))]
struct ControlBuffer([u8; 64]);

/// Receives one message without waiting.
///
/// # Errors
/// The errno of the call; `EAGAIN` where nothing is there.
pub fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Message, Errno> {
    let mut control = ControlBuffer([0; 64]);
    let mut iov = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: msghdr is plain data for which all zeros is a valid value.
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _; // 64 fits every width this field has
    // SAFETY: the header points to one iovec over `buffer` and to `control`, both alive and writable for the call.
    let got = unsafe {
        libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC)
    };
    let len = usize::try_from(Errno::result(got)?).unwrap_or(0);
    let mut message = Message { len, flags: header.msg_flags, overflows: None, attached: None };

    // SAFETY: the kernel filled `msg_control` and `msg_controllen`; the macros walk inside them.
    let mut cursor = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !cursor.is_null() {
        // SAFETY: not null, so it points to a whole cmsghdr inside `control`.
        let entry = unsafe { &*cursor };
        // SAFETY: the data of this entry follows it, inside `control`.
        let data = unsafe { libc::CMSG_DATA(cursor) };
        if (entry.cmsg_level, entry.cmsg_type) == (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) {
            // SAFETY: the kernel writes a u32 for this type; it may be unaligned for us.
            message.overflows = Some(unsafe { ptr::read_unaligned(data.cast::<u32>()) });
        } else if (entry.cmsg_level, entry.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
            // SAFETY: at least one descriptor follows; the kernel has installed it for this process and nobody else
            // owns it.
            let fd = unsafe { OwnedFd::from_raw_fd(ptr::read_unaligned(data.cast::<i32>())) };
            message.attached = Some(fd);
        }
        // SAFETY: `cursor` is an entry of this header.
        cursor = unsafe { libc::CMSG_NXTHDR(&raw const header, cursor) };
    }
    Ok(message)
}

/// Most messages that one call of [`receive_many`] or [`send_many`] carries.
pub const MANY: usize = 64;

/// What one `recvmmsg` call brought.
#[derive(Clone, Copy, Debug, Default)]
pub struct Many {
    /// Messages received, at least one; the first so many buffers and lengths are filled.
    pub count: usize,
    /// The last receive queue overflow count that came along (`SO_RXQ_OVFL`).
    pub overflows: Option<u32>,
}

/// Receives up to [`MANY`] messages in one call, without waiting: one buffer and one length for each. The call takes as
/// many as there are buffers, or lengths, or [`MANY`], whichever is least.
///
/// # Errors
/// The errno of the call; `EAGAIN` where nothing is there.
pub fn receive_many<const SIZE: usize>(
    fd: BorrowedFd<'_>,
    buffers: &mut [[u8; SIZE]],
    lengths: &mut [usize],
) -> Result<Many, Errno> {
    let most = buffers.len().min(lengths.len()).min(MANY);
    // SAFETY: iovec and mmsghdr are plain data for which all zeros is a valid value.
    let mut parts: [libc::iovec; MANY] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut headers: [libc::mmsghdr; MANY] = unsafe { mem::zeroed() };
    let mut control = [const { MaybeUninit::<ControlBuffer>::uninit() }; MANY];
    for (((header, part), buffer), control) in
        headers.iter_mut().zip(&mut parts).zip(buffers.iter_mut()).zip(&mut control).take(most)
    {
        part.iov_base = buffer.as_mut_ptr().cast();
        part.iov_len = SIZE;
        header.msg_hdr.msg_iov = &raw mut *part;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_hdr.msg_control = control.as_mut_ptr().cast();
        header.msg_hdr.msg_controllen = size_of::<ControlBuffer>() as _; // 64 fits every width this field has
    }
    // SAFETY: `most` headers are set up, each with one iovec over its own buffer and its own control space, all alive
    // and writable for the call; no time limit is passed.
    let got = unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            most as _, // at most 64
            libc::MSG_DONTWAIT as _,
            ptr::null_mut(),
        )
    };
    let count = usize::try_from(Errno::result(got)?).unwrap_or(0).min(most);
    let mut many = Many { count, overflows: None };
    for (header, length) in headers.iter().zip(lengths.iter_mut()).take(count) {
        *length = header.msg_len as usize; // at most SIZE
        // SAFETY: the kernel filled `msg_control` and `msg_controllen` of this header; the macro looks inside them.
        let cursor = unsafe { libc::CMSG_FIRSTHDR(&raw const header.msg_hdr) };
        if cursor.is_null() {
            continue;
        }
        // SAFETY: not null, so it points to a whole cmsghdr inside this header's control space.
        let entry = unsafe { &*cursor };
        if (entry.cmsg_level, entry.cmsg_type) == (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) {
            // SAFETY: the kernel writes a u32 for this type behind the entry; it may be unaligned for us.
            many.overflows = Some(unsafe { ptr::read_unaligned(libc::CMSG_DATA(cursor).cast::<u32>()) });
        }
    }
    Ok(many)
}

/// Sends up to [`MANY`] messages in one call, without waiting; how many the kernel took comes back, at least one.
///
/// # Errors
/// The errno of the first message; then nothing was taken.
pub fn send_many<const SIZE: usize>(
    fd: BorrowedFd<'_>,
    messages: &[[u8; SIZE]],
    lengths: &[usize],
) -> Result<usize, Errno> {
    let most = messages.len().min(lengths.len()).min(MANY);
    // SAFETY: iovec and mmsghdr are plain data for which all zeros is a valid value.
    let mut parts: [libc::iovec; MANY] = unsafe { mem::zeroed() };
    // SAFETY: as above.
    let mut headers: [libc::mmsghdr; MANY] = unsafe { mem::zeroed() };
    for (((header, part), message), length) in
        headers.iter_mut().zip(&mut parts).zip(messages).zip(lengths).take(most)
    {
        part.iov_base = message.as_ptr().cast_mut().cast();
        part.iov_len = (*length).min(SIZE);
        header.msg_hdr.msg_iov = &raw mut *part;
        header.msg_hdr.msg_iovlen = 1;
    }
    // SAFETY: `most` headers are set up, each with one iovec over at most SIZE bytes of its own message; the kernel only
    // reads those.
    let taken = unsafe {
        libc::sendmmsg(
            fd.as_raw_fd(),
            headers.as_mut_ptr(),
            most as _, // at most 64
            (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
        )
    };
    Ok(usize::try_from(Errno::result(taken)?).unwrap_or(0).min(most))
}

/// Bytes that a connection has taken and its peer's kernel has not acknowledged (`SIOCOUTQ`).
///
/// # Errors
/// The errno of the call.
pub fn unacknowledged(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
    // TIOCOUTQ is the number of SIOCOUTQ.
    ask_bytes(socket, libc::TIOCOUTQ)
}

/// Bytes that a connection has received and nobody has read (`SIOCINQ`).
///
/// # Errors
/// The errno of the call.
pub fn unread(socket: BorrowedFd<'_>) -> Result<usize, Errno> {
    // FIONREAD is the number of SIOCINQ.
    ask_bytes(socket, libc::FIONREAD)
}

fn ask_bytes(socket: BorrowedFd<'_>, request: libc::Ioctl) -> Result<usize, Errno> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests write one int, and `bytes` is one, alive for the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) };
    Errno::result(result)?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Lets a connection take no more than `bytes` that it has not sent yet (`TCP_NOTSENT_LOWAT`): it becomes writable when
/// less is unsent, and what cannot leave stays with the caller, where it can still age.
///
/// # Errors
/// The errno of the call.
pub fn set_unsent_limit(socket: BorrowedFd<'_>, bytes: u32) -> Result<(), Errno> {
    // SAFETY: the option reads one 32-bit number, and `bytes` is one, alive for the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NOTSENT_LOWAT,
            (&raw const bytes).cast(),
            size_of::<u32>() as _, // 4
        )
    };
    Errno::result(result).map(drop)
}

/// Accepts a connection without waiting; the new descriptor does not block and is closed on exec.
///
/// # Errors
/// The errno of the call; `EAGAIN` where nobody waits.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null address and length are allowed and mean that the peer's address is not wanted.
    let fd = unsafe { libc::accept4(listener.as_raw_fd(), ptr::null_mut(), ptr::null_mut(), flags) };
    let fd = Errno::result(fd)?;
    // SAFETY: the call succeeded, so `fd` is new and ours.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// An interface request for `name`, all else zero. `None` for a name that does not fit.
fn interface_request(name: &str) -> Option<libc::ifreq> {
    // SAFETY: ifreq is a name and a union of plain data and pointers; all zeros is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return None;
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char; // the kernel's char may be signed; the bits are what counts
    }
    Some(request)
}

/// Runs one interface ioctl on any socket.
fn interface_call(
    socket: BorrowedFd<'_>,
    request: libc::c_ulong,
    argument: &mut libc::ifreq,
) -> Result<(), Errno> {
    // SAFETY: `argument` is a whole ifreq, alive for the call; the requests used here read and write no more than that,
    // and the one that carries a pointer (SIOCETHTOOL) is set up by its caller.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request as _, &raw mut *argument) };
    Errno::result(result).map(drop)
}

/// The low 16 interface flags (`IFF_UP`, `IFF_RUNNING`). `IFF_ECHO` is above them and not in here.
///
/// # Errors
/// `ENODEV` where no such interface exists.
pub fn interface_flags(socket: BorrowedFd<'_>, name: &str) -> Result<u16, Errno> {
    let mut request = interface_request(name).ok_or(Errno::ENODEV)?;
    interface_call(socket, libc::SIOCGIFFLAGS as _, &mut request)?;
    // SAFETY: SIOCGIFFLAGS fills this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    Ok(flags as u16) // same bits, read as a set
}

/// Length of the interface's transmit queue in frames.
///
/// # Errors
/// `ENODEV` where no such interface exists.
pub fn transmit_queue_len(socket: BorrowedFd<'_>, name: &str) -> Result<u32, Errno> {
    let mut request = interface_request(name).ok_or(Errno::ENODEV)?;
    interface_call(socket, libc::SIOCGIFTXQLEN as _, &mut request)?;
    // SAFETY: SIOCGIFTXQLEN writes an int at the start of the union.
    let len = unsafe { request.ifr_ifru.ifru_metric };
    Ok(u32::try_from(len).unwrap_or(0))
}

/// Largest frame of the interface in bytes: 16 for classic CAN, 72 where CAN FD is on.
///
/// # Errors
/// `ENODEV` where no such interface exists.
pub fn mtu(socket: BorrowedFd<'_>, name: &str) -> Result<usize, Errno> {
    let mut request = interface_request(name).ok_or(Errno::ENODEV)?;
    interface_call(socket, libc::SIOCGIFMTU as _, &mut request)?;
    // SAFETY: SIOCGIFMTU fills this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(usize::try_from(mtu).unwrap_or(0))
}

/// `struct ethtool_drvinfo` of `linux/ethtool.h`.
#[repr(C)]
struct DriverInfo {
    cmd: u32,
    driver: [u8; 32],
    version: [u8; 32],
    fw_version: [u8; 32],
    bus_info: [u8; 32],
    erom_version: [u8; 32],
    reserved2: [u8; 12],
    counts: [u32; 5],
}

/// `ETHTOOL_GDRVINFO` of `linux/ethtool.h`.
const ETHTOOL_GDRVINFO: u32 = 3;

/// Name of the interface's driver (`vcan`, `mcp251xfd`, ...).
///
/// # Errors
/// `ENODEV` where no such interface exists, `EOPNOTSUPP` where the driver does not say.
pub fn driver_name(socket: BorrowedFd<'_>, name: &str) -> Result<heapless::String<32>, Errno> {
    let mut request = interface_request(name).ok_or(Errno::ENODEV)?;
    let mut info = DriverInfo {
        cmd: ETHTOOL_GDRVINFO,
        driver: [0; 32],
        version: [0; 32],
        fw_version: [0; 32],
        bus_info: [0; 32],
        erom_version: [0; 32],
        reserved2: [0; 12],
        counts: [0; 5],
    };
    request.ifr_ifru.ifru_data = (&raw mut info).cast();
    // `info` outlives the call and has the size that ETHTOOL_GDRVINFO writes.
    interface_call(socket, libc::SIOCETHTOOL as _, &mut request)?;
    let mut driver = heapless::String::new();
    for byte in info.driver.iter().take_while(|b| **b != 0) {
        if driver.push(char::from(*byte)).is_err() {
            break;
        }
    }
    Ok(driver)
}

/// Rows of the terminal behind a descriptor; none where it is no terminal, or does not know.
pub fn terminal_rows(terminal: BorrowedFd<'_>) -> Option<usize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a `winsize`, which is what it is given; the descriptor is open for the call.
    let result = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    (result == 0 && size.ws_row > 0).then(|| size.ws_row.into())
}

/// Asks an input device (`linux/input.h`, ioctl type `E`): the answer to question `number` is written to `answer`, and
/// its length in bytes comes back, or 0 where the driver does not tell it.
///
/// # Errors
/// `ENOTTY` or `EINVAL` where this is no input device or it does not know the question, `ENODEV` where it is gone.
pub fn ask_input(device: BorrowedFd<'_>, number: u8, answer: &mut [u8]) -> Result<usize, Errno> {
    let request = nix::request_code_read!(b'E', number, answer.len());
    // SAFETY: the request says how many bytes may be written, and `answer` has them, writable for the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), request as _, answer.as_mut_ptr()) };
    Ok(usize::try_from(Errno::result(result)?).unwrap_or(0).min(answer.len()))
}

/// Puts the calling thread under `SCHED_FIFO` at `priority` (1 to 99). Threads that it starts do not inherit it.
///
/// # Errors
/// `EPERM` without the right (`LimitRTPRIO=`).
pub fn set_fifo_priority(priority: i32) -> Result<(), Errno> {
    // SAFETY: sched_param is plain data; all zeros is valid.
    let mut param: libc::sched_param = unsafe { mem::zeroed() };
    param.sched_priority = priority;
    // The raw call, because musl's own wrapper refuses; 0 is the calling thread.
    // SAFETY: `param` is alive for the call, which only reads it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setscheduler,
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const param,
        )
    };
    Errno::result(result).map(drop)
}

/// Scheduling policy and priority of the calling thread, without the reset flag.
///
/// # Errors
/// The errno of the calls.
pub fn scheduling() -> Result<(i32, i32), Errno> {
    let mut param = MaybeUninit::<libc::sched_param>::zeroed();
    // SAFETY: takes no pointers.
    let policy = Errno::result(unsafe { libc::syscall(libc::SYS_sched_getscheduler, 0) })?;
    // SAFETY: `param` is writable for the call and valid before it as zeros.
    Errno::result(unsafe { libc::syscall(libc::SYS_sched_getparam, 0, param.as_mut_ptr()) })?;
    // SAFETY: zeroed at the start and filled by the call.
    let param = unsafe { param.assume_init() };
    let policy = i32::try_from(policy).unwrap_or(0) & !libc::SCHED_RESET_ON_FORK;
    Ok((policy, param.sched_priority))
}

/// Whether the wall clock is set by another one (NTP, a receiver): the kernel's own word; none where it may not be asked.
pub fn is_clock_synchronised() -> Option<bool> {
    let mut clock = MaybeUninit::<libc::timex>::zeroed();
    // SAFETY: `clock` is writable for the call; all zeros is valid and asks for no change.
    let state = unsafe { libc::adjtimex(clock.as_mut_ptr()) };
    (state >= 0).then_some(state != libc::TIME_ERROR)
}

/// Locks what the process has touched and will touch into memory. Pages are locked when first used: locking whole
/// stacks and arenas unseen would cost tens of megabytes. So touch what must not fault (see [`prefault_stack`]).
///
/// A limit that holds the present but not the threads to come is as good as none: every later mapping would fail, so
/// nothing is locked then.
///
/// # Errors
/// `EPERM` or `ENOMEM` without the right (`LimitMEMLOCK=`).
pub fn lock_memory() -> Result<(), Errno> {
    // SAFETY: takes flags only and changes no memory contents.
    let result = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    Errno::result(result)?;
    if try_to_map(STACKS, libc::PROT_READ | libc::PROT_WRITE).is_ok() {
        return Ok(());
    }
    // SAFETY: takes nothing and changes no memory contents.
    Errno::result(unsafe { libc::munlockall() })?;
    Err(Errno::ENOMEM)
}

/// The stacks of every thread: 2 MiB each (the standard library's size), and as much again.
const STACKS: usize = (crate::limits::BUSES + 4) * 2 * (2 << 20);

/// Maps a page that can be executed, and gives it back: for the tests of what a thread may not do.
///
/// # Errors
/// The errno of the call.
#[cfg(any(test, feature = "fault-points"))]
pub fn try_executable_memory() -> Result<(), Errno> {
    try_to_map(4096, libc::PROT_READ | libc::PROT_EXEC)
}

/// Maps so much memory and gives it back.
fn try_to_map(length: usize, protection: i32) -> Result<(), Errno> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new anonymous mapping touches nothing that exists, and no page of it is used.
    let probe = unsafe { libc::mmap(ptr::null_mut(), length, protection, flags, -1, 0) };
    if probe == libc::MAP_FAILED {
        return Err(Errno::last());
    }
    // SAFETY: this very mapping, which nothing refers to.
    Errno::result(unsafe { libc::munmap(probe, length) }).map(drop)
}

/// Touches the next 128 KiB of the calling thread's stack, so that no later call there faults. Deeper than any call
/// chain of the watchdog and the readers, which keep no large locals.
#[inline(never)]
pub fn prefault_stack() {
    let mut stack = [0_u8; 128 * 1024];
    for page in stack.chunks_mut(4096) {
        page[0] = 1;
        core::hint::black_box(&mut *page);
    }
    core::hint::black_box(&mut stack);
}

/// Words of a mapped file that several processes read and write.
///
/// A file must not shrink while mapped (the access would kill the process); ours have a fixed size, and live in a
/// directory of mode 0700 or in memory alone.
#[derive(Debug)]
pub struct SharedWords {
    base: NonNull<AtomicU64>,
    words: usize,
    writable: bool,
}

// SAFETY: the memory is accessed through atomics only and stays mapped until drop.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `words` words of the file.
    ///
    /// # Errors
    /// `EINVAL` where the file is shorter than that or `words` is 0; else the errno of the call.
    pub fn map(file: BorrowedFd<'_>, words: usize, writable: bool) -> Result<Self, Errno> {
        let bytes = words.checked_mul(size_of::<u64>()).filter(|b| *b > 0).ok_or(Errno::EINVAL)?;
        let size = nix::sys::stat::fstat(file)?.st_size;
        if usize::try_from(size).unwrap_or(0) < bytes {
            return Err(Errno::EINVAL);
        }
        let access = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping at an address of the kernel's choice; it aliases no Rust object.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), bytes, access, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let base = NonNull::new(base.cast::<AtomicU64>()).ok_or(Errno::ENOMEM)?; // page aligned, so aligned for u64
        Ok(Self { base, words, writable })
    }

    /// Word `index`, if there is one.
    fn word(&self, index: usize) -> Option<&AtomicU64> {
        if index >= self.words {
            return None;
        }
        // SAFETY: inside the mapping, which is page aligned and lives as long as `self`.
        Some(unsafe { self.base.add(index).as_ref() })
    }

    /// Reads word `index`; 0 beyond the end.
    #[must_use]
    pub fn load(&self, index: usize) -> u64 {
        self.word(index).map_or(0, |w| w.load(Ordering::Acquire))
    }

    /// Writes word `index`. Does nothing beyond the end or on a read-only mapping.
    pub fn store(&self, index: usize, value: u64) {
        if self.writable
            && let Some(word) = self.word(index)
        {
            word.store(value, Ordering::Release);
        }
    }

    /// How many words there are.
    #[must_use]
    pub const fn words(&self) -> usize {
        self.words
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: exactly the range that `map` mapped; nothing borrows it any more. The result does not matter: the
        // range is valid, and there is nothing to be done.
        let _ = unsafe { libc::munmap(self.base.as_ptr().cast(), self.words * size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::memfd::{MFdFlags, memfd_create};
    use std::os::fd::AsFd;

    #[test]
    fn shared_words_are_seen_through_two_mappings() {
        let file = memfd_create(c"test", MFdFlags::MFD_CLOEXEC).unwrap();
        assert_eq!(SharedWords::map(file.as_fd(), 4, true).unwrap_err(), Errno::EINVAL, "file is empty");
        nix::unistd::ftruncate(&file, 32).unwrap();
        let writer = SharedWords::map(file.as_fd(), 4, true).unwrap();
        let reader = SharedWords::map(file.as_fd(), 4, false).unwrap();
        writer.store(3, 77);
        writer.store(4, 1); // beyond the end: nothing
        reader.store(3, 1); // read-only: nothing
        assert_eq!(reader.load(3), 77);
        assert_eq!(reader.load(4), 0);
    }

    #[test]
    fn loopback_has_flags_a_queue_length_and_bad_names_do_not() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
        let any = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let flags = interface_flags(any.as_fd(), "lo").unwrap();
        assert_ne!(flags & 0x8, 0, "IFF_LOOPBACK");
        transmit_queue_len(any.as_fd(), "lo").unwrap();
        assert!(mtu(any.as_fd(), "lo").unwrap() >= 1_500);
        for name in ["", "nosuchcan0", "a-name-that-is-too-long"] {
            assert_eq!(interface_flags(any.as_fd(), name), Err(Errno::ENODEV), "{name}");
            assert_eq!(driver_name(any.as_fd(), name), Err(Errno::ENODEV), "{name}");
        }
    }

    #[test]
    fn many_messages_go_and_come_in_one_call_and_what_does_not_fit_is_told() {
        use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
        let (a, b) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let messages: Vec<[u8; 72]> = (0..70).map(|n| [n; 72]).collect();
        let lengths: Vec<usize> = (0..70).map(|n| if n % 2 == 0 { 16 } else { 72 }).collect();
        assert_eq!(send_many(a.as_fd(), &messages, &lengths), Ok(MANY), "no more than one call carries");
        let mut buffers = vec![[0_u8; 72]; 40];
        let mut got = vec![0; 40];
        assert_eq!(receive_many(b.as_fd(), &mut buffers, &mut got).unwrap().count, 40);
        assert_eq!((got[0], got[1], got[39]), (16, 72, 72));
        assert_eq!((buffers[2][0], buffers[39][71]), (2, 39));
        assert_eq!(receive_many(b.as_fd(), &mut buffers, &mut got).unwrap().count, 24);
        assert_eq!(receive_many(b.as_fd(), &mut buffers, &mut got).unwrap_err(), Errno::EAGAIN);
        // A full buffer: a part is taken, then none.
        let mut taken = 0;
        let refused = loop {
            match send_many(a.as_fd(), &messages, &lengths) {
                Ok(more) => taken += more,
                Err(errno) => break errno,
            }
        };
        assert_eq!(refused, Errno::EAGAIN);
        let mut received = 0;
        while let Ok(many) = receive_many(b.as_fd(), &mut buffers, &mut got) {
            received += many.count;
        }
        assert_eq!(received, taken);
    }

    #[test]
    fn what_a_peer_has_not_acknowledged_is_counted_in_bytes() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(unacknowledged(client.as_fd()), Ok(0));
        // More than both kernels hold, so some of it stays here.
        client.set_nonblocking(true).unwrap();
        let chunk = [0_u8; 65_536];
        while std::io::Write::write(&mut client, &chunk).is_ok() {}
        assert!(unacknowledged(client.as_fd()).unwrap() > 0);
    }

    #[test]
    fn scheduling_is_read_back() {
        let (policy, priority) = scheduling().unwrap();
        assert_eq!((policy, priority), (libc::SCHED_OTHER, 0));
        prefault_stack();
        std::thread::spawn(|| match set_fifo_priority(1) {
            Ok(()) => assert_eq!(scheduling(), Ok((libc::SCHED_FIFO, 1))),
            Err(errno) => assert_eq!(errno, Errno::EPERM),
        })
        .join()
        .unwrap();
    }
}
