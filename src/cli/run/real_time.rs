//! What the gateway asks of the kernel before its first frame: priority, memory, and an end for a thread that runs away.
//!
//! Owns the asking, the words about a refusal, and whether it ends the program: `safety.real_time` decides. Relies on
//! `io::sys`. Never silent about a refusal (SAFETY row 70).

#![allow(
    clippy::disallowed_methods,
    reason = "a right is tried in a thread of its own, before any other is started"
)]

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cli::exit;
use crate::config::{Config, RealTime};
use crate::io::journal::Journal;
use crate::io::sys;
use crate::topology::Thread;

/// A thread at real-time priority that has not slept for this long has run away: no turn of any of them takes a hundredth of
/// it. Microseconds of processor time. At the first, the gateway ends in order (SIGXCPU); where that cannot be, the kernel
/// ends it at the second, and `safe-stop` follows. The service manager's own watchdog (1 s) sees only the watchdog thread.
const RUNAWAY_US: (u64, u64) = (1_000_000, 1_500_000);

/// Asks for everything. What came of the wish for locked memory, to be told; an exit code where the file requires what is
/// refused. Threads ask for their own priority when they start, and tell of a refusal themselves.
pub(super) fn prepare(config: &Config, log: &Journal) -> Result<Result<(), i32>, u8> {
    let is_required = config.real_time == RealTime::Required;
    if is_required && let Err(text) = try_priority() {
        log.error(format_args!("{text}; safety.real_time is \"required\": not started"));
        return Err(exit::UNAVAILABLE);
    }
    // One for a thread's stack would be 2 MiB of locked memory where kilobytes are used, and its first use takes as long as
    // zeroing all of it.
    if let Err(errno) = prctl::set_thp_disable(true) {
        log.warning(format_args!("huge pages are not switched off: {}", errno.desc()));
    }
    let memory = sys::lock_memory();
    if let Err(errno) = memory {
        let text = format!("memory is not locked: {} (LimitMEMLOCK=infinity)", errno.desc());
        if is_required {
            log.error(format_args!("{text}; safety.real_time is \"required\": not started"));
            return Err(exit::UNAVAILABLE);
        }
        log.warning(format_args!("{text}"));
    }
    if let Err(errno) = limit_runaways() {
        log.warning(format_args!("no limit for a thread that runs away: {}", errno.desc()));
    }
    Ok(memory.map_err(|errno| errno as i32))
}

/// Tries the watchdog's priority, the highest that is asked for, in a thread that ends at once.
fn try_priority() -> Result<(), String> {
    let Some(priority) = Thread::Watchdog.spec().priority else { return Ok(()) };
    let tried = std::thread::Builder::new()
        .spawn(move || sys::set_fifo_priority(priority))
        .map_err(|error| format!("cannot start a thread: {error}"))?
        .join();
    match tried {
        Ok(Ok(())) => Ok(()),
        Ok(Err(errno)) => Err(format!("no real-time priority: {} (LimitRTPRIO=49)", errno.desc())),
        Err(_) => Err("no real-time priority: its trial failed".to_owned()),
    }
}

/// Sets the limit, and never above one that is set already.
fn limit_runaways() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_RTTIME)?;
    setrlimit(Resource::RLIMIT_RTTIME, soft.min(RUNAWAY_US.0), hard.min(RUNAWAY_US.1))
}
