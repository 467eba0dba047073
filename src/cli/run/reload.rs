//! SIGHUP as a service: the configuration is read again while the gateway runs.
//!
//! The invariant: **after a reload the gateway works with the whole old file or the whole new one, and what drives is the same
//! in both.** Threads, channels and the core's plan are made at the start and never again, so a file is taken only if it differs
//! in nothing but what can be swapped (see [`with_swapped`]): then all of it is taken at once, its digest too. Limits, times of
//! safety, the mapping, buses, addresses and every key that somebody adds and forgets here need a restart, and the file that
//! has one of them different is refused as a whole, with the names of the keys. In ARMED and STOPPING nothing is even read.
//!
//! Owns that decision, its words, and the look at the file's stamps that tells a person of a change (SAFETY row 104). Relies on
//! `config` to accept no file partly. Never touches what the watchdog or a reader owns.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Main;
use crate::cli::check::effective;
use crate::cli::seal;
use crate::config::{self, Config, LogLevel};
use crate::io::journal::Level;
use crate::io::{clock, notify};
use crate::nodes::management::history::Happening;
use crate::safety::input::StateName;
use crate::threads::Gateway;
use crate::time::{Duration, Instant};

/// The files are looked at this often: it is for a person who has changed one and waits for an effect.
const LOOK: Duration = Duration::from_secs(2);

/// Keys that one line names; who changed more has a new file.
const KEYS: usize = 12;

/// What a new file means for a running gateway.
#[derive(Debug)]
pub(super) enum Verdict {
    /// It is the very file that is at work.
    Same,
    /// It can be taken as a whole: keys that differ, with what they were and are. None where only comments differ.
    Take(Vec<String>),
    /// It cannot: keys that need a restart.
    Restart(Vec<String>),
}

/// Compares two configurations that passed every check.
pub(super) fn compare(old: &Config, new: &Config) -> Verdict {
    if old.digest == new.digest {
        return Verdict::Same;
    }
    let swapped = with_swapped(old, new);
    // Every field of every part is in this text, also one that is added later: what is not known to be swappable is not.
    if format!("{swapped:?}") == format!("{new:?}") {
        return Verdict::Take(differing(&effective(old), &effective(new)));
    }
    let mut keys = differing(&effective(&swapped), &effective(new));
    if keys.is_empty() {
        keys.push("what the DBC file says of these frames".to_owned());
    }
    Verdict::Restart(keys)
}

/// The old configuration with everything from the new one that may change while the gateway runs: what the log holds, whether
/// another machine may ask for a stop (towards safe), and the words about the file itself.
fn with_swapped(old: &Config, new: &Config) -> Config {
    let mut config = old.clone();
    config.log_level = new.log_level;
    if let (Some(old), Some(new)) = (&mut config.rcsp, &new.rcsp) {
        old.remote_stop = new.remote_stop;
    }
    config.digest.clone_from(&new.digest);
    config.descriptions.clone_from(&new.descriptions);
    config.warnings.clone_from(&new.warnings);
    config
}

/// The keys in which two records differ, each with both values.
fn differing(old: &serde_json::Map<String, Value>, new: &serde_json::Map<String, Value>) -> Vec<String> {
    let mut found = Vec::new();
    for (key, before) in old {
        // Neither is a key of the file.
        if !["digest", "warnings"].contains(&key.as_str()) {
            differ(key, before, new.get(key), &mut found);
        }
    }
    found.extend(new.keys().filter(|key| !old.contains_key(*key)).map(|key| format!("{key} is new")));
    found
}

fn differ(path: &str, old: &Value, new: Option<&Value>, found: &mut Vec<String>) {
    match (old, new) {
        (_, None) => found.push(format!("{path} is gone")),
        (old, Some(new)) if old == new => {}
        (Value::Object(old), Some(Value::Object(new))) => {
            for (key, before) in old {
                differ(&format!("{path}.{key}"), before, new.get(key), found);
            }
            let added = new.keys().filter(|key| !old.contains_key(*key));
            found.extend(added.map(|key| format!("{path}.{key} is new")));
        }
        (old, Some(new)) => found.push(format!("{path}: {old} -> {new}")),
    }
}

/// As many as one line holds.
fn listed(keys: &[String]) -> String {
    let shown = keys.iter().take(KEYS).map(String::as_str).collect::<Vec<_>>().join("; ");
    match keys.len().saturating_sub(KEYS) {
        0 => shown,
        more => format!("{shown}; and {more} more"),
    }
}

/// The level as the journal knows it.
pub(super) const fn level(level: LogLevel) -> Level {
    match level {
        LogLevel::Warning => Level::Warning,
        LogLevel::Notice => Level::Notice,
        LogLevel::Info => Level::Info,
    }
}

/// Whether the process had a terminal at its start: then SIGHUP says that it has gone.
pub(super) fn has_terminal() -> bool {
    // Opens where there is a controlling terminal, and only there.
    fs::File::open("/dev/tty").is_ok()
}

/// What a file looks like from outside. Two writes within the clock's step are seen by the size or not at all; this is for a
/// hint, and what is taken is always read anew.
type Stamp = Option<(i64, i64, u64, u64)>;

/// The configuration's files, as they were when they were read.
#[derive(Debug)]
pub(super) struct Watched {
    path: PathBuf,
    stamps: Vec<(PathBuf, Stamp)>,
    looked_at: Instant,
}

impl Watched {
    pub(super) fn new(path: &Path, config: &Config) -> Self {
        let files = config.descriptions.iter().map(|description| description.path.clone());
        let stamps = [path.to_path_buf()].into_iter().chain(files).map(|file| {
            let stamp = stamp(&file);
            (file, stamp)
        });
        Self { path: path.to_path_buf(), stamps: stamps.collect(), looked_at: clock::now() }
    }

    /// A file that has changed since it was looked at last.
    fn changed(&mut self, now: Instant) -> Option<&Path> {
        if now.since(self.looked_at) < LOOK {
            return None;
        }
        self.looked_at = now;
        let (file, seen) = self.stamps.iter_mut().find(|(file, seen)| stamp(file) != *seen)?;
        *seen = stamp(file);
        Some(file)
    }
}

fn stamp(file: &Path) -> Stamp {
    let meta = fs::metadata(file).ok()?;
    Some((meta.mtime(), meta.mtime_nsec(), meta.size(), meta.ino()))
}

impl Main {
    /// SIGHUP, as a service.
    pub(super) fn reload(&mut self, gateway: &Gateway) {
        notify::reloading();
        self.try_reload(gateway);
        notify::ready();
    }

    fn try_reload(&mut self, gateway: &Gateway) {
        let digest = self.config.digest.clone();
        let state = gateway.shared.state();
        if matches!(state, StateName::Armed | StateName::Stopping) {
            let state = state.name();
            self.log.warning(format_args!(
                "SIGHUP: not in {state}: nothing is read; configuration {digest} stays. Again when nobody drives"
            ));
            return;
        }
        let path = self.watched.path.clone();
        let new = match config::load(&path) {
            Ok(new) => new,
            Err(problems) => {
                for problem in &problems {
                    self.log.error(format_args!("{problem}"));
                }
                let count = problems.len();
                let s = if count == 1 { "" } else { "s" };
                self.log.warning(format_args!(
                    "SIGHUP: {count} problem{s} in {}: nothing changes; configuration {digest} stays",
                    path.display()
                ));
                return;
            }
        };
        if let Err(broken) = seal::check(&path, &new.digest, &self.sys) {
            self.log.warning(format_args!("SIGHUP: {broken}: nothing changes; configuration {digest} stays"));
            return;
        }
        match compare(&self.config, &new) {
            Verdict::Same => {
                self.log.notice(format_args!("SIGHUP: configuration {digest} is the one at work: nothing changes"));
            }
            Verdict::Restart(keys) => self.log.warning(format_args!(
                "SIGHUP: nothing changes, configuration {digest} stays: these need a restart while nobody drives: {}",
                listed(&keys)
            )),
            Verdict::Take(keys) => self.adopt(new, &keys),
        }
        self.watched = Watched::new(&path, &self.config);
    }

    /// Takes a configuration that differs in nothing but what can be swapped.
    fn adopt(&mut self, new: Config, keys: &[String]) {
        let what = if keys.is_empty() { "comments and form only".to_owned() } else { listed(keys) };
        self.log.notice(format_args!(
            "SIGHUP: configuration {} in place of {}: {what}",
            new.digest, self.config.digest
        ));
        for warning in &new.warnings {
            self.log.warning(format_args!("{warning}"));
        }
        self.log.set_level(level(new.log_level));
        self.config = new;
        self.untold = true;
    }

    /// Tells the management plane of a new configuration, until it has heard it: its channel may be full.
    pub(super) fn tell_configuration(&mut self, gateway: &Gateway) {
        if self.untold {
            let happening = Happening::Configured {
                digest: self.config.digest.clone(),
                config: effective(&self.config),
                remote_stop: self.config.rcsp.as_ref().is_some_and(|rcsp| rcsp.remote_stop),
            };
            self.untold = !gateway.tell(Some(happening));
        }
    }

    /// Says once that a file is another one by now.
    pub(super) fn look_at_files(&mut self, gateway: &Gateway) {
        let digest = &self.config.digest;
        if let Some(file) = self.watched.changed(clock::now()) {
            let text = format!(
                "{} has changed; configuration {digest} stays at work until it is reloaded or the gateway restarted",
                file.display()
            );
            self.log.warning(format_args!("{text}"));
            gateway.tell(Some(Happening::Warning(text)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../deploy/ocpcan.example.toml");
    const DBC: &str = include_str!("../../../deploy/example.dbc");

    fn parsed(text: &str, dbc: &str) -> Config {
        config::parse(text, &[("example.dbc", dbc)]).unwrap_or_else(|problems| panic!("{problems:?}"))
    }

    /// What becomes of the example after this change.
    #[track_caller]
    fn after(from: &str, to: &str) -> Verdict {
        assert!(EXAMPLE.contains(from), "{from}");
        compare(&parsed(EXAMPLE, DBC), &parsed(&EXAMPLE.replacen(from, to, 1), DBC))
    }

    #[test]
    fn the_same_file_and_one_with_other_comments_change_nothing_that_works() {
        assert!(matches!(compare(&parsed(EXAMPLE, DBC), &parsed(EXAMPLE, DBC)), Verdict::Same));
        assert!(matches!(after("# ocpcan: what", "# What"), Verdict::Take(keys) if keys.is_empty()));
    }

    #[test]
    fn what_can_be_swapped_is_taken_and_named() {
        match after("# level = \"info\"", "level = \"warning\"") {
            Verdict::Take(keys) => assert_eq!(keys, ["log.level: \"info\" -> \"warning\""]),
            other => panic!("{other:?}"),
        }
        let with = |stop| {
            EXAMPLE.replace(
                "[rcsp]\n",
                &format!(
                    "[rcsp]\nlisten = \"0.0.0.0:45451\"\nallow = [\"192.168.1.7\"]\nremote_stop = {stop}\n"
                ),
            )
        };
        match compare(&parsed(&with("false"), DBC), &parsed(&with("true"), DBC)) {
            Verdict::Take(keys) => assert_eq!(keys, ["rcsp.remote_stop: false -> true"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_else_needs_a_restart_and_says_which_key() {
        let cases = [
            ("output = [0, 100]", "output = [0, 50]", "send.DRIVE_CMD.signals.THROTTLE_CMD.output"),
            ("expo = 0.3", "expo = 0.4", "send.DRIVE_CMD.signals.STEER_ANGLE_CMD.source"),
            ("safe = 30", "safe = 40", "send.DRIVE_CMD.signals.BRAKE_CMD.safe: 30.0 -> 40.0"),
            ("# ocp_silence_ms = 100", "ocp_silence_ms = 90", "safety.ocp_silence_ms"),
            ("# arms_per_minute = 10", "arms_per_minute = 5", "safety.arms_per_minute: 10 -> 5"),
            ("# real_time = \"warn\"", "real_time = \"required\" #", "safety.real_time"),
            ("switch = \"buttons.start\"", "switch = \"buttons.a\"", "arm.switch"),
            ("interface = \"can0\"", "interface = \"can1\"", "bus.vehicle.interface"),
            ("127.0.0.1:4000", "127.0.0.1:4009", "ocp.address"),
            ("[rcsp]\n", "[rcsp]\nenabled = false\n", "rcsp is gone"),
            ("speed_kph = \"VEHICLE_STATE.SPEED_KPH\"\n", "", "report.speed_kph is gone"),
            ("vehicle = \"example\"", "vehicle = \"another\"", "vehicle: \"example\" -> \"another\""),
        ];
        for (from, to, key) in cases {
            match after(from, to) {
                Verdict::Restart(keys) => {
                    assert!(keys.iter().any(|said| said.starts_with(key)), "{to}: {keys:?}")
                }
                other => panic!("{to}: {other:?}"),
            }
        }
    }

    #[test]
    fn never_half_of_a_file_what_could_be_swapped_stays_where_the_rest_needs_a_restart() {
        let both =
            EXAMPLE.replace("# level = \"info\"", "level = \"warning\"").replace("safe = 30", "safe = 40");
        match compare(&parsed(EXAMPLE, DBC), &parsed(&both, DBC)) {
            Verdict::Restart(keys) => assert_eq!(keys.len(), 1, "only what needs it: {keys:?}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn another_dbc_file_is_another_vehicle_even_where_no_key_differs() {
        let from = "SG_ THROTTLE_CMD : 16|16@1+ ";
        assert!(DBC.contains(from), "{DBC}");
        let other = DBC.replace(from, "SG_ THROTTLE_CMD : 16|12@1+ ");
        match compare(&parsed(EXAMPLE, DBC), &parsed(EXAMPLE, &other)) {
            Verdict::Restart(keys) => assert!(keys[0].contains("DBC"), "{keys:?}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let keys: Vec<String> = (0..KEYS + 3).map(|n| n.to_string()).collect();
        assert!(listed(&keys).ends_with("11; and 3 more"));
        assert_eq!(listed(&keys[..2]), "0; 1");
    }

    #[test]
    fn row_104_a_changed_file_is_seen_once() {
        let path = std::env::temp_dir().join(format!("ocpcan-watched-{}.toml", std::process::id()));
        fs::write(&path, "a").unwrap();
        let config = Config { descriptions: Vec::new(), ..parsed(EXAMPLE, DBC) };
        let mut watched = Watched::new(&path, &config);
        let at = |n: u32| watched_at(n);
        assert_eq!(watched.changed(clock::now() + at(1)), None);
        fs::write(&path, "ab").unwrap();
        assert_eq!(watched.changed(clock::now() + at(1)), None, "looked at a moment ago");
        assert_eq!(watched.changed(clock::now() + at(2)), Some(path.as_path()));
        assert_eq!(watched.changed(clock::now() + at(4)), None);
        fs::remove_file(&path).unwrap();
        assert_eq!(watched.changed(clock::now() + at(6)), Some(path.as_path()));
    }

    /// So many times the pause between two looks, and a little.
    fn watched_at(n: u32) -> Duration {
        LOOK * n + LOOK / 2
    }
}
