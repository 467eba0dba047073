//! What the simulation can be set to.
//!
//! Owns every choice that the vendor's documentation leaves open or that changed between versions, each with the
//! default and its reason; [`settings`] has their names. Relies on nothing. Never changes while the simulation runs,
//! except by command.

use crate::proto::ocp::server::Part;
use crate::proto::ocp::{Axis, Controller};
use crate::time::Duration;

pub mod settings;

pub use settings::{SETTINGS, SettingError};

/// A set of defaults for one version of the vendor's software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// The documented schema of version 2.48: no `missing_cameras` in the telemetry, no `is_monitor`, fault names in
    /// one word, InputLost where no vehicle is chosen.
    Doc248,
    /// The form of 2026-05: both members, spaced fault names, "Latency Loop Not Closed", VehicleControlInactive where
    /// no vehicle is chosen.
    #[default]
    Y2026,
}

impl Profile {
    /// The names for the command line.
    pub const NAMES: [&'static str; 2] = ["doc-2.48", "2026-05"];

    /// The profile of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "doc-2.48" => Some(Self::Doc248),
            "2026-05" => Some(Self::Y2026),
            _ => None,
        }
    }

    /// The options of that version.
    #[must_use]
    pub fn options(self) -> Options {
        match self {
            Self::Doc248 => Options {
                missing_cameras: false,
                spaced_faults: false,
                loop_not_closed: None,
                is_monitor: false,
                no_missing_cameras_is_null: true,
                unset_active: Unset::InputLost,
                ..Options::default()
            },
            Self::Y2026 => Options::default(),
        }
    }
}

/// What happens to a client that connects while another one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SecondClient {
    /// The second one is closed at once.
    #[default]
    Reject,
    /// The first one is closed.
    Replace,
    /// The second one stays connected and never hears a byte.
    Ignore,
}

/// What `controller` says while a fault is active ("the default values" of the documentation).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DefaultValues {
    /// Sticks 0, triggers -1, no button.
    #[default]
    Neutral,
    /// Everything 0: triggers half pressed, the trap for a naive client.
    Zeroed,
    /// `null`
    Null,
    /// The member is left out.
    Absent,
    /// The operator's last command goes on.
    Last,
}

impl DefaultValues {
    /// The form of that name; `none` is the same as `absent`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "neutral" => Some(Self::Neutral),
            "zeroed" => Some(Self::Zeroed),
            "null" => Some(Self::Null),
            "none" | "absent" => Some(Self::Absent),
            "last" => Some(Self::Last),
            _ => None,
        }
    }

    /// What is written for a gamepad that is `held` so.
    pub(super) fn controller(self, held: Part<Controller>) -> Part<Controller> {
        match self {
            Self::Neutral => Part::Is(Controller::NEUTRAL),
            Self::Zeroed => Part::Is(Controller { axes: [0.0; Axis::COUNT], buttons: 0 }),
            Self::Null => Part::null(),
            Self::Absent => Part::Absent,
            Self::Last => held,
        }
    }
}

/// When the latency is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LatencyUpdate {
    /// When a control message arrives: after a lost link the value stands still. The harder case for a client.
    #[default]
    OnControl,
    /// On each tick: after a lost link the value grows.
    Continuous,
}

/// How the operator's data is passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UserDataForm {
    /// The value itself.
    #[default]
    Bare,
    /// `{"user_data": value}`
    Wrapped,
}

/// What a bad response or a client that does not read leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reaction {
    /// The response (or the newest message) is dropped.
    #[default]
    Drop,
    /// The connection is closed.
    Close,
}

/// The fault of every vehicle where there are several and none is chosen; the vendor's pages disagree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unset {
    /// VehicleControlInactive, as the page on faults says.
    #[default]
    Inactive,
    /// InputLost, as the page on the Player's TCP server says.
    InputLost,
}

/// What becomes of client data that nobody renews.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientData {
    /// The last is repeated. The harder case for a vehicle.
    #[default]
    Repeat,
    /// There is none any more.
    Absent,
}

/// A one-way path with its faults.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Delay of each item.
    pub delay: Duration,
    /// Random addition to the delay, up to this. Order is kept.
    pub jitter: Duration,
    /// Fraction of items that are lost.
    pub loss: f64,
    /// Fraction of items that arrive twice.
    pub duplicate: f64,
    /// Fraction of items that take twice the delay and so arrive after later ones.
    pub reorder: f64,
}

impl Link {
    /// A path without faults.
    #[must_use]
    pub const fn new(delay: Duration) -> Self {
        Self { delay, jitter: Duration::ZERO, loss: 0.0, duplicate: 0.0, reorder: 0.0 }
    }
}

/// All settings of the simulation. [`Options::default`] is the newest profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Names of the vehicles, at least one: `example`, as in the example configuration.
    pub vehicles: Vec<String>,
    /// How often new data is looked for: 10 ms (documented).
    pub tick: Duration,
    /// Without new data the last message is sent again after this: 20 ms (documented).
    pub repeat: Duration,
    /// What happens to a second client of a vehicle (undocumented): rejected.
    pub second_client: SecondClient,
    /// A client that says nothing for this long is closed, on both sides (undocumented): never.
    pub idle_timeout: Option<Duration>,
    /// What `controller` says under a fault (undocumented): neutral.
    pub default_values: DefaultValues,
    /// Whether any fault leads to default values, or only NoControlMessage and HighLatency (undocumented): any.
    pub defaults_on_any_fault: bool,
    /// When latency is computed (undocumented): with each control message.
    pub latency_update: LatencyUpdate,
    /// HighLatency above this: 500 ms (documented).
    pub latency_limit: Duration,
    /// What `latency` says before the loop has closed once (undocumented), milliseconds: 0.
    pub initial_latency_ms: f64,
    /// NoControlMessage after this: 1,000 ms (documented).
    pub control_timeout: Duration,
    /// Whether NoControlMessage is there from the start until the first control message (undocumented): no.
    pub no_control_at_start: bool,
    /// CameraLost after this without a picture: 200 ms (documented).
    pub camera_timeout: Duration,
    /// Cameras whose drop detector is off: none.
    pub unwatched_cameras: Vec<String>,
    /// StreamerSlow above this: 500 ms (documented).
    pub slow_frame: Duration,
    /// LatencyLoopNotClosed without a valid returned pair for this long; `None` for versions without it. The
    /// threshold is undocumented; 1,000 ms is that of the other link faults.
    pub loop_not_closed: Option<Duration>,
    /// Messages after a connect that still say VehicleNoResponse (undocumented): 0.
    pub faults_after_connect: u32,
    /// Whether faults of the operator's side count in `telemetry.fault` (undocumented): no.
    pub sender_faults_in_telemetry: bool,
    /// Fault names in several words instead of one.
    pub spaced_faults: bool,
    /// What stands between several fault names (undocumented): a comma and a space.
    pub reason_separator: String,
    /// Only the first fault is named.
    pub reason_first_only: bool,
    /// Whether `telemetry.missing_cameras` is sent.
    pub missing_cameras: bool,
    /// Form of `client_user_data` (undocumented): bare.
    pub user_data_form: UserDataForm,
    /// Whether `client_user_data` goes on under a fault (undocumented): yes.
    pub user_data_under_fault: bool,
    /// Key of the operator's counter in the user data: `counter`.
    pub counter_key: String,
    /// Added to `ack_time`, to test values above 2^53: 0.
    pub ack_offset_ms: u64,
    /// Whether a repeat carries a new `ack_time` (undocumented): yes.
    pub stamp_repeats: bool,
    /// A malformed or oversized response (undocumented): dropped.
    pub bad_response: Reaction,
    /// A client that does not read (undocumented): the newest message is dropped.
    pub back_pressure: Reaction,
    /// How often the Player sends control: 20 ms, so that the counter rises at 50 Hz. The vendor's sends with each of
    /// its frames, at most 100 a second.
    pub operator_period: Duration,
    /// How often the Player sends feedback to its client (undocumented): at 60 Hz, as a screen's frames.
    pub feedback_period: Duration,
    /// What happens to a second client of the Player (documented: one at a time): rejected.
    pub second_player_client: SecondClient,
    /// A malformed or oversized client message (documented: dropped with a warning): dropped.
    pub bad_client_message: Reaction,
    /// What `controller` says without a gamepad (undocumented): left out.
    pub controller_input_lost: DefaultValues,
    /// What `controller` says for a vehicle that is not the chosen one (undocumented): left out.
    pub controller_inactive: DefaultValues,
    /// What `controller` says where the client has switched the gamepad off (undocumented): left out.
    pub controller_disabled: DefaultValues,
    /// Whether an unplugged gamepad is InputLost where the client has switched it off (undocumented): yes.
    pub input_lost_when_disabled: bool,
    /// Which fault stands for several vehicles of which none is chosen (the vendor's pages disagree).
    pub unset_active: Unset,
    /// NoFeedbackMessage after this: 1,000 ms (documented).
    pub feedback_timeout: Duration,
    /// Whether the operator's own data (`user`, `counter`) is sent until a client has sent some: yes.
    pub own_user_data: bool,
    /// Whether the Player returns acks by itself as long as no client data came (undocumented): yes.
    pub own_ack_echo: bool,
    /// What becomes of client data and acks when the TCP client is gone (undocumented): repeated.
    pub data_after_close: ClientData,
    /// What becomes of client data in a source conflict (undocumented): repeated; acks are not.
    pub data_in_conflict: ClientData,
    /// Whether a session that only watches sends control without controller (undocumented): it sends nothing.
    pub monitor_sends_null: bool,
    /// Sticks nearer to rest than this are at rest (undocumented): 0.
    pub dead_zone: f64,
    /// Whether the feedback has `is_monitor`.
    pub is_monitor: bool,
    /// Whether `missing_cameras` of the feedback is null instead of an empty list.
    pub no_missing_cameras_is_null: bool,
    /// From the operator to the vehicle: 20 ms, a fair mobile network.
    pub uplink: Link,
    /// From the vehicle to the operator: 20 ms.
    pub downlink: Link,
    /// Coding and decoding of the picture, on top of the downlink: 40 ms.
    pub video_delay: Duration,
    /// Time between video frames, each with a feedback message: 33 ms.
    pub video_period: Duration,
    /// Seed of the key and of the links' faults.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            vehicles: vec!["example".to_owned()],
            tick: Duration::from_millis(10),
            repeat: Duration::from_millis(20),
            second_client: SecondClient::default(),
            idle_timeout: None,
            default_values: DefaultValues::default(),
            defaults_on_any_fault: true,
            latency_update: LatencyUpdate::default(),
            latency_limit: Duration::from_millis(500),
            initial_latency_ms: 0.0,
            control_timeout: Duration::from_millis(1_000),
            no_control_at_start: false,
            camera_timeout: Duration::from_millis(200),
            unwatched_cameras: Vec::new(),
            slow_frame: Duration::from_millis(500),
            loop_not_closed: Some(Duration::from_millis(1_000)),
            faults_after_connect: 0,
            sender_faults_in_telemetry: false,
            spaced_faults: true,
            reason_separator: ", ".to_owned(),
            reason_first_only: false,
            missing_cameras: true,
            user_data_form: UserDataForm::default(),
            user_data_under_fault: true,
            counter_key: "counter".to_owned(),
            ack_offset_ms: 0,
            stamp_repeats: true,
            bad_response: Reaction::default(),
            back_pressure: Reaction::default(),
            operator_period: Duration::from_millis(20),
            feedback_period: hertz(60.0),
            second_player_client: SecondClient::default(),
            bad_client_message: Reaction::default(),
            controller_input_lost: DefaultValues::Absent,
            controller_inactive: DefaultValues::Absent,
            controller_disabled: DefaultValues::Absent,
            input_lost_when_disabled: true,
            unset_active: Unset::default(),
            feedback_timeout: Duration::from_millis(1_000),
            own_user_data: true,
            own_ack_echo: true,
            data_after_close: ClientData::default(),
            data_in_conflict: ClientData::default(),
            monitor_sends_null: false,
            dead_zone: 0.0,
            is_monitor: true,
            no_missing_cameras_is_null: false,
            uplink: Link::new(Duration::from_millis(20)),
            downlink: Link::new(Duration::from_millis(20)),
            video_delay: Duration::from_millis(40),
            video_period: Duration::from_millis(33),
            seed: 1,
        }
    }
}

/// The time between two of so many a second.
fn hertz(hz: f64) -> Duration {
    Duration::from_secs_f64(1.0 / hz)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_have_names() {
        for name in Profile::NAMES {
            assert!(Profile::from_name(name).is_some());
        }
        assert!(!Profile::Doc248.options().missing_cameras && Profile::Y2026.options().missing_cameras);
        assert!(!Profile::Doc248.options().is_monitor && Profile::Y2026.options().is_monitor);
    }
}
