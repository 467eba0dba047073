//! Which frames of others may reach a bus that the gateway drives.
//!
//! Owns the decision for every frame that does not come from the watchdog. Relies on `can`. Default deny; an
//! actuator id is refused in every encoding and in every state, and a diagnostic service that may change something while the
//! vehicle is driven, whatever the lists say.

use super::diagnosis;
use super::input::StateName;
use crate::can::{Frame, FrameKind, Id};

/// The verdict on one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may be written.
    Pass,
    /// It carries an actuator id. Drop it; three of them end the connection.
    Actuator,
    /// It is not on the list of this state. Drop it.
    NotListed,
    /// Error frames are the driver's to make. Drop it.
    ErrorFrame,
    /// A diagnostic request that may change something, while the vehicle is driven. Drop it.
    Service,
}

/// The lists of one bus.
#[derive(Debug, Clone, Default)]
pub struct Gate {
    actuators: Vec<u32>,
    always: Vec<Id>,
    unless_armed: Vec<Id>,
    diagnostic: Vec<Id>,
}

impl Gate {
    /// A gate for one bus. `always` may be injected in every state, `unless_armed` in all but ARMED and STOPPING,
    /// `diagnostic` in DIAG only.
    #[must_use]
    pub fn new(actuators: &[Id], always: &[Id], unless_armed: &[Id], diagnostic: &[Id]) -> Self {
        Self {
            // Compared by number alone: an 11-bit actuator id that comes as a 29-bit one is refused as well.
            actuators: actuators.iter().map(|id| id.raw()).collect(),
            always: always.to_vec(),
            unless_armed: unless_armed.to_vec(),
            diagnostic: diagnostic.to_vec(),
        }
    }

    /// Judges one frame.
    #[must_use]
    pub fn judge(&self, state: StateName, frame: &Frame) -> Verdict {
        let id = frame.id();
        // The low 11 bits of a 29-bit id that match an actuator are no actuator; the whole number is.
        if self.actuators.contains(&id.raw()) {
            return Verdict::Actuator;
        }
        if matches!(frame.kind(), FrameKind::Error) {
            return Verdict::ErrorFrame;
        }
        let listed = match state {
            StateName::Init => false,
            StateName::Armed | StateName::Stopping => self.always.contains(&id),
            StateName::Diag => {
                self.always.contains(&id) || self.unless_armed.contains(&id) || self.diagnostic.contains(&id)
            }
            StateName::Safe | StateName::Standby | StateName::Ready | StateName::Lockout => {
                self.always.contains(&id) || self.unless_armed.contains(&id)
            }
        };
        if !listed {
            return Verdict::NotListed;
        }
        // The list lets an id through, and a request to reset goes to the same id as a request to read.
        let is_driven = matches!(state, StateName::Armed | StateName::Stopping);
        if is_driven && diagnosis::is_request(id) && !diagnosis::only_reads(frame) {
            return Verdict::Service;
        }
        Verdict::Pass
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTUATORS: [u32; 2] = [0x101, 0x102];

    /// Even a list that names an actuator id (config refuses it) does not open the gate.
    fn gate() -> Gate {
        let ids: Vec<Id> = ACTUATORS.iter().filter_map(|id| Id::standard(*id)).collect();
        let listed: Vec<Id> = [0x101, 0x7DF, 0x7E0].iter().filter_map(|id| Id::standard(*id)).collect();
        let extended: Vec<Id> = [0x18DA_10F1].iter().filter_map(|id| Id::extended(*id)).collect();
        Gate::new(&ids, &listed[..2], &listed[2..], &extended)
    }

    fn encodings(id: Id) -> Vec<Frame> {
        vec![
            Frame::data(id, &[1, 2, 3]).unwrap(),
            Frame::data(id, &[]).unwrap(),
            Frame::remote(id, 8).unwrap(),
            Frame::fd(id, &[0; 16], true, false).unwrap(),
            Frame::fd(id, &[0; 64], false, true).unwrap(),
            Frame::data(id, &[2, 0x11, 1]).unwrap(),
        ]
    }

    #[test]
    fn i5_all_2048_ids_in_every_encoding_and_state_pass_only_by_the_list() {
        let gate = gate();
        let mut passed = 0;
        let mut judged = 0;
        for raw in 0..2_048 {
            let plain = Id::standard(raw).unwrap();
            let wide = Id::extended(raw).unwrap();
            for state in StateName::ALL {
                for id in [plain, wide] {
                    for frame in encodings(id) {
                        judged += 1;
                        let verdict = gate.judge(state, &frame);
                        if ACTUATORS.contains(&raw) {
                            assert_eq!(verdict, Verdict::Actuator, "{raw:03x} in {state:?}");
                        }
                        if verdict == Verdict::Pass {
                            passed += 1;
                            assert!(!id.is_extended());
                            assert!(raw == 0x7DF || raw == 0x7E0);
                            assert!(state != StateName::Init);
                            let is_driven = matches!(state, StateName::Armed | StateName::Stopping);
                            assert!(!is_driven || frame.payload() == [1, 2, 3], "{frame:?} in {state:?}");
                        }
                    }
                    let error = Frame::error(raw, [0; 8]);
                    assert_ne!(gate.judge(state, &error), Verdict::Pass);
                }
            }
        }
        // Both ids in the five states without driving, six encodings each; while driving, 0x7DF with a service that reads.
        assert_eq!(passed, (5 + 5) * 6 + 2);
        println!("gate: {judged} frames judged, {passed} passed");
    }

    #[test]
    fn a_million_random_extended_ids_pass_only_by_the_list() {
        let gate = gate();
        let mut x = 0x1234_5678_u32;
        for _ in 0..1_000_000 {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            let id = Id::extended(x & 0x1FFF_FFFF).unwrap();
            let frame = Frame::data(id, &[0; 8]).unwrap();
            if gate.judge(StateName::Diag, &frame) == Verdict::Pass {
                assert_eq!(id.raw(), 0x18DA_10F1);
            }
            assert_ne!(gate.judge(StateName::Armed, &frame), Verdict::Pass);
        }
    }
}
