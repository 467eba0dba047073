//! The supply of the gateway's own computer, looked at while it runs.
//!
//! Owns the rhythm, the log lines and the obstacle that keeps from arming (SAFETY row 78). Relies on `io::power`. Never stops a
//! drive: braking does not mend a supply.

use std::path::PathBuf;

use super::Main;
use crate::io::clock;
use crate::io::power::Power;
use crate::nodes::management::history::Happening;
use crate::safety::faults::Fault;
use crate::threads::Gateway;
use crate::time::{Duration, Instant};

/// As often as the kernel asks the firmware (two seconds): more often there is nothing new.
const LOOK: Duration = Duration::from_secs(2);

/// What was seen last.
#[derive(Debug)]
pub(super) struct Supply {
    sys: PathBuf,
    looked_at: Option<Instant>,
    trouble: Option<&'static str>,
}

impl Supply {
    pub(super) const fn new(sys: PathBuf) -> Self {
        Self { sys, looked_at: None, trouble: None }
    }

    /// What is wrong now, or nothing, where that is another than before.
    fn changed(&mut self, now: Instant) -> Option<Option<&'static str>> {
        if self.looked_at.is_some_and(|at| now.since(at) < LOOK) {
            return None;
        }
        self.looked_at = Some(now);
        let trouble = Power::read(&self.sys).trouble();
        (trouble != std::mem::replace(&mut self.trouble, trouble)).then_some(trouble)
    }
}

impl Main {
    /// Looks, and says and sets what is new.
    pub(super) fn look_at_supply(&mut self, gateway: &Gateway) {
        let Some(trouble) = self.supply.changed(clock::now()) else { return };
        gateway.shared.set_obstacle(Fault::Supply, trouble.is_some());
        match trouble {
            Some(trouble) => {
                self.log.warning(format_args!("{trouble}; it does not arm until that is mended"));
                gateway.tell(Some(Happening::Warning(trouble.to_owned())));
            }
            None => self.log.notice(format_args!("the supply is right again")),
        }
    }
}
