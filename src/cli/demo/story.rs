//! The script of the demo: which fault when, what must follow, and what did.
//!
//! Owns the steps and the table. Pure but for what it is told: time and status are arguments. Never touches a socket:
//! it says what to do ([`Story::poll_beat`]), the command does it.

use std::collections::VecDeque;
use std::fmt::Write as _;

use super::observer::Observer;
use crate::config::Config;
use crate::io::canbus::Fault as BusFault;
use crate::safety::faults::Fault;
use crate::safety::input::{StateName, Status};
use crate::safety::settings::Settings;
use crate::time::{Duration, Instant, millis_f64};

/// Something to do now.
#[derive(Debug, Clone)]
pub(super) enum Beat {
    /// A command of the OCP simulator.
    Operator(String),
    /// A fault of the built-in bus.
    Cable(BusFault),
    /// A line for the audience.
    Say(String),
}

/// How a fault is shown to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    /// The echo of a safe frame.
    SafeFrame,
    /// Nothing can leave: the decision, and a safe first frame when the bus is back.
    Decision,
}

/// One kind of fault.
struct Scene {
    title: &'static str,
    /// Any of these may be told as the cause.
    expected: &'static [Fault],
    proof: Proof,
    needs_cable: bool,
    inject: fn() -> Vec<Beat>,
    restore: fn() -> Vec<Beat>,
}

fn operator(text: &str) -> Vec<Beat> {
    vec![Beat::Operator(text.to_owned())]
}

/// In the order in which they are played; a longer demo plays them again.
const SCENES: &[Scene] = &[
    Scene {
        title: "operator link lost",
        expected: &[Fault::OperatorFrozen],
        proof: Proof::SafeFrame,
        needs_cable: false,
        inject: || operator("link cut"),
        restore: || operator("link restore"),
    },
    Scene {
        title: "OCP fault flag",
        expected: &[Fault::OcpFault],
        proof: Proof::SafeFrame,
        needs_cable: false,
        inject: || operator("fault CameraLost on"),
        restore: || operator("fault CameraLost off"),
    },
    Scene {
        title: "CAN cable pulled",
        expected: &[Fault::EchoLost],
        proof: Proof::Decision,
        needs_cable: true,
        inject: || vec![Beat::Cable(BusFault::Swallow(true))],
        restore: || vec![Beat::Cable(BusFault::Swallow(false))],
    },
    Scene {
        title: "OCP connection reset",
        expected: &[Fault::OcpDown],
        proof: Proof::SafeFrame,
        needs_cable: false,
        inject: || operator("rst"),
        restore: Vec::new,
    },
    Scene {
        title: "OCP silent",
        expected: &[Fault::OcpSilence],
        proof: Proof::SafeFrame,
        needs_cable: false,
        inject: || operator("silence on"),
        restore: || operator("silence off"),
    },
    Scene {
        title: "controller gone",
        expected: &[Fault::ControllerMissing],
        proof: Proof::SafeFrame,
        needs_cable: false,
        inject: || operator("controller none"),
        restore: || operator("controller on"),
    },
    Scene {
        title: "ack_time frozen",
        expected: &[Fault::AckFrozen],
        proof: Proof::SafeFrame,
        needs_cable: false,
        inject: || operator("ack freeze"),
        restore: || operator("ack run"),
    },
];

/// One line of the table.
struct Row {
    title: &'static str,
    told: Option<Fault>,
    /// From the evidence to the proof, as the gateway measured it.
    reaction: Option<Duration>,
    /// From the injection to the first safe frame that the observer saw.
    seen: Option<Duration>,
    bound: Duration,
    stayed_safe: bool,
    expected: bool,
    /// Whether the story made this fault; what the machine did by itself is shown and not judged.
    injected: bool,
}

impl Row {
    fn is_good(&self) -> bool {
        self.expected && self.stayed_safe && self.reaction.is_some_and(|time| time <= self.bound)
    }
}

/// Where the story is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// Bringing the gateway to ARMED.
    Arming { since: Instant, pressed: bool },
    /// Driving the lap.
    Driving { since: Instant },
    /// A fault stands, the stick is still held.
    Faulted { since: Instant },
    /// The fault is gone, the vehicle comes to rest.
    Recovering { since: Instant },
    /// The end.
    Over,
}

/// Faults that a busy computer makes by itself: the gateway or a simulator was not run for too long.
const HICCUPS: [Fault; 8] = [
    Fault::OwnGap,
    Fault::OcpStalled,
    Fault::CanStalled,
    Fault::EchoLost,
    Fault::OcpSilence,
    Fault::Stale,
    Fault::FeedbackLost,
    Fault::OperatorFrozen,
];

/// A drive of this length shows the lap before the next fault.
const DRIVE: Duration = Duration::from_millis(3_500);

/// The stick stays held for this long after the trip: nothing may move.
const HELD: Duration = Duration::from_millis(1_000);

/// A fault that is not answered by then never is.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// Arming takes at most this long, or something is wrong.
const ARM_LIMIT: Duration = Duration::from_secs(20);

/// From an injection to driving again: the fault held 1 s, at rest 1 s, clear 1 s, neutral 0.5 s, hold 1 s, and some.
const RECOVERY_TIME: Duration = Duration::from_secs(7);

/// A machine that is too slow to arm again ends the show this long after its time.
const OVERTIME: Duration = Duration::from_secs(15);

/// The story.
pub(super) struct Story {
    settings: Settings,
    end: Instant,
    has_cable: bool,
    step: Step,
    scene: usize,
    rows: Vec<Row>,
    beats: VecDeque<Beat>,
    last_state: Option<StateName>,
    last_axes_at: Instant,
    gave_up: Option<&'static str>,
}

impl Story {
    pub(super) fn new(config: &Config, now: Instant, end: Instant, has_cable: bool) -> Self {
        Self {
            settings: config.settings,
            end,
            has_cable,
            step: Step::Arming { since: now, pressed: false },
            scene: 0,
            rows: Vec::new(),
            beats: VecDeque::from([Beat::Say("everything is started; the operator arms".to_owned())]),
            last_state: None,
            last_axes_at: now,
            gave_up: None,
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.step == Step::Over
    }

    pub(super) fn poll_beat(&mut self) -> Option<Beat> {
        self.beats.pop_front()
    }

    /// What happens now, in a few words.
    pub(super) fn headline(&self) -> &'static str {
        match self.step {
            Step::Arming { .. } => "the operator arms: controls at rest, then the start button held",
            Step::Driving { .. } => "the operator drives",
            Step::Faulted { .. } => "a fault stands, and the operator still holds throttle and steering",
            Step::Recovering { .. } => "the fault is gone; controls are released",
            Step::Over => "the end",
        }
    }

    fn current(&self) -> &'static Scene {
        // The index is kept below the length by `next_scene`.
        SCENES.get(self.scene).unwrap_or(&SCENES[0])
    }

    fn say(&mut self, text: String) {
        self.beats.push_back(Beat::Say(text));
    }

    fn tell(&mut self, text: &str) {
        self.beats.push_back(Beat::Operator(text.to_owned()));
    }

    /// Takes the gateway's own word.
    pub(super) fn handle_status(&mut self, now: Instant, status: &Status, observer: &Observer) {
        if self.last_state.replace(status.state) != Some(status.state) {
            self.say(format!("gateway: {}", status.state.name()));
        }
        match self.step {
            Step::Arming { since, pressed } => match status.state {
                StateName::Ready if !pressed && status.checklist.released => {
                    self.tell("press start");
                    self.step = Step::Arming { since, pressed: true };
                }
                StateName::Armed => {
                    self.tell("release start");
                    self.step = Step::Driving { since: now };
                }
                StateName::Safe | StateName::Standby if pressed => {
                    self.tell("release start");
                    self.step = Step::Arming { since, pressed: false };
                }
                _ => {}
            },
            Step::Driving { .. } if status.state != StateName::Armed => {
                // Not injected: this machine itself was too slow, or worse. Shown as what it is.
                let told = status.cause.map(|trip| trip.fault);
                self.rows.push(Row {
                    title: "(not injected)",
                    told,
                    reaction: None,
                    seen: None,
                    bound: told.map_or(Duration::ZERO, |fault| fault.bound(&self.settings)),
                    stayed_safe: true,
                    expected: false,
                    injected: false,
                });
                self.recover(now);
            }
            Step::Faulted { since } => self.judge(since, status, observer),
            _ => {}
        }
    }

    /// Compares what the gateway did with what it must do.
    fn judge(&mut self, injected_at: Instant, status: &Status, observer: &Observer) {
        let proof = self.current().proof;
        let expected = self.current().expected;
        let Some(row) = self.rows.last_mut() else { return };
        if status.state == StateName::Armed && row.told.is_some() {
            row.stayed_safe = false;
        }
        if let Some(trip) = status.cause.filter(|trip| trip.at >= injected_at)
            && row.told.is_none()
        {
            row.told = Some(trip.fault);
            row.bound = trip.fault.bound(&self.settings);
            row.expected = expected.contains(&trip.fault);
            // This computer was too slow just then: the trip is right, but it is not the one that was injected.
            row.injected = row.expected || !HICCUPS.contains(&trip.fault);
            if proof == Proof::Decision {
                row.reaction = Some(trip.at.since(trip.evidence_at));
            }
        }
        if let Some(reaction) = status.reaction.filter(|reaction| reaction.trip.at >= injected_at)
            && proof == Proof::SafeFrame
        {
            row.reaction = Some(reaction.time);
        }
        if row.seen.is_none()
            && proof == Proof::SafeFrame
            && let Some(at) = observer.safe_at.filter(|at| *at >= injected_at)
        {
            row.seen = Some(at.since(injected_at));
        }
    }

    /// Moves on with time.
    pub(super) fn handle_timeout(&mut self, now: Instant, observer: &Observer) {
        match self.step {
            Step::Arming { since, .. } => {
                if now.since(since) >= ARM_LIMIT || now >= self.end + OVERTIME {
                    self.gave_up = Some("the gateway did not arm again in time");
                    self.step = Step::Over;
                }
            }
            Step::Driving { since } => {
                self.drive(now, since);
                // The show ends driving: every injected fault is recovered from, and armed again after.
                let has_time = self.rows.is_empty() || now + RECOVERY_TIME <= self.end;
                if now >= self.end {
                    self.step = Step::Over;
                } else if now.since(since) >= DRIVE && has_time {
                    self.inject(now);
                }
            }
            Step::Faulted { since } => {
                if observer.enabled_at.is_some_and(|at| at > since) {
                    self.check_enabled(since, observer);
                }
                let row = self.rows.last();
                let answered = row.is_some_and(|row| row.told.is_some() && row.reaction.is_some());
                let waited = now.since(since);
                if (answered && waited >= HELD) || waited >= ANSWER_LIMIT {
                    let restore = (self.current().restore)();
                    self.beats.extend(restore);
                    if self.rows.last().is_none_or(|row| row.injected) {
                        self.next_scene();
                    }
                    self.recover(now);
                }
            }
            Step::Recovering { since } => {
                let at_rest = self.last_state == Some(StateName::Safe);
                if at_rest || now.since(since) >= self.settings.stopping {
                    self.step = Step::Arming { since: now, pressed: false };
                }
            }
            Step::Over => {}
        }
    }

    /// After the trip's bound no frame with enable 1 may be seen.
    fn check_enabled(&mut self, injected_at: Instant, observer: &Observer) {
        let Some(row) = self.rows.last_mut() else { return };
        // A fault that is seen late at the door (a cut link) is counted from its evidence; 100 ms cover the delay of the
        // simulated radio link.
        let limit = injected_at + row.bound + Duration::from_millis(100);
        if row.told.is_some() && observer.enabled_at.is_some_and(|at| at > limit) {
            row.stayed_safe = false;
        }
    }

    fn recover(&mut self, now: Instant) {
        self.tell("neutral");
        self.step = Step::Recovering { since: now };
    }

    fn next_scene(&mut self) {
        loop {
            self.scene = (self.scene + 1) % SCENES.len();
            if self.has_cable || !self.current().needs_cable {
                return;
            }
        }
    }

    /// One lap: throttle comes and goes, the wheel turns left and right.
    fn drive(&mut self, now: Instant, since: Instant) {
        // The operator's own pace.
        if now.since(self.last_axes_at) < Duration::from_millis(20) {
            return;
        }
        self.last_axes_at = now;
        let t = now.since(since).as_secs_f64();
        let throttle = (t / 1.0).min(1.0) * 1.6 - 1.0;
        let steering = (t * 1.8).sin() * 0.7;
        self.tell(&format!("axis right_trigger {throttle:.3}"));
        self.tell(&format!("axis left_x {steering:.3}"));
    }

    fn inject(&mut self, now: Instant) {
        let scene = self.current();
        let bound = scene.expected.first().map_or(Duration::ZERO, |fault| fault.bound(&self.settings));
        self.rows.push(Row {
            title: scene.title,
            told: None,
            reaction: None,
            seen: None,
            bound,
            stayed_safe: true,
            expected: false,
            injected: true,
        });
        self.say(format!("fault injected: {}", scene.title));
        self.beats.extend((scene.inject)());
        self.step = Step::Faulted { since: now };
    }

    /// Whether every injected fault was answered as it must be, and there was at least one.
    pub(super) fn all_answered(&self) -> bool {
        let mut injected = self.rows.iter().filter(|row| row.injected).peekable();
        self.gave_up.is_none() && injected.peek().is_some() && injected.all(Row::is_good)
    }

    /// The closing table.
    pub(super) fn table(&self) -> String {
        let mut out = String::from(
            "\nfault injected         told as              answered   bound     seen on the bus  stayed safe  verdict\n",
        );
        let ms = |time: Option<Duration>| {
            time.map_or_else(|| "-".to_owned(), |time| format!("{:.1} ms", millis_f64(time)))
        };
        for row in &self.rows {
            let told = row.told.map_or("-", Fault::name);
            let verdict = match (row.injected, row.is_good()) {
                (true, true) => "ok",
                (true, false) => "MISSED",
                (false, _) => "not judged: this computer was too slow",
            };
            let _ = writeln!(
                out,
                "{:<22} {:<20} {:<10} {:<9} {:<16} {:<12} {verdict}",
                row.title,
                told,
                ms(row.reaction),
                ms(Some(row.bound)),
                ms(row.seen),
                if row.stayed_safe { "yes" } else { "NO" },
            );
        }
        out.push_str(
            "answered: from the evidence at the gateway's door (last message, last progress, unproven frame) to the\n\
             echo of the safe frame; for a pulled cable to the decision, since nothing can leave.\n\
             seen on the bus: from the injection to the first safe frame, including the simulated radio link.\n",
        );
        if let Some(why) = self.gave_up {
            let _ = writeln!(out, "given up: {why}");
        }
        let injected = self.rows.iter().filter(|row| row.injected).count();
        let good = self.rows.iter().filter(|row| row.injected && row.is_good()).count();
        let _ = writeln!(out, "{good} of {injected} injected faults answered within their bounds");
        out
    }
}
