//! What the simulated server can be set to.
//!
//! Owns every choice that the vendor's documentation leaves open or that changed between versions, each with the
//! default and its reason. Relies on nothing. Never changes while the simulation runs, except by command.

use core::fmt;

use crate::time::Duration;

/// A set of defaults for one version of the vendor's software.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// The documented schema of version 2.48: no `missing_cameras`, fault names in one word.
    Doc248,
    /// The form of 2026-05: `missing_cameras`, spaced fault names, "Latency Loop Not Closed".
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

/// All settings of the simulated server. [`Options::default`] is the newest profile.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How often new data is looked for: 10 ms (documented).
    pub tick: Duration,
    /// Without new data the last message is sent again after this: 20 ms (documented).
    pub repeat: Duration,
    /// What happens to a second client (undocumented): rejected.
    pub second_client: SecondClient,
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
    /// LatencyLoopNotClosed without a valid returned pair for this long; `None` for versions without it. The
    /// threshold is undocumented; 1,000 ms is that of the other link faults.
    pub loop_not_closed: Option<Duration>,
    /// Messages after a connect that still say VehicleNoResponse (undocumented): 0.
    pub faults_after_connect: u32,
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
    /// How often the operator sends: 20 ms, so that the counter rises at 50 Hz.
    pub operator_period: Duration,
    /// From the operator to the vehicle: 20 ms, a fair mobile network.
    pub uplink: Link,
    /// From the vehicle's camera to the operator's screen: 60 ms for coding, network and decoding.
    pub video: Link,
    /// Time between video frames: 33 ms.
    pub video_period: Duration,
    /// Seed of the key and of the links' faults.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tick: Duration::from_millis(10),
            repeat: Duration::from_millis(20),
            second_client: SecondClient::default(),
            default_values: DefaultValues::default(),
            defaults_on_any_fault: true,
            latency_update: LatencyUpdate::default(),
            latency_limit: Duration::from_millis(500),
            initial_latency_ms: 0.0,
            control_timeout: Duration::from_millis(1_000),
            loop_not_closed: Some(Duration::from_millis(1_000)),
            faults_after_connect: 0,
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
            uplink: Link::new(Duration::from_millis(20)),
            video: Link::new(Duration::from_millis(60)),
            video_period: Duration::from_millis(33),
            seed: 1,
        }
    }
}

/// Why a setting is refused: the name is unknown or the value does not fit. Nothing is changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError(String);

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for SettingError {}

/// Every setting by name, with the values it takes.
pub const SETTINGS: [(&str, &str); 31] = [
    ("tick_ms", "1..1000"),
    ("repeat_ms", "1..10000"),
    ("second_client", "reject|replace|ignore"),
    ("default_values", "neutral|zeroed|null|absent|last"),
    ("defaults_on_any_fault", "true|false"),
    ("latency_update", "control|continuous"),
    ("latency_limit_ms", "1..100000"),
    ("initial_latency_ms", "0..100000"),
    ("control_timeout_ms", "1..100000"),
    ("loop_not_closed_ms", "off|1..100000"),
    ("faults_after_connect", "0.."),
    ("spaced_faults", "true|false"),
    ("reason_separator", "text"),
    ("reason_first_only", "true|false"),
    ("missing_cameras", "true|false"),
    ("user_data_form", "bare|wrapped"),
    ("user_data_under_fault", "true|false"),
    ("counter_key", "text"),
    ("ack_offset_ms", "0.."),
    ("stamp_repeats", "true|false"),
    ("bad_response", "drop|close"),
    ("back_pressure", "drop|close"),
    ("operator_period_ms", "1..10000"),
    ("uplink_delay_ms", "0..100000"),
    ("uplink_jitter_ms", "0..100000"),
    ("uplink_loss", "0..1"),
    ("uplink_duplicate", "0..1"),
    ("uplink_reorder", "0..1"),
    ("video_delay_ms", "0..100000"),
    ("video_period_ms", "1..10000"),
    ("seed", "0.."),
];

impl Options {
    /// Sets one option by its name in [`SETTINGS`].
    ///
    /// # Errors
    /// [`SettingError`] with the values that would fit, or the names there are.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let Some((_, form)) = SETTINGS.iter().find(|(known, _)| *known == name) else {
            let names: Vec<_> = SETTINGS.iter().map(|(name, _)| *name).collect();
            return Err(SettingError(format!("unknown setting {name:?}; there are: {}", names.join(" "))));
        };
        self.try_set(name, value).ok_or_else(|| SettingError(format!("{name} takes {form}, not {value:?}")))
    }

    fn try_set(&mut self, name: &str, value: &str) -> Option<()> {
        match name {
            "tick_ms" => self.tick = ms(value, 1.0, 1e3)?,
            "repeat_ms" => self.repeat = ms(value, 1.0, 1e4)?,
            "second_client" => {
                let forms = [SecondClient::Reject, SecondClient::Replace, SecondClient::Ignore];
                self.second_client = one_of(value, &["reject", "replace", "ignore"], forms)?;
            }
            "default_values" => self.default_values = DefaultValues::from_name(value)?,
            "defaults_on_any_fault" => self.defaults_on_any_fault = value.parse().ok()?,
            "latency_update" => {
                let forms = [LatencyUpdate::OnControl, LatencyUpdate::Continuous];
                self.latency_update = one_of(value, &["control", "continuous"], forms)?;
            }
            "latency_limit_ms" => self.latency_limit = ms(value, 1.0, 1e5)?,
            "initial_latency_ms" => self.initial_latency_ms = number(value, 0.0, 1e5)?,
            "control_timeout_ms" => self.control_timeout = ms(value, 1.0, 1e5)?,
            "loop_not_closed_ms" if value == "off" => self.loop_not_closed = None,
            "loop_not_closed_ms" => self.loop_not_closed = Some(ms(value, 1.0, 1e5)?),
            "faults_after_connect" => self.faults_after_connect = value.parse().ok()?,
            "spaced_faults" => self.spaced_faults = value.parse().ok()?,
            "reason_separator" => self.reason_separator = value.to_owned(),
            "reason_first_only" => self.reason_first_only = value.parse().ok()?,
            "missing_cameras" => self.missing_cameras = value.parse().ok()?,
            "user_data_form" => {
                self.user_data_form =
                    one_of(value, &["bare", "wrapped"], [UserDataForm::Bare, UserDataForm::Wrapped])?;
            }
            "user_data_under_fault" => self.user_data_under_fault = value.parse().ok()?,
            "counter_key" => self.counter_key = value.to_owned(),
            "ack_offset_ms" => self.ack_offset_ms = value.parse().ok()?,
            "stamp_repeats" => self.stamp_repeats = value.parse().ok()?,
            "bad_response" => {
                self.bad_response = one_of(value, &["drop", "close"], [Reaction::Drop, Reaction::Close])?
            }
            "back_pressure" => {
                self.back_pressure = one_of(value, &["drop", "close"], [Reaction::Drop, Reaction::Close])?
            }
            "operator_period_ms" => self.operator_period = ms(value, 1.0, 1e4)?,
            "uplink_delay_ms" => self.uplink.delay = ms(value, 0.0, 1e5)?,
            "uplink_jitter_ms" => self.uplink.jitter = ms(value, 0.0, 1e5)?,
            "uplink_loss" => self.uplink.loss = number(value, 0.0, 1.0)?,
            "uplink_duplicate" => self.uplink.duplicate = number(value, 0.0, 1.0)?,
            "uplink_reorder" => self.uplink.reorder = number(value, 0.0, 1.0)?,
            "video_delay_ms" => self.video.delay = ms(value, 0.0, 1e5)?,
            "video_period_ms" => self.video_period = ms(value, 1.0, 1e4)?,
            "seed" => self.seed = value.parse().ok()?,
            _ => return None,
        }
        Some(())
    }
}

fn number(text: &str, low: f64, high: f64) -> Option<f64> {
    text.parse().ok().filter(|value| (low..=high).contains(value))
}

fn ms(text: &str, low: f64, high: f64) -> Option<Duration> {
    number(text, low, high).map(|ms| Duration::from_secs_f64(ms / 1e3))
}

fn one_of<T, const N: usize>(text: &str, names: &[&str; N], values: [T; N]) -> Option<T> {
    names.iter().zip(values).find(|(name, _)| **name == text).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_takes_a_value_and_refuses_nonsense() {
        for (name, form) in SETTINGS {
            let mut options = Options::default();
            let good =
                form.split(['|', '.']).next().map_or("5", |word| if word == "text" { "x" } else { word });
            options.set(name, good).unwrap_or_else(|error| panic!("{error}"));
            if form != "text" {
                options.set(name, "nonsense").unwrap_err();
            }
        }
        let error = Options::default().set("tick", "5").unwrap_err();
        assert!(error.to_string().contains("tick_ms"));
        let mut options = Options::default();
        options.set("loop_not_closed_ms", "700").unwrap();
        assert_eq!(options.loop_not_closed, Some(Duration::from_millis(700)));
        options.set("uplink_loss", "1.5").unwrap_err();
    }

    #[test]
    fn profiles_have_names() {
        for name in Profile::NAMES {
            assert!(Profile::from_name(name).is_some());
        }
        assert!(!Profile::Doc248.options().missing_cameras && Profile::Y2026.options().missing_cameras);
    }
}
