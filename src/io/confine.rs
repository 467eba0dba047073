//! What the program and its threads may still ask of the kernel once they run (seccomp, capabilities).
//!
//! Owns the two lists of what is refused: for the whole program, and for a thread that reads what others sent; and what of
//! root's capabilities is kept. Relies on `seccompiler` and `rustix`. A filter is for ever and goes on to every thread that the
//! filtered one starts; a call that is refused gets EPERM, because a gateway that is killed for a call nobody thought of would be a worse one. Never a wall by itself:
//! the threads share their memory. It takes away what an intruder would do next.

use std::collections::BTreeMap;

use nix::errno::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter,
};

/// A family of sockets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Of this computer: the service manager, claims, the built-in bus.
    Unix,
    /// IPv4 and IPv6.
    Ip,
    /// Questions to the kernel about interfaces.
    Netlink,
    /// CAN buses.
    Can,
}

impl Family {
    /// Every family that the program uses at all.
    pub const ALL: [Self; 4] = [Self::Unix, Self::Ip, Self::Netlink, Self::Can];

    /// A short name, as the table of threads has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Ip => "ip",
            Self::Netlink => "netlink",
            Self::Can => "can",
        }
    }

    const fn numbers(self) -> &'static [i32] {
        match self {
            Self::Unix => &[libc::AF_UNIX],
            Self::Ip => &[libc::AF_INET, libc::AF_INET6],
            Self::Netlink => &[libc::AF_NETLINK],
            Self::Can => &[libc::AF_CAN],
        }
    }
}

/// What a thread may open once it runs.
#[derive(Debug, Clone, Copy)]
pub struct Rights {
    /// Files, by their path.
    pub files: bool,
    /// More threads, each with these rights at most: who opens the built-in bus first is its host.
    pub threads: bool,
    /// Sockets of these families.
    pub sockets: &'static [Family],
}

impl core::fmt::Display for Rights {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (_, name) in [(self.files, "files"), (self.threads, "threads")].iter().filter(|(has, _)| *has) {
            write!(f, "{name}, ")?;
        }
        let families: Vec<_> = self.sockets.iter().map(|family| family.name()).collect();
        write!(f, "sockets: {}", families.join(", "))
    }
}

impl Rights {
    /// What the whole program has: files, and sockets of the families that it uses.
    pub const PROGRAM: Self = Self { files: true, threads: true, sockets: &Family::ALL };
}

/// What a gateway that root started keeps of root's capabilities: its files, its ports, its priority, its locked memory. Not
/// `CAP_NET_ADMIN`: who has it and asks for an interface that is not there, or goes away just now, waits while the kernel starts
/// `modprobe` for it (`dev_load` in net/core; 500 ms were measured), and the watchdog may wait for nobody.
const KEPT: CapabilitySet = CapabilitySet::DAC_OVERRIDE
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::IPC_LOCK)
    .union(CapabilitySet::SYS_NICE)
    .union(CapabilitySet::SYS_RESOURCE);

/// What the kernel refused, with its error number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unconfined {
    /// A filter of system calls: the program or the thread may ask for whatever its user may. Whether capabilities were given
    /// up is not told then.
    Filter(i32),
    /// To give up capabilities. The filters are there.
    Capabilities(i32),
}

/// Gives up the other capabilities for the calling thread and those that it starts. Asks for nothing where there are none:
/// the service's sandbox forbids the call.
fn give_up_capabilities() -> Result<(), Unconfined> {
    let errno = |error: rustix::io::Errno| Unconfined::Capabilities(error.raw_os_error());
    let mut sets = capabilities(None).map_err(errno)?;
    let before = sets;
    sets.effective &= KEPT;
    sets.permitted &= KEPT;
    sets.inheritable &= KEPT;
    if sets == before { Ok(()) } else { set_capabilities(None, sets).map_err(errno) }
}

/// Nobody in the program starts programs or processes, looks into other processes, or changes the system.
const NOT_THE_PROGRAM: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Calls that would be made by the kernel, past this list.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_fsopen,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fspick,
    libc::SYS_fsmount,
    libc::SYS_mount_setattr,
    // open_tree_attr: of one number everywhere, and too new for the crate.
    467,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_personality,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
];

/// A thread that reads what others sent sends no signal and changes no limit.
const NOT_A_THREAD: &[i64] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_send_signal,
    libc::SYS_prlimit64,
    libc::SYS_setpriority,
    libc::SYS_sched_setaffinity,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_setrlimit,
];

/// A thread that starts no thread has its priority by now; the host of the built-in bus takes its own.
const NO_THREADS: &[i64] = &[
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
];

/// Everything that opens, makes, changes or removes what has a path. A thread with Unix sockets may still connect to one that
/// has a path.
const NO_FILES: &[i64] = &[
    libc::SYS_openat,
    libc::SYS_openat2,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_unlinkat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_fchmodat,
    libc::SYS_fchownat,
    libc::SYS_truncate,
    libc::SYS_utimensat,
    libc::SYS_chdir,
    libc::SYS_fchdir,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    // fchmodat2, setxattrat, removexattrat, file_setattr: of one number everywhere, and the crate does not know them for each
    // processor.
    452,
    463,
    466,
    469,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    libc::SYS_inotify_init1,
    libc::SYS_fanotify_init,
    libc::SYS_getdents64,
    libc::SYS_renameat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat,
];

/// Refuses for the whole program, for ever, what it never does: programs, processes, other processes' memory, the system's
/// set-up, and sockets of families that it does not use; and gives up what it does not need of root's capabilities. To be
/// called before the first thread is started.
///
/// # Errors
/// [`Unconfined`]: the kernel has no seccomp, or does not allow it. The program can go on.
pub fn program() -> Result<(), Unconfined> {
    // Before the filters, and no reason to go without them.
    let given_up = give_up_capabilities();
    filter_program().map_err(Unconfined::Filter)?;
    given_up
}

fn filter_program() -> Result<(), i32> {
    let mut rules = always(NOT_THE_PROGRAM);
    rules.insert(libc::SYS_socket, sockets_beyond(&Family::ALL)?);
    rules.insert(libc::SYS_clone, no_process()?);
    install(rules, Errno::EPERM)?;
    install(always(&[libc::SYS_clone3]), Errno::ENOSYS)
}

/// A new thread, but no new process. The flags of `clone3` lie in memory, where no filter sees them: told that there is no such
/// call, the C library takes this one.
fn no_process() -> Result<Vec<SeccompRule>, i32> {
    one(condition(0, SeccompCmpOp::MaskedEq(bits(libc::CLONE_THREAD)), 0)?)
}

/// Refuses for the calling thread, for ever, what lies beyond these rights, and processes, signals to others, and memory that can
/// be executed. To be called once it has its priority.
///
/// # Errors
/// [`Unconfined`]: the kernel has no seccomp, or does not allow it. The thread can go on.
pub fn thread(rights: Rights) -> Result<(), Unconfined> {
    // A library's user may have started the thread without `program`.
    let given_up = give_up_capabilities();
    filter_thread(rights).map_err(Unconfined::Filter)?;
    given_up
}

fn filter_thread(rights: Rights) -> Result<(), i32> {
    let mut rules = always(NOT_THE_PROGRAM);
    rules.extend(always(NOT_A_THREAD));
    if !rights.files {
        rules.extend(always(NO_FILES));
    }
    rules.insert(libc::SYS_socket, sockets_beyond(rights.sockets)?);
    if rights.threads {
        rules.insert(libc::SYS_clone, no_process()?);
    } else {
        rules.extend(always(NO_THREADS));
    }
    let exec = bits(libc::PROT_EXEC);
    for (call, argument) in [(libc::SYS_mmap, 2), (libc::SYS_mprotect, 2), (libc::SYS_pkey_mprotect, 2)] {
        rules.insert(call, one(condition(argument, SeccompCmpOp::MaskedEq(exec), exec)?)?);
    }
    // Its own process may be ended by it: that is what an abort is.
    let own = bits(nix::unistd::getpid().as_raw());
    rules.insert(libc::SYS_tgkill, one(condition(0, SeccompCmpOp::Ne, own)?)?);
    if rights.threads {
        install(always(&[libc::SYS_clone3]), Errno::ENOSYS)?;
    }
    install(rules, Errno::EPERM)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// These calls, whatever their arguments.
fn always(calls: &[i64]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// Sockets of any other family.
fn sockets_beyond(families: &[Family]) -> Result<Vec<SeccompRule>, i32> {
    let numbers = families.iter().flat_map(|family| family.numbers());
    let others: Result<Vec<_>, _> =
        numbers.map(|number| condition(0, SeccompCmpOp::Ne, bits(*number))).collect();
    let others = others?;
    // No condition at all is every socket.
    if others.is_empty() { Ok(Vec::new()) } else { Ok(vec![SeccompRule::new(others).map_err(no_filter)?]) }
}

fn one(condition: SeccompCondition) -> Result<Vec<SeccompRule>, i32> {
    Ok(vec![SeccompRule::new(vec![condition]).map_err(no_filter)?])
}

fn condition(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompCondition, i32> {
    // The kernel looks at the low half of each of these arguments.
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value).map_err(no_filter)
}

/// A number of the C library's headers as a filter compares it.
const fn bits(number: i32) -> u64 {
    number.cast_unsigned() as u64
}

fn no_filter<E>(_: E) -> i32 {
    Errno::EINVAL as i32
}

/// Compiles and installs one filter for the calling thread and those that it starts.
fn install(rules: Rules, answer: Errno) -> Result<(), i32> {
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|_| Errno::ENOSYS as i32)?;
    let refused = SeccompAction::Errno((answer as i32).cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch).map_err(no_filter)?;
    let code: BpfProgram = filter.try_into().map_err(no_filter)?;
    apply_filter(&code).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
            error.raw_os_error().unwrap_or(Errno::EINVAL as i32)
        }
        _ => Errno::EINVAL as i32,
    })
}

/// What an intruder would try next: each with what the kernel says to the calling thread. None of it changes anything, and
/// where nothing forbids it, each is allowed or fails for another reason than EPERM.
#[cfg(any(test, feature = "fault-points"))]
pub fn attempts() -> impl Iterator<Item = (&'static str, Result<(), Errno>)> {
    use crate::io::sys;
    use nix::sys::signal::kill;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    use nix::unistd::{execv, getppid};

    let io = |error: std::io::Error| error.raw_os_error().map_or(Errno::UnknownErrno, Errno::from_raw);
    // A program that is not there: an attempt that gets through must not replace this one.
    let missing = execv(c"/nonexistent/program", &[c"program"]).map(|_| ());
    let open = |family| socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None).map(drop);
    [
        ("file", std::fs::File::open("/proc/self/status").map(drop).map_err(io)),
        ("new file", std::fs::create_dir("/proc/self/new").map_err(io)),
        ("program", missing),
        ("process", std::process::Command::new("/bin/true").status().map(drop).map_err(io)),
        ("thread", std::thread::Builder::new().spawn(|| ()).map(drop).map_err(io)),
        ("signal", kill(getppid(), None)),
        ("executable memory", sys::try_executable_memory()),
        ("socket unix", open(AddressFamily::Unix)),
        ("socket ip", open(AddressFamily::Inet)),
        ("socket ip6", open(AddressFamily::Inet6)),
        ("socket netlink", open(AddressFamily::Netlink)),
        ("socket can", open(AddressFamily::Can)),
        ("socket other", open(AddressFamily::Alg)),
    ]
    .into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs it in a thread that ends after it: a filter is for ever.
    fn in_a_thread<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(body).join().unwrap()
    }

    fn refused(attempts: &[(&'static str, Result<(), Errno>)]) -> Vec<&'static str> {
        let denied = |outcome: &Result<(), Errno>| *outcome == Err(Errno::EPERM);
        attempts.iter().filter(|(_, outcome)| denied(outcome)).map(|(what, _)| *what).collect()
    }

    #[test]
    fn row_107_a_thread_without_rights_opens_nothing_and_starts_nothing() {
        let before: Vec<_> = in_a_thread(|| attempts().collect());
        assert_eq!(refused(&before), Vec::<&str>::new(), "the attempts prove nothing: {before:?}");
        let after: Vec<_> = in_a_thread(|| {
            thread(Rights { files: false, threads: false, sockets: &[] }).unwrap();
            attempts().collect()
        });
        assert_eq!(refused(&after).len(), after.len(), "{after:?}");
        // The others are as before.
        let others: Vec<_> = in_a_thread(|| attempts().collect());
        assert_eq!(refused(&others), Vec::<&str>::new(), "{others:?}");
    }

    #[test]
    fn row_107_a_thread_has_the_rights_of_its_row_and_no_more() {
        for families in [&[Family::Ip][..], &[Family::Can, Family::Netlink], &Family::ALL] {
            for (files, threads) in [(false, false), (false, true), (true, false)] {
                let tried: Vec<_> = in_a_thread(move || {
                    thread(Rights { files, threads, sockets: families }).unwrap();
                    attempts().collect()
                });
                let refused = refused(&tried);
                assert_eq!(!refused.contains(&"file"), files, "{tried:?}");
                assert_eq!(!refused.contains(&"thread"), threads, "{tried:?}");
                for family in Family::ALL {
                    let name = format!("socket {}", family.name());
                    let is_refused = refused.iter().any(|what| *what == name);
                    assert_ne!(is_refused, families.contains(&family), "{name}: {tried:?}");
                }
                for never in ["program", "process", "signal", "executable memory", "socket other"] {
                    assert!(refused.contains(&never), "{never}: {tried:?}");
                }
            }
        }
    }

    #[test]
    fn what_a_thread_starts_has_no_more_rights() {
        let tried: Vec<_> = in_a_thread(|| {
            thread(Rights { files: false, threads: true, sockets: &[Family::Unix] }).unwrap();
            in_a_thread(|| attempts().collect())
        });
        let allowed = ["thread", "socket unix"];
        assert_eq!(refused(&tried).len(), tried.len() - allowed.len(), "{tried:?}");
        assert!(allowed.iter().all(|what| !refused(&tried).contains(what)), "{tried:?}");
    }

    #[test]
    fn the_program_keeps_its_files_threads_and_families_and_starts_no_process() {
        let tried: Vec<_> = in_a_thread(|| {
            program().unwrap();
            // What it starts is under the same filter.
            in_a_thread(|| attempts().collect())
        });
        assert_eq!(refused(&tried), ["program", "process", "socket other"], "{tried:?}");
    }

    #[test]
    fn row_51_who_was_started_by_root_waits_for_no_modprobe() {
        let held = || capabilities(None).unwrap();
        let mut kept = held();
        if KEPT.contains(kept.permitted.union(kept.inheritable)) {
            println!("row 51: giving up capabilities needs some (root): not tried here");
            return;
        }
        for set in [&mut kept.effective, &mut kept.permitted, &mut kept.inheritable] {
            *set &= KEPT;
        }
        assert!(!KEPT.contains(CapabilitySet::NET_ADMIN));
        let by_program = in_a_thread(move || {
            program().unwrap();
            // What it starts has none of them either.
            in_a_thread(held)
        });
        let by_thread = in_a_thread(move || {
            thread(Rights { files: false, threads: false, sockets: &[] }).unwrap();
            held()
        });
        assert_eq!((by_program, by_thread), (kept, kept));
    }

    #[test]
    fn row_107_where_the_sandbox_forbids_to_give_up_capabilities_the_filters_are_there_all_the_same() {
        // As the unit of the package does, whose user has nothing to give up; who has, is told.
        let tried = in_a_thread(|| {
            let refused = install(always(&[libc::SYS_capset]), Errno::EPERM);
            let told = (refused, thread(Rights { files: false, threads: false, sockets: &[] }));
            (told, attempts().collect::<Vec<_>>())
        });
        let (told, tried) = tried;
        let sets = capabilities(None).unwrap();
        let more = !KEPT.contains(sets.permitted.union(sets.inheritable));
        let expected = if more { Err(Unconfined::Capabilities(Errno::EPERM as i32)) } else { Ok(()) };
        assert_eq!(told, (Ok(()), expected));
        assert_eq!(refused(&tried).len(), tried.len(), "{tried:?}");
    }

    #[test]
    fn an_abort_is_still_one() {
        // A panic within a panic sends itself a signal; this one does nothing by default.
        let own = in_a_thread(|| {
            thread(Rights { files: false, threads: false, sockets: &[] }).unwrap();
            nix::sys::signal::raise(nix::sys::signal::Signal::SIGURG)
        });
        assert_eq!(own, Ok(()));
    }
}
