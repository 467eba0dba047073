//! Where a test can make a thread panic, hang, or try what it may not do. Compiled in with the feature `fault-points` alone.
//!
//! Owns the trigger: a file named by `OCPCAN_FAULT_POINT` that says `panic THREAD`, `double THREAD`, `hang THREAD`, `spin THREAD` or
//! `try THREAD`; a thread of its own reads it, because the others may open no file. Never part of a release: without the
//! feature these are empty functions.

/// Starts to look for the trigger.
#[cfg(not(feature = "fault-points"))]
pub(super) const fn watch() {}

/// Does here what a test asks of this thread.
#[cfg(not(feature = "fault-points"))]
pub(super) const fn pass(_thread: &str) {}

#[cfg(feature = "fault-points")]
pub(super) use active::{pass, watch};

#[cfg(feature = "fault-points")]
mod active {
    use std::sync::{Mutex, PoisonError};

    /// What a test has asked for and nobody has done yet: what, and which thread.
    static ASKED: Mutex<Option<(String, String)>> = Mutex::new(None);

    /// Time between two looks.
    const LOOK: std::time::Duration = std::time::Duration::from_millis(1);

    pub(in crate::threads) fn watch() {
        let Some(path) = std::env::var_os("OCPCAN_FAULT_POINT") else { return };
        std::thread::spawn(move || {
            loop {
                if let Ok(text) = std::fs::read_to_string(&path) {
                    let _ = std::fs::remove_file(&path);
                    let asked =
                        text.trim().split_once(' ').map(|(what, who)| (what.to_owned(), who.to_owned()));
                    *ASKED.lock().unwrap_or_else(PoisonError::into_inner) = asked;
                }
                std::thread::sleep(LOOK);
            }
        });
    }

    pub(in crate::threads) fn pass(thread: &str) {
        // Once: the panic handler of the watchdog passes here again, and must not find it.
        let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((what, _)) = asked.take_if(|(_, who)| who == thread) else { return };
        drop(asked);
        match what.as_str() {
            "panic" => panic!("fault point: {thread}"),
            "double" => {
                struct Bomb;
                impl Drop for Bomb {
                    fn drop(&mut self) {
                        panic!("fault point: a panic while unwinding");
                    }
                }
                let _bomb = Bomb;
                panic!("fault point: {thread}");
            }
            "hang" => loop {
                std::thread::park();
            },
            "spin" => loop {
                std::hint::spin_loop();
            },
            "try" => {
                let tried: Vec<_> = crate::io::confine::attempts()
                    .map(|(what, outcome)| {
                        format!(
                            "{what} {}",
                            outcome.map_or_else(|errno| errno.to_string(), |()| "allowed".to_owned())
                        )
                    })
                    .collect();
                eprintln!("fault point: {thread} tried: {}", tried.join(", "));
            }
            _ => {}
        }
    }
}
