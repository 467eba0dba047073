//! Where a test can make a thread panic or hang. Compiled in with the feature `fault-points` alone.
//!
//! Owns the trigger: a file named by `OCPCAN_FAULT_POINT` that says `panic THREAD`, `hang THREAD` or `spin THREAD`. Never part of a
//! release: without the feature it is an empty function.

/// Panics or hangs here, if a test asks this thread to.
#[cfg(not(feature = "fault-points"))]
pub(super) const fn pass(_thread: &str) {}

/// Panics or hangs here, if a test asks this thread to.
#[cfg(feature = "fault-points")]
pub(super) fn pass(thread: &str) {
    let Some(path) = std::env::var_os("OCPCAN_FAULT_POINT") else { return };
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    match text.trim().split_once(' ') {
        Some(("panic", name)) if name == thread => {
            // Once: the panic handler of the watchdog passes here again, and must not find it.
            let _ = std::fs::remove_file(&path);
            panic!("fault point: {thread}");
        }
        Some(("double", name)) if name == thread => {
            struct Bomb;
            impl Drop for Bomb {
                fn drop(&mut self) {
                    panic!("fault point: a panic while unwinding");
                }
            }
            let _ = std::fs::remove_file(&path);
            let _bomb = Bomb;
            panic!("fault point: {thread}");
        }
        Some(("hang", name)) if name == thread => {
            let _ = std::fs::remove_file(&path);
            loop {
                std::thread::park();
            }
        }
        Some(("spin", name)) if name == thread => {
            let _ = std::fs::remove_file(&path);
            loop {
                std::hint::spin_loop();
            }
        }
        _ => {}
    }
}
