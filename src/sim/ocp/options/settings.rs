//! The settings by name, as the command line takes them.
//!
//! Owns the names, what each one takes, its default and its meaning. Relies on [`super::Options`]. Never holds a value.

use core::fmt;

use super::{ClientData, DefaultValues, LatencyUpdate, Options, Reaction, SecondClient, Unset, UserDataForm};
use crate::time::Duration;

/// One setting.
#[derive(Clone, Copy)]
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// The values it takes.
    pub form: &'static str,
    /// Its value where nothing else is said, in the newest profile.
    pub default: &'static str,
    /// What it is about.
    pub about: &'static str,
    set: fn(&mut Options, &str) -> Option<()>,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setting").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}  (default {:?})\n    {}", self.name, self.form, self.default, self.about)
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

/// Every setting by name.
#[rustfmt::skip]
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "tick_ms", form: "1..1000", default: "10",
        about: "new data is looked for so often (documented)",
        set: |o, v| put(&mut o.tick, ms(v, 1.0, 1e3)),
    },
    Setting {
        name: "repeat_ms", form: "1..10000", default: "20",
        about: "without new data the last message again after this (documented)",
        set: |o, v| put(&mut o.repeat, ms(v, 1.0, 1e4)),
    },
    Setting {
        name: "second_client", form: "reject|replace|ignore", default: "reject",
        about: "a second client of a vehicle (undocumented)",
        set: |o, v| put(&mut o.second_client, second(v)),
    },
    Setting {
        name: "idle_timeout_ms", form: "off|1..1000000", default: "off",
        about: "a client that says nothing for so long is closed, both sides (undocumented)",
        set: |o, v| put(&mut o.idle_timeout, off_or_ms(v, 1e6)),
    },
    Setting {
        name: "default_values", form: "neutral|zeroed|null|absent|last", default: "neutral",
        about: "controller under a fault (undocumented)",
        set: |o, v| put(&mut o.default_values, form(v)),
    },
    Setting {
        name: "defaults_on_any_fault", form: "true|false", default: "true",
        about: "false: only under NoControlMessage and HighLatency (undocumented)",
        set: |o, v| put(&mut o.defaults_on_any_fault, flag(v)),
    },
    Setting {
        name: "latency_update", form: "control|continuous", default: "control",
        about: "latency is computed with each control message or each tick (undocumented)",
        set: |o, v| put(&mut o.latency_update, one_of(v, [("control", LatencyUpdate::OnControl), ("continuous", LatencyUpdate::Continuous)])),
    },
    Setting {
        name: "latency_limit_ms", form: "1..100000", default: "500",
        about: "HighLatency above this (documented)",
        set: |o, v| put(&mut o.latency_limit, ms(v, 1.0, 1e5)),
    },
    Setting {
        name: "initial_latency_ms", form: "0..100000", default: "0",
        about: "latency before the loop has closed once (undocumented)",
        set: |o, v| put(&mut o.initial_latency_ms, number(v, 0.0, 1e5)),
    },
    Setting {
        name: "control_timeout_ms", form: "1..100000", default: "1000",
        about: "NoControlMessage above this (documented)",
        set: |o, v| put(&mut o.control_timeout, ms(v, 1.0, 1e5)),
    },
    Setting {
        name: "no_control_at_start", form: "true|false", default: "false",
        about: "NoControlMessage until the first control message (undocumented)",
        set: |o, v| put(&mut o.no_control_at_start, flag(v)),
    },
    Setting {
        name: "camera_timeout_ms", form: "1..100000", default: "200",
        about: "CameraLost above this (documented)",
        set: |o, v| put(&mut o.camera_timeout, ms(v, 1.0, 1e5)),
    },
    Setting {
        name: "unwatched_cameras", form: "text", default: "",
        about: "cameras whose drop detector is off, with commas between them",
        set: |o, v| put(&mut o.unwatched_cameras, Some(names(v))),
    },
    Setting {
        name: "slow_frame_ms", form: "1..100000", default: "500",
        about: "StreamerSlow above this (documented)",
        set: |o, v| put(&mut o.slow_frame, ms(v, 1.0, 1e5)),
    },
    Setting {
        name: "loop_not_closed_ms", form: "off|1..100000", default: "1000",
        about: "LatencyLoopNotClosed above this (undocumented); doc-2.48: off",
        set: |o, v| put(&mut o.loop_not_closed, off_or_ms(v, 1e5)),
    },
    Setting {
        name: "faults_after_connect", form: "0..", default: "0",
        about: "messages after a connect that still say VehicleNoResponse (undocumented)",
        set: |o, v| put(&mut o.faults_after_connect, v.parse().ok()),
    },
    Setting {
        name: "sender_faults_in_telemetry", form: "true|false", default: "false",
        about: "faults of the operator's side count in telemetry.fault (undocumented)",
        set: |o, v| put(&mut o.sender_faults_in_telemetry, flag(v)),
    },
    Setting {
        name: "spaced_faults", form: "true|false", default: "true",
        about: "fault names in several words; doc-2.48: false",
        set: |o, v| put(&mut o.spaced_faults, flag(v)),
    },
    Setting {
        name: "reason_separator", form: "text", default: ", ",
        about: "between fault names in fault_reason (undocumented)",
        set: |o, v| put(&mut o.reason_separator, Some(v.to_owned())),
    },
    Setting {
        name: "reason_first_only", form: "true|false", default: "false",
        about: "fault_reason names the first fault only (undocumented)",
        set: |o, v| put(&mut o.reason_first_only, flag(v)),
    },
    Setting {
        name: "missing_cameras", form: "true|false", default: "true",
        about: "telemetry has missing_cameras; doc-2.48: false",
        set: |o, v| put(&mut o.missing_cameras, flag(v)),
    },
    Setting {
        name: "user_data_form", form: "bare|wrapped", default: "bare",
        about: "client_user_data as it is or in {\"user_data\": ..} (undocumented)",
        set: |o, v| put(&mut o.user_data_form, one_of(v, [("bare", UserDataForm::Bare), ("wrapped", UserDataForm::Wrapped)])),
    },
    Setting {
        name: "user_data_under_fault", form: "true|false", default: "true",
        about: "client_user_data goes on under a fault (undocumented)",
        set: |o, v| put(&mut o.user_data_under_fault, flag(v)),
    },
    Setting {
        name: "counter_key", form: "text", default: "counter",
        about: "the operator's own counter in the user data",
        set: |o, v| put(&mut o.counter_key, Some(v.to_owned())),
    },
    Setting {
        name: "ack_offset_ms", form: "0..", default: "0",
        about: "added to ack_time, for values above 2^53",
        set: |o, v| put(&mut o.ack_offset_ms, v.parse().ok()),
    },
    Setting {
        name: "stamp_repeats", form: "true|false", default: "true",
        about: "a repeated message has a new ack_time (undocumented)",
        set: |o, v| put(&mut o.stamp_repeats, flag(v)),
    },
    Setting {
        name: "bad_response", form: "drop|close", default: "drop",
        about: "a malformed or oversized response (undocumented)",
        set: |o, v| put(&mut o.bad_response, reaction(v)),
    },
    Setting {
        name: "back_pressure", form: "drop|close", default: "drop",
        about: "a client that does not read, both sides (undocumented)",
        set: |o, v| put(&mut o.back_pressure, reaction(v)),
    },
    Setting {
        name: "operator_period_ms", form: "1..10000", default: "20",
        about: "the Player sends control so often (vendor: each frame, at most 100 Hz)",
        set: |o, v| put(&mut o.operator_period, ms(v, 1.0, 1e4)),
    },
    Setting {
        name: "feedback_hz", form: "0.1..1000", default: "60",
        about: "the Player sends feedback to its client so often (undocumented)",
        set: |o, v| put(&mut o.feedback_period, number(v, 0.1, 1e3).map(super::hertz)),
    },
    Setting {
        name: "second_player_client", form: "reject|replace|ignore", default: "reject",
        about: "a second client of the Player (documented: one at a time)",
        set: |o, v| put(&mut o.second_player_client, second(v)),
    },
    Setting {
        name: "bad_client_message", form: "drop|close", default: "drop",
        about: "a malformed or oversized client message",
        set: |o, v| put(&mut o.bad_client_message, reaction(v)),
    },
    Setting {
        name: "controller_input_lost", form: "neutral|zeroed|null|absent|last", default: "absent",
        about: "controller without a gamepad (undocumented)",
        set: |o, v| put(&mut o.controller_input_lost, form(v)),
    },
    Setting {
        name: "controller_inactive", form: "neutral|zeroed|null|absent|last", default: "absent",
        about: "controller for a vehicle that is not the chosen one (undocumented)",
        set: |o, v| put(&mut o.controller_inactive, form(v)),
    },
    Setting {
        name: "controller_disabled", form: "neutral|zeroed|null|absent|last", default: "absent",
        about: "controller under ocp_disable_gamepad (undocumented)",
        set: |o, v| put(&mut o.controller_disabled, form(v)),
    },
    Setting {
        name: "input_lost_when_disabled", form: "true|false", default: "true",
        about: "InputLost of an unplugged gamepad also under ocp_disable_gamepad (undocumented)",
        set: |o, v| put(&mut o.input_lost_when_disabled, flag(v)),
    },
    Setting {
        name: "unset_active", form: "inactive|input_lost", default: "inactive",
        about: "the fault of several vehicles with none chosen; doc-2.48: input_lost",
        set: |o, v| put(&mut o.unset_active, one_of(v, [("inactive", Unset::Inactive), ("input_lost", Unset::InputLost)])),
    },
    Setting {
        name: "feedback_timeout_ms", form: "1..100000", default: "1000",
        about: "NoFeedbackMessage above this (documented)",
        set: |o, v| put(&mut o.feedback_timeout, ms(v, 1.0, 1e5)),
    },
    Setting {
        name: "own_user_data", form: "true|false", default: "true",
        about: "\"user\" and \"counter\" are sent until a client has sent data",
        set: |o, v| put(&mut o.own_user_data, flag(v)),
    },
    Setting {
        name: "own_ack_echo", form: "true|false", default: "true",
        about: "the Player returns acks itself until a client has sent data (undocumented)",
        set: |o, v| put(&mut o.own_ack_echo, flag(v)),
    },
    Setting {
        name: "data_after_close", form: "repeat|absent", default: "repeat",
        about: "client data and acks after the TCP client is gone (undocumented)",
        set: |o, v| put(&mut o.data_after_close, client_data(v)),
    },
    Setting {
        name: "data_in_conflict", form: "repeat|absent", default: "repeat",
        about: "client data in a source conflict (undocumented); acks stop",
        set: |o, v| put(&mut o.data_in_conflict, client_data(v)),
    },
    Setting {
        name: "monitor_sends_null", form: "true|false", default: "false",
        about: "a session that only watches sends control with controller null, else none (undocumented)",
        set: |o, v| put(&mut o.monitor_sends_null, flag(v)),
    },
    Setting {
        name: "dead_zone", form: "0..1", default: "0",
        about: "sticks nearer to rest than this are at rest (undocumented)",
        set: |o, v| put(&mut o.dead_zone, number(v, 0.0, 1.0)),
    },
    Setting {
        name: "is_monitor", form: "true|false", default: "true",
        about: "the feedback has is_monitor; doc-2.48: false",
        set: |o, v| put(&mut o.is_monitor, flag(v)),
    },
    Setting {
        name: "no_missing_cameras", form: "list|null", default: "list",
        about: "missing_cameras of the feedback where none is missing; doc-2.48: null",
        set: |o, v| put(&mut o.no_missing_cameras_is_null, one_of(v, [("list", false), ("null", true)])),
    },
    Setting {
        name: "uplink_delay_ms", form: "0..100000", default: "20",
        about: "the radio, operator to vehicle",
        set: |o, v| put(&mut o.uplink.delay, ms(v, 0.0, 1e5)),
    },
    Setting {
        name: "uplink_jitter_ms", form: "0..100000", default: "0",
        about: "added to it at random, up to this",
        set: |o, v| put(&mut o.uplink.jitter, ms(v, 0.0, 1e5)),
    },
    Setting {
        name: "uplink_loss", form: "0..1", default: "0",
        about: "fraction lost",
        set: |o, v| put(&mut o.uplink.loss, number(v, 0.0, 1.0)),
    },
    Setting {
        name: "uplink_duplicate", form: "0..1", default: "0",
        about: "fraction that arrives twice",
        set: |o, v| put(&mut o.uplink.duplicate, number(v, 0.0, 1.0)),
    },
    Setting {
        name: "uplink_reorder", form: "0..1", default: "0",
        about: "fraction that takes twice the delay",
        set: |o, v| put(&mut o.uplink.reorder, number(v, 0.0, 1.0)),
    },
    Setting {
        name: "downlink_delay_ms", form: "0..100000", default: "20",
        about: "the radio, vehicle to operator",
        set: |o, v| put(&mut o.downlink.delay, ms(v, 0.0, 1e5)),
    },
    Setting {
        name: "downlink_jitter_ms", form: "0..100000", default: "0",
        about: "added to it at random, up to this",
        set: |o, v| put(&mut o.downlink.jitter, ms(v, 0.0, 1e5)),
    },
    Setting {
        name: "downlink_loss", form: "0..1", default: "0",
        about: "fraction lost",
        set: |o, v| put(&mut o.downlink.loss, number(v, 0.0, 1.0)),
    },
    Setting {
        name: "downlink_duplicate", form: "0..1", default: "0",
        about: "fraction that arrives twice",
        set: |o, v| put(&mut o.downlink.duplicate, number(v, 0.0, 1.0)),
    },
    Setting {
        name: "downlink_reorder", form: "0..1", default: "0",
        about: "fraction that takes twice the delay",
        set: |o, v| put(&mut o.downlink.reorder, number(v, 0.0, 1.0)),
    },
    Setting {
        name: "video_delay_ms", form: "0..100000", default: "40",
        about: "coding and decoding of the picture, on top of the downlink",
        set: |o, v| put(&mut o.video_delay, ms(v, 0.0, 1e5)),
    },
    Setting {
        name: "video_period_ms", form: "1..10000", default: "33",
        about: "between two pictures, each with a feedback message",
        set: |o, v| put(&mut o.video_period, ms(v, 1.0, 1e4)),
    },
    Setting {
        name: "seed", form: "0..", default: "1",
        about: "of the key and of the radio's faults",
        set: |o, v| put(&mut o.seed, v.parse().ok()),
    },
];

impl Options {
    /// Sets one option by its name in [`SETTINGS`].
    ///
    /// # Errors
    /// [`SettingError`] with the values that would fit, or the names there are.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let Some(setting) = SETTINGS.iter().find(|known| known.name == name) else {
            let names: Vec<_> = SETTINGS.iter().map(|setting| setting.name).collect();
            return Err(SettingError(format!("unknown setting {name:?}; there are: {}", names.join(" "))));
        };
        (setting.set)(self, value)
            .ok_or_else(|| SettingError(format!("{name} takes {}, not {value:?}", setting.form)))
    }
}

fn put<T>(slot: &mut T, value: Option<T>) -> Option<()> {
    *slot = value?;
    Some(())
}

fn number(text: &str, low: f64, high: f64) -> Option<f64> {
    text.parse().ok().filter(|value| (low..=high).contains(value))
}

fn ms(text: &str, low: f64, high: f64) -> Option<Duration> {
    number(text, low, high).map(|ms| Duration::from_secs_f64(ms / 1e3))
}

fn off_or_ms(text: &str, high: f64) -> Option<Option<Duration>> {
    if text == "off" { Some(None) } else { ms(text, 1.0, high).map(Some) }
}

fn flag(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn names(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn one_of<T, const N: usize>(text: &str, values: [(&str, T); N]) -> Option<T> {
    values.into_iter().find(|(name, _)| *name == text).map(|(_, value)| value)
}

fn second(text: &str) -> Option<SecondClient> {
    use SecondClient::{Ignore, Reject, Replace};
    one_of(text, [("reject", Reject), ("replace", Replace), ("ignore", Ignore)])
}

fn reaction(text: &str) -> Option<Reaction> {
    one_of(text, [("drop", Reaction::Drop), ("close", Reaction::Close)])
}

fn client_data(text: &str) -> Option<ClientData> {
    one_of(text, [("repeat", ClientData::Repeat), ("absent", ClientData::Absent)])
}

fn form(text: &str) -> Option<DefaultValues> {
    DefaultValues::from_name(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_takes_a_value_and_refuses_nonsense() {
        for setting in SETTINGS {
            let mut options = Options::default();
            let first = setting.form.split('|').next().unwrap().split("..").next().unwrap();
            let good = if first == "text" { "x" } else { first };
            options.set(setting.name, good).unwrap_or_else(|error| panic!("{error}"));
            if setting.form != "text" {
                options.set(setting.name, "nonsense").unwrap_err();
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
    fn the_defaults_that_are_shown_are_the_defaults() {
        for setting in SETTINGS {
            let mut options = Options::default();
            options.set(setting.name, setting.default).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(options, Options::default(), "{}", setting.name);
        }
    }

    #[test]
    fn every_other_value_of_a_choice_changes_something() {
        for setting in SETTINGS {
            for value in setting.form.split('|').filter(|value| !value.contains("..") && *value != "text") {
                if value != setting.default {
                    let mut options = Options::default();
                    options.set(setting.name, value).unwrap_or_else(|error| panic!("{error}"));
                    assert_ne!(options, Options::default(), "{}={value}", setting.name);
                }
            }
        }
    }
}
