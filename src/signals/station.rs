//! The resolved mapping of an operator station: what its configuration and its DBC files become once every check passed.
//!
//! Owns plain data, sized at start and never changed. Relies on `plan` for frames and signals, which are the vehicle's
//! kind, and on `transform`. Never contains a name that is still to be looked up, but for the vehicles: who is connected
//! is known at run time.
//!
//! The sources of a dashboard signal are slots: `Source::User(i)` reads [`StationPlan::slots`]`[i]`, so that the frames of a
//! dashboard are mapped and packed by the same engine as those of a vehicle.

use serde_json::Value;

use super::plan::{BusPlan, ReceivePlan, SendPlan, SignalRef};
use super::transform::Transform;

/// Everything an operator station does with signals.
#[derive(Debug, Clone, Default)]
pub struct StationPlan {
    /// The named buses; other parts refer to them by index.
    pub buses: Vec<BusPlan>,
    /// The frames of the panel.
    pub receive: Vec<ReceivePlan>,
    /// The frames of the dashboard. Their signals read constants and slots.
    pub send: Vec<SendPlan>,
    /// What each slot reads.
    pub slots: Vec<Slot>,
    /// What is sent as `user_data`, in the order of the file.
    pub user_data: Vec<UserSink>,
    /// Which vehicle gets the gamepad and the panel.
    pub active: ActiveVehicle,
    /// `ocp_disable_gamepad`, where it is sent.
    pub disable_gamepad: Option<bool>,
}

/// What a slot reads.
#[derive(Debug, Clone, PartialEq)]
pub enum Slot {
    /// A signal of the panel; missing while it is stale.
    Panel(SignalRef),
    /// A member of a vehicle's feedback; missing while the feedback, or the vehicle's data in it, is stale.
    Feedback {
        /// The keys that lead to it, outermost first. A list reads as its number of entries.
        path: Vec<String>,
        /// The vehicle; `None` is the active one.
        vehicle: Option<String>,
        /// Texts that stand for numbers: the DBC's names of the signal that it goes to.
        names: Vec<(String, f64)>,
    },
    /// Something that the station knows by itself.
    Own(Own),
}

/// What the station knows by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Whether the Player is connected and its feedback fresh.
    Connected,
    /// Whether every panel frame is fresh.
    PanelOk,
    /// Age of the newest feedback in milliseconds; missing before the first.
    FeedbackAge,
    /// Whether the active vehicle has a fault on either side.
    Fault,
}

impl Own {
    /// The names in a configuration, after `station.`.
    pub const NAMES: [(&'static str, Self); 4] = [
        ("connected", Self::Connected),
        ("panel_ok", Self::PanelOk),
        ("feedback_age_ms", Self::FeedbackAge),
        ("fault", Self::Fault),
    ];
}

/// One member of `user_data`.
#[derive(Debug, Clone, PartialEq)]
pub struct UserSink {
    /// The keys that lead to it, outermost first.
    pub path: Vec<String>,
    /// Where its value comes from.
    pub value: SinkValue,
}

/// Where a member of `user_data` comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum SinkValue {
    /// One more with every message that is sent, 0 again after `modulo` - 1.
    Counter {
        /// `None`: it never wraps.
        modulo: Option<u32>,
    },
    /// Whether every panel frame is fresh.
    PanelOk,
    /// Always this.
    Constant(Value),
    /// A signal of the panel.
    Panel {
        /// Which.
        signal: SignalRef,
        /// From its value to the one that is sent.
        transform: Transform,
        /// How that is written.
        form: Form,
        /// What is sent while the panel's frame is stale, and before the first.
        rest: Value,
    },
}

/// How a value is written into JSON.
#[derive(Debug, Clone, PartialEq)]
pub enum Form {
    /// As a number.
    Number,
    /// As `true` where it is 1.
    Switch,
    /// As the name of the value in the DBC; a value without a name is sent as the rest value.
    Name(Vec<(f64, String)>),
}

/// Which vehicle gets the gamepad and the panel.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum ActiveVehicle {
    /// The only one that is connected; none where there are several.
    #[default]
    Only,
    /// This one.
    Named(String),
    /// The one that a selector of the panel chooses.
    Panel {
        /// The selector.
        signal: SignalRef,
        /// Its values, in the unit of the signal. Another value chooses nobody.
        vehicles: Vec<(f64, String)>,
    },
}
