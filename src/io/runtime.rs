//! What outlives a thread or the process, and what other processes must see: the runtime directory and the bus locks.
//!
//! Owns the directory and the files in it (lockout marker, restart request, last counters), and the claim of a gateway on
//! the buses that it drives. Relies on `io::sys` for the shared words. Never waits on a disk in the watchdog: its only
//! file is mapped before it starts.

use core::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, getsockopt, listen, socket, sockopt,
};

use super::canbus::BusAddress;
use super::sys::SharedWords;
use crate::can::Id;
use crate::limits;

/// Where a service of this name has its directory when systemd does not say.
const SYSTEM: &str = "/run/ocpcan";

/// The marker of a lockout.
const LOCKOUT: &str = "lockout";

/// The file of the last counters.
const COUNTERS: &str = "counters";

/// Longest lockout reason that is read back. What we write is shorter; the file could be anybody's.
const REASON: usize = 200;

/// The directory for what must survive a restart of the process but not of the machine.
///
/// A lockout and counters belong to the machine behind certain buses, not to whatever else runs on this computer: their
/// files carry the buses' names (see [`RuntimeDirectory::of`]).
#[derive(Clone, Debug)]
pub struct RuntimeDirectory {
    path: PathBuf,
    /// What the names of the files of this gateway end with.
    ending: String,
}

impl RuntimeDirectory {
    /// Takes `$RUNTIME_DIRECTORY` (systemd), else `/run/ocpcan` where it can be made or written, else a directory of
    /// mode 0700 of this user under the system's temporary one.
    ///
    /// # Errors
    /// None of them can be had; the text names the last.
    pub fn open() -> io::Result<Self> {
        if let Some(path) = named_path() {
            // Named on purpose, so no silent other choice. systemd makes it a link where the service has a dynamic user.
            return Self::at(fs::canonicalize(&path).unwrap_or(path));
        }
        let own = std::env::temp_dir().join(format!("ocpcan-{}", nix::unistd::geteuid()));
        Self::at(PathBuf::from(SYSTEM)).or_else(|_| Self::at(own))
    }

    /// Takes this directory, made with mode 0700 where it is missing. It must belong to this user and be writable by
    /// nobody else: what lies in it decides whether the gateway may arm.
    ///
    /// # Errors
    /// It cannot be made, is somebody else's, or is open to others.
    pub fn at(path: PathBuf) -> io::Result<Self> {
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", path.display()));
        match fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(named(e)),
            _ => {}
        }
        // Not followed: in a directory that everybody writes to, a link may lead anywhere.
        let meta = fs::symlink_metadata(&path).map_err(named)?;
        let is_own =
            meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o022 == 0;
        if !is_own {
            let why = "must be a directory of this user that nobody else can write to";
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("{}: {why}", path.display()),
            ));
        }
        nix::unistd::access(&path, nix::unistd::AccessFlags::W_OK).map_err(|e| named(e.into()))?;
        Ok(Self { path, ending: String::new() })
    }

    /// The same directory, for the gateway that drives these buses.
    #[must_use]
    pub fn of<'a>(self, buses: impl IntoIterator<Item = &'a str>) -> Self {
        // No name of a bus holds a slash or a plus.
        let ending = buses.into_iter().collect::<Vec<_>>().join("+");
        Self { ending: format!("-{ending}"), ..self }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}{}", self.ending))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the lockout marker with its reason. It is whole or absent, also if the process dies meanwhile.
    ///
    /// # Errors
    /// The error of the file system (full, read-only).
    pub fn set_lockout(&self, reason: &str) -> io::Result<()> {
        self.put(&format!("{LOCKOUT}{}", self.ending), reason)
    }

    /// The reason of the lockout that an earlier process left. A marker that cannot be read counts as one.
    #[must_use]
    pub fn lockout(&self) -> Option<String> {
        match fs::read(self.file(LOCKOUT)) {
            Ok(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                Some(text.chars().filter(|c| !c.is_control()).take(REASON).collect())
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => Some(format!("the lockout marker cannot be read: {e}")),
        }
    }

    /// Removes the lockout marker: a person has acknowledged it.
    ///
    /// # Errors
    /// The error of the file system; the lockout stays.
    pub fn clear_lockout(&self) -> io::Result<()> {
        match fs::remove_file(self.file(LOCKOUT)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
            _ => Ok(()),
        }
    }

    /// Asks the privileged bring-up unit, which watches for this file, to restart the interface after bus-off.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn request_bus_restart(&self, bus: &BusAddress) -> io::Result<()> {
        self.put(&format!("restart-{}", bus.name()), "")
    }

    /// Writes a small file under another name, then moves it into place.
    fn put(&self, name: &str, text: &str) -> io::Result<()> {
        let draft = self.path.join(format!(".{name}.new"));
        let mut file = fs::File::create(&draft)?;
        file.write_all(text.as_bytes())?;
        drop(file);
        fs::rename(&draft, self.path.join(name))
    }
}

/// What `$RUNTIME_DIRECTORY` names.
fn named_path() -> Option<PathBuf> {
    let list = std::env::var_os("RUNTIME_DIRECTORY")?;
    std::env::split_paths(&list).find(|path| path.is_absolute())
}

/// Where a service has its directory, whether it is there or not.
#[must_use]
pub fn usual_path() -> PathBuf {
    named_path().unwrap_or_else(|| PathBuf::from(SYSTEM))
}

/// The claim of one gateway on a bus. Held by listening abstract sockets: gone with its process however that ends, seen
/// by every user of the machine (a lock file would need a directory that all of them share), and, like a CAN interface,
/// one set per network namespace. One socket is named like the bus in the configuration, so that a bus can be claimed before
/// it is there; the other by the kernel's number of the interface, because an interface can have several names.
#[derive(Debug)]
pub struct BusLock {
    bus: BusAddress,
    sockets: Vec<(String, OwnedFd)>,
}

/// A bus cannot be claimed. Consequence: the program ends and sends nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LockError {
    /// A gateway drives that bus: its process number, where it can be told.
    Held(BusAddress, Option<i32>),
    /// Any other errno.
    Io(i32),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held(bus, Some(pid)) => {
                write!(f, "{bus}: a gateway drives this bus already (process {pid})")
            }
            Self::Held(bus, None) => write!(f, "{bus}: a gateway drives this bus already"),
            Self::Io(errno) => write!(f, "cannot claim the bus: {}", Errno::from_raw(*errno).desc()),
        }
    }
}

impl core::error::Error for LockError {}

impl BusLock {
    /// Claims the bus for this process, until it is dropped.
    ///
    /// # Errors
    /// [`LockError::Held`] where another one has it.
    pub fn take(bus: &BusAddress) -> Result<Self, LockError> {
        let mut lock = Self { bus: bus.clone(), sockets: Vec::new() };
        lock.renew()?;
        Ok(lock)
    }

    /// Claims the interface that the bus is now: it may not have been there before, or be another one.
    ///
    /// # Errors
    /// As [`BusLock::take`]; what was claimed before stays claimed.
    pub fn renew(&mut self) -> Result<(), LockError> {
        let errno = |e: Errno| LockError::Io(e as i32);
        for name in lock_names(&self.bus) {
            if self.sockets.iter().any(|(own, _)| *own == name) {
                continue;
            }
            let socket = lock_socket().map_err(errno)?;
            match bind(socket.as_raw_fd(), &lock_address(&name).map_err(errno)?) {
                Ok(()) => {}
                Err(Errno::EADDRINUSE) => {
                    return Err(LockError::Held(self.bus.clone(), Self::holder(&self.bus)));
                }
                Err(e) => return Err(errno(e)),
            }
            // Listens only so that others can ask who holds it; nobody is ever accepted.
            listen(&socket, Backlog::new(128).map_err(errno)?).map_err(errno)?;
            self.sockets.push((name, socket));
        }
        Ok(())
    }

    /// Whether some process has claimed the bus.
    ///
    /// # Errors
    /// The errno where it cannot be told (no descriptor left): not "no".
    pub fn is_taken(bus: &BusAddress) -> Result<bool, i32> {
        for name in lock_names(bus) {
            match ask(&name) {
                // A full backlog is a holder too.
                Ok(_) | Err(Errno::EAGAIN) => return Ok(true),
                Err(Errno::ECONNREFUSED) => {}
                Err(other) => return Err(other as i32),
            }
        }
        Ok(false)
    }

    /// Process number of the gateway that has claimed the bus, where it can be told.
    #[must_use]
    pub fn holder(bus: &BusAddress) -> Option<i32> {
        let socket = lock_names(bus).iter().find_map(|name| ask(name).ok())?;
        getsockopt(&socket, sockopt::PeerCredentials).ok().map(|c| c.pid()).filter(|pid| *pid > 0)
    }
}

/// What a claim on this bus is called: like the bus, and like its interface where that is there.
fn lock_names(bus: &BusAddress) -> Vec<String> {
    let mut names = vec![bus.to_string()];
    if let BusAddress::Kernel(name) = bus
        && let Ok(index) = if_nametoindex(name.as_str())
    {
        // No interface is called so: a slash is not allowed in a name.
        names.push(format!("interface/{index}"));
    }
    names
}

/// Connects to the holder of a claim; its kernel answers, the holder itself notices nothing.
fn ask(name: &str) -> Result<OwnedFd, Errno> {
    let socket = lock_socket()?;
    connect(socket.as_raw_fd(), &lock_address(name)?)?;
    Ok(socket)
}

fn lock_socket() -> Result<OwnedFd, Errno> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::Stream, flags, None)
}

fn lock_address(name: &str) -> Result<UnixAddr, Errno> {
    UnixAddr::new_abstract(format!("ocpcan/lock/{name}").as_bytes())
}

/// The last alive counter of each message that the gateway sends, in a mapped file: whoever sends safe frames after the
/// process has died goes on from there, and the actuators accept them. A store is one memory write.
#[derive(Debug)]
pub struct LastCounters {
    words: SharedWords,
}

/// A word of the file that holds something.
const FILLED: u64 = 1 << 63;

impl LastCounters {
    /// Makes the file in the runtime directory anew, all empty.
    ///
    /// # Errors
    /// The error of the file system.
    pub fn create(directory: &RuntimeDirectory) -> io::Result<Self> {
        let path = directory.file(COUNTERS);
        // A new file instead of a truncated one: a reader may have the old one mapped, and must not die of it.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        // Written out, not left as a hole: a full disk shows now, not as a fault in the watchdog.
        (&file).write_all(&[0; limits::OUT_MESSAGES * size_of::<u64>()])?;
        let words = SharedWords::map(file.as_fd(), limits::OUT_MESSAGES, true)?;
        Ok(Self { words })
    }

    /// Opens what a process, dead or alive, has left; reading only.
    ///
    /// # Errors
    /// The error of the file system: no such file, or too short.
    pub fn open(directory: &RuntimeDirectory) -> io::Result<Self> {
        let file = fs::File::open(directory.file(COUNTERS))?;
        let words = SharedWords::map(file.as_fd(), limits::OUT_MESSAGES, false)?;
        Ok(Self { words })
    }

    /// Notes the counter that message `slot` (its place in the plan, below [`limits::OUT_MESSAGES`]) was just sent with.
    pub fn record(&self, slot: usize, bus: u8, id: Id, counter: u8) {
        let word = FILLED | u64::from(bus) << 48 | u64::from(id.word()) << 8 | u64::from(counter);
        self.words.store(slot, word);
    }

    /// The last counter of the message with that identifier on that bus (its place in the configuration).
    #[must_use]
    pub fn recall(&self, bus: u8, id: Id) -> Option<u8> {
        let key = FILLED | u64::from(bus) << 48 | u64::from(id.word()) << 8;
        let word =
            (0..self.words.words()).map(|slot| self.words.load(slot)).find(|word| word & !0xFF == key)?;
        word.to_le_bytes().first().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory for one test, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("ocpcan-test-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn the_directory_is_ours_alone_or_refused() {
        let scratch = Scratch::new("own");
        let directory = RuntimeDirectory::at(scratch.0.clone()).unwrap();
        assert_eq!(fs::metadata(directory.path()).unwrap().mode() & 0o777, 0o700);
        RuntimeDirectory::at(scratch.0.clone()).unwrap();
        let mode = |bits| fs::set_permissions(&scratch.0, std::os::unix::fs::PermissionsExt::from_mode(bits));
        mode(0o777).unwrap();
        assert_eq!(
            RuntimeDirectory::at(scratch.0.clone()).unwrap_err().kind(),
            io::ErrorKind::PermissionDenied
        );
        mode(0o755).unwrap();
        let link = Scratch::new("link");
        std::os::unix::fs::symlink(&scratch.0, &link.0).unwrap();
        let error = RuntimeDirectory::at(link.0.clone()).unwrap_err();
        fs::remove_file(&link.0).unwrap();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("ocpcan-test-"), "{error}");
    }

    #[test]
    fn a_lockout_survives_and_is_cleared_by_hand() {
        let scratch = Scratch::new("lockout");
        let directory = RuntimeDirectory::at(scratch.0.clone()).unwrap();
        assert_eq!(directory.lockout(), None);
        directory.clear_lockout().unwrap();
        directory.set_lockout("foreign\nwriter").unwrap();
        let later = RuntimeDirectory::at(scratch.0.clone()).unwrap();
        assert_eq!(later.lockout().as_deref(), Some("foreignwriter"));
        later.clear_lockout().unwrap();
        assert_eq!(directory.lockout(), None);
        // What cannot be read is a lockout.
        fs::create_dir(scratch.0.join(LOCKOUT)).unwrap();
        assert!(directory.lockout().is_some());
        directory.request_bus_restart(&"can0".parse().unwrap()).unwrap();
        assert!(scratch.0.join("restart-can0").exists());
    }

    #[test]
    fn what_one_gateway_leaves_is_no_other_gateways() {
        let scratch = Scratch::new("two");
        let of = |buses: &[&str]| RuntimeDirectory::at(scratch.0.clone()).unwrap().of(buses.iter().copied());
        let (here, there) = (of(&["can0"]), of(&["can0", "sim:other"]));
        here.set_lockout("foreign_writer").unwrap();
        assert_eq!(there.lockout(), None);
        there.clear_lockout().unwrap();
        assert_eq!(of(&["can0"]).lockout().as_deref(), Some("foreign_writer"));
        let id = Id::standard(0x101).unwrap();
        LastCounters::create(&here).unwrap().record(0, 0, id, 7);
        LastCounters::create(&there).unwrap().record(0, 0, id, 9);
        assert_eq!(LastCounters::open(&here).unwrap().recall(0, id), Some(7));
    }

    #[test]
    fn one_gateway_per_bus() {
        let name = format!("sim:lock{}", std::process::id() % 100_000);
        let bus: BusAddress = name.parse().unwrap();
        let other: BusAddress = name.trim_start_matches("sim:").parse().unwrap();
        assert_eq!(BusLock::is_taken(&bus), Ok(false));
        let lock = BusLock::take(&bus).unwrap();
        for _ in 0..200 {
            // More askers than the backlog holds.
            assert_eq!(BusLock::is_taken(&bus), Ok(true));
        }
        let pid = i32::try_from(std::process::id()).unwrap();
        match BusLock::take(&bus) {
            Err(LockError::Held(held, holder)) => {
                assert_eq!(held, bus);
                assert!(holder.is_none_or(|p| p == pid));
            }
            result => panic!("{result:?}"),
        }
        let _other = BusLock::take(&other).unwrap();
        drop(lock);
        assert_eq!(BusLock::is_taken(&bus), Ok(false));
        let _again = BusLock::take(&bus).unwrap();
    }

    #[test]
    fn an_interface_is_claimed_by_its_number_whatever_it_is_called() {
        // Any interface has a number; the loopback one is there on every machine.
        let index = if_nametoindex("lo").unwrap();
        let bus: BusAddress = "lo".parse().unwrap();
        let other = lock_socket().unwrap();
        bind(other.as_raw_fd(), &lock_address(&format!("interface/{index}")).unwrap()).unwrap();
        listen(&other, Backlog::new(1).unwrap()).unwrap();
        assert_eq!(BusLock::is_taken(&bus), Ok(true), "claimed under another name");
        assert!(matches!(BusLock::take(&bus), Err(LockError::Held(..))));
        drop(other);
        let mut lock = BusLock::take(&bus).unwrap();
        lock.renew().unwrap();
        assert_eq!(lock.sockets.len(), 2, "and once");
    }

    #[test]
    fn last_counters_are_read_by_another_and_by_key() {
        let scratch = Scratch::new("counters");
        let directory = RuntimeDirectory::at(scratch.0.clone()).unwrap();
        LastCounters::open(&directory).unwrap_err();
        let writer = LastCounters::create(&directory).unwrap();
        let (standard, extended) = (Id::standard(0x101).unwrap(), Id::extended(0x101).unwrap());
        writer.record(0, 0, standard, 15);
        writer.record(limits::OUT_MESSAGES - 1, 3, extended, 255);
        writer.record(limits::OUT_MESSAGES, 3, standard, 1); // no such slot: nothing
        let reader = LastCounters::open(&directory).unwrap();
        assert_eq!(reader.recall(0, standard), Some(15));
        assert_eq!(reader.recall(3, extended), Some(255));
        assert_eq!(reader.recall(0, extended), None);
        assert_eq!(reader.recall(3, standard), None);
        writer.record(0, 0, standard, 0);
        assert_eq!(reader.recall(0, standard), Some(0));
        // A new process starts with an empty file; the old mapping stays readable.
        let _next = LastCounters::create(&directory).unwrap();
        assert_eq!(reader.recall(0, standard), Some(0));
        assert_eq!(LastCounters::open(&directory).unwrap().recall(0, standard), None);
    }
}
