//! Every reason not to move, one row each.
//!
//! Owns the list of faults, their class, their words and the time within which each must be answered. Relies on
//! `settings`. Never decides when a fault is present: that is `core` and the readers' nodes.

use super::settings::Settings;
use crate::time::Duration;

/// What must happen after a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Link-type: the operator may arm again by the full procedure.
    A,
    /// Evidence of a broken vehicle side or of a second commander: LOCKOUT, cleared locally.
    B,
}

/// What the time bound of a fault is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    /// Seen at once.
    Now,
    /// Seen after the time constant with this key.
    After(&'static str),
}

/// The reaction budget from the moment a fault can be seen to the echo of the safe frame: reader 8, parse 2,
/// watchdog 8, write 1, controller 3, bus 3 milliseconds.
pub const REACTION_MS: u64 = 25;

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $bit:literal, $class:ident, $key:literal, $bound:expr, $text:literal;)*) => {
        /// A reason not to move. The number is the bit in the trip word; lower bits are told first.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum Fault {
            $($(#[$doc])* $name = $bit,)*
        }

        impl Fault {
            /// Every fault, in the order in which causes are told.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The class, which decides how it is cleared.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            /// The name in `user_data`, events and tables.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $key,)* }
            }

            /// What it means, in the operator's words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            const fn bound_of(self) -> Bound {
                match self { $(Self::$name => $bound,)* }
            }
        }
    };
}

use Bound::{After, Now};

faults! {
    /// Somebody else sends a frame with an actuator id.
    ForeignWriter = 0, B, "foreign_writer", Now, "another device or program sends our actuator frames";
    /// A thread panicked.
    Panic = 1, B, "panic", Now, "the gateway has an internal error";
    /// An encoded frame did not decode to what was meant.
    EncodingCheck = 2, B, "encoding_check", Now, "a frame failed its own check before it was sent";
    /// Feedback contradicts the command.
    Contradiction = 3, B, "contradiction", After("contradiction_ms"), "the vehicle does not do what it is told, or reports what cannot be";
    /// The bus is up, frames are accepted, and none was echoed for long, or after a restart.
    CanDead = 4, B, "can_dead", After("can_dead_ms"), "the CAN bus accepts frames and sends none";
    /// Bus-off came back too often.
    BusOffRepeated = 5, B, "bus_off_repeated", Now, "the CAN bus failed again and again";
    /// The watchdog missed its own deadline twice.
    DeadlineMissed = 6, B, "deadline_missed", Now, "the computer was too slow twice";
    /// Armed too often within a minute.
    TooManyArms = 7, B, "too_many_arms", Now, "armed too often within a minute";

    /// A person or the management plane asked for a stop.
    StopRequested = 12, A, "stop_requested", Now, "a stop was requested";
    /// OCP reports a fault, or a reason for one.
    OcpFault = 13, A, "ocp_fault", Now, "OCP reports a fault";
    /// A message was not what the protocol says.
    InvalidMessage = 14, A, "invalid_message", Now, "OCP sent an invalid message";
    /// The stream of messages lost its framing.
    FramingLost = 15, A, "framing_lost", Now, "the data from OCP makes no sense";
    /// `ack_time` went backwards: the Streamer restarted.
    AckBackwards = 16, A, "ack_backwards", Now, "OCP was restarted";
    /// The operator's counter jumped, went backwards or disappeared.
    OperatorCounter = 17, A, "operator_counter", Now, "the operator's counter jumped or disappeared";
    /// No gamepad although something is mapped to it.
    ControllerMissing = 18, A, "controller_missing", Now, "the operator's controller is missing";
    /// A mapped field of the user data is missing or unusable.
    SourceMissing = 19, A, "source_missing", Now, "a value that the operator must send is missing";
    /// A switch that must be on is off.
    RequirementLost = 20, A, "requirement_lost", Now, "a switch that must be on is off";
    /// The dead-man switch was released.
    DeadMan = 21, A, "dead_man", Now, "the dead-man switch was released";
    /// The connection to OCP ended or does not exist.
    OcpDown = 22, A, "ocp_down", Now, "no connection to OCP";
    /// One message takes too long to arrive.
    FrameAssembly = 23, A, "frame_assembly", After("frame_assembly_ms"), "a message from OCP arrives too slowly";
    /// The peer does not read our answers.
    ReplyBlocked = 24, A, "reply_blocked", After("reply_ms"), "OCP does not read our answers";
    /// No message.
    OcpSilence = 25, A, "ocp_silence", After("ocp_silence_ms"), "OCP is silent";
    /// Messages are old by their `ack_time`.
    Stale = 26, A, "stale", After("stale_ms"), "the commands are too old";
    /// `ack_time` does not advance.
    AckFrozen = 27, A, "ack_frozen", After("ack_freeze_ms"), "OCP's clock stands still";
    /// The operator's counter does not advance.
    OperatorFrozen = 28, A, "operator_frozen", After("operator_freeze_ms"), "the operator's station is not heard";
    /// The latency is above the limit.
    LatencyHigh = 29, A, "latency_high", Now, "the latency is too high";
    /// The ocp thread does not run.
    OcpStalled = 30, A, "ocp_stalled", After("thread_stall_ms"), "the gateway's OCP reader hangs";
    /// A can thread does not run.
    CanStalled = 31, A, "can_stalled", After("thread_stall_ms"), "the gateway's CAN reader hangs";
    /// The interface is down or absent.
    BusDown = 32, A, "bus_down", Now, "the CAN interface is down or missing";
    /// The controller is in bus-off.
    BusOff = 33, A, "bus_off", Now, "the CAN controller switched itself off";
    /// A sent frame was not echoed.
    EchoLost = 34, A, "echo_lost", After("echo_ms"), "frames do not leave on the CAN bus";
    /// Required feedback is old or was never there.
    FeedbackLost = 35, A, "feedback_lost", Now, "the vehicle's feedback is missing";
    /// Required feedback fails its checks.
    FeedbackBad = 36, A, "feedback_bad", Now, "the vehicle's feedback is damaged";
    /// The watchdog itself was not run.
    OwnGap = 37, A, "own_gap", Now, "the computer stood still";
    /// The interface cannot prove that frames leave.
    NoProof = 38, A, "no_proof", Now, "the CAN interface cannot prove that frames leave";
    /// The computer's own supply is too low, or it is too hot. Keeps from arming, and never stops a drive.
    Supply = 39, A, "supply", Now, "the gateway's computer has too little voltage or is too hot";
}

impl Fault {
    /// The fault with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|fault| fault.name() == name)
    }

    /// Longest time from the evidence (last message, last progress, the message itself) to the safe frame on the bus.
    #[must_use]
    pub fn bound(self, settings: &Settings) -> Duration {
        let reaction = Duration::from_millis(REACTION_MS);
        match self.bound_of() {
            Now => reaction,
            After(key) => settings.of(key).unwrap_or_default() + reaction,
        }
    }

    const fn bit(self) -> u64 {
        1 << (self as u8)
    }
}

/// A set of faults: the trip word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Faults(u64);

impl Faults {
    /// No fault.
    pub const NONE: Self = Self(0);

    /// The set of bits as the trip word holds them; unknown bits are dropped.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let known = Fault::ALL.iter().fold(0, |all, fault| all | fault.bit());
        Self(bits & known)
    }

    /// The bits for the trip word.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Adds a fault.
    pub const fn insert(&mut self, fault: Fault) {
        self.0 |= fault.bit();
    }

    /// Adds a fault where the condition holds.
    pub const fn insert_if(&mut self, condition: bool, fault: Fault) {
        if condition {
            self.insert(fault);
        }
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without one fault.
    #[must_use]
    pub const fn without(self, fault: Fault) -> Self {
        Self(self.0 & !fault.bit())
    }

    /// Whether the fault is in the set.
    #[must_use]
    pub const fn contains(self, fault: Fault) -> bool {
        self.0 & fault.bit() != 0
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The fault that is told as the cause: class B before class A, then the more specific one.
    #[must_use]
    pub fn first(self) -> Option<Fault> {
        self.iter().next()
    }

    /// The faults in the order in which they are told.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(move |fault| self.contains(*fault))
    }

    /// Whether one of them is of class B.
    #[must_use]
    pub fn any_class_b(self) -> bool {
        self.iter().any(|fault| fault.class() == Class::B)
    }
}

impl From<Fault> for Faults {
    fn from(fault: Fault) -> Self {
        Self(fault.bit())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_unique_ordered_and_class_b_comes_first() {
        let mut seen = Faults::NONE;
        for fault in Fault::ALL {
            assert!(!seen.contains(*fault), "{fault:?}");
            seen.insert(*fault);
        }
        let classes: Vec<Class> = Fault::ALL.iter().map(|fault| fault.class()).collect();
        let first_a = classes.iter().position(|class| *class == Class::A).unwrap();
        assert!(classes[first_a..].iter().all(|class| *class == Class::A));
        assert!(Fault::ALL.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!(Faults::from_bits(u64::MAX), seen);
    }

    #[test]
    fn every_delayed_fault_names_a_time_constant() {
        let settings = Settings::default();
        for fault in Fault::ALL {
            if let After(key) = fault.bound_of() {
                assert!(settings.of(key).is_some(), "{fault:?} names {key}");
            }
            assert!(fault.bound(&settings) >= Duration::from_millis(REACTION_MS));
        }
        assert_eq!(Fault::OcpSilence.bound(&settings), Duration::from_millis(125));
        assert_eq!(Fault::EchoLost.bound(&settings), Duration::from_millis(75));
        assert_eq!(Fault::OperatorFrozen.bound(&settings), Duration::from_millis(275));
    }
}
