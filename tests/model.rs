//! The state machine explored breadth first, from INIT, over everything that can happen to it.
//!
//! A node is what can be told apart from outside: state, checklist, what is broken, and how long it has lasted. Each
//! event lasts a quarter of a second. The oracle of the invariants judges every step on every edge; then the graph
//! itself is asked: no way into ARMED but through READY, no way out of LOCKOUT but by a person, and no dead end.

mod common;

use std::collections::{HashMap, VecDeque};

use common::oracle::Oracle;
use common::rig::{Content, Rig, quick};
use ocpcan::safety::buswatch::BusEvent;
use ocpcan::safety::core::CoreOptions;
use ocpcan::safety::faults::Fault;
use ocpcan::safety::input::{CanEvent, StateName, Stop};
use ocpcan::sim::world::plan::PlanOptions;
use ocpcan::time::Instant;

const OPTIONS: PlanOptions = PlanOptions {
    dead_man: false,
    operator_counter: true,
    permit: false,
    confirm: false,
    speed: true,
    tool: false,
};

/// Steps of one event, 25 ms each.
const STEPS: u32 = 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Nothing,
    Press,
    Release,
    StickAway,
    StickBack,
    StreamOff,
    StreamOn,
    FaultMessage,
    Foreign,
    Panic,
    Acknowledge,
    EnterDiag,
    LeaveDiag,
    BusDown,
    BusUp,
    Move,
    Stand,
    StopRequested,
    StopWithdrawn,
}

const EVENTS: [Event; 19] = [
    Event::Nothing,
    Event::Press,
    Event::Release,
    Event::StickAway,
    Event::StickBack,
    Event::StreamOff,
    Event::StreamOn,
    Event::FaultMessage,
    Event::Foreign,
    Event::Panic,
    Event::Acknowledge,
    Event::EnterDiag,
    Event::LeaveDiag,
    Event::BusDown,
    Event::BusUp,
    Event::Move,
    Event::Stand,
    Event::StopRequested,
    Event::StopWithdrawn,
];

#[derive(Debug, Clone)]
struct Node {
    rig: Rig,
    oracle: Oracle,
    pressed: bool,
    away: bool,
    /// Events since the switch moved, since the state changed, since a fault was present.
    switch_age: u8,
    state_age: u8,
    clear_age: u8,
    /// Whether a fault came back while clear time was counted.
    flapped: bool,
}

/// What two nodes must share to be the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    state: StateName,
    checklist: u16,
    world: u8,
    ages: (u8, u8, u8),
    flapped: bool,
}

impl Node {
    fn start() -> Self {
        let options =
            CoreOptions { settings: quick(), arms_per_minute: 15, counters: Vec::new(), locked_out: None };
        let mut rig = Rig::with(OPTIONS, Instant::from_millis(1_000_000), options);
        rig.bus_up(0);
        rig.connect();
        Self {
            rig,
            oracle: Oracle::new(OPTIONS, quick()),
            pressed: false,
            away: false,
            switch_age: 0,
            state_age: 0,
            clear_age: 0,
            flapped: false,
        }
    }

    fn key(&self) -> Key {
        let status = self.rig.core.status();
        let checklist = status.checklist.points().fold(0, |bits, (_, met, _)| bits << 1 | u16::from(met));
        let world = [
            self.pressed,
            self.away,
            self.rig.streaming,
            self.rig.buses[0].up,
            self.rig.speed > 1.0,
            self.rig.requests.stop != Stop::No,
        ];
        Key {
            state: status.state,
            checklist,
            world: world.iter().fold(0, |bits, set| bits << 1 | u8::from(*set)),
            ages: (self.switch_age.min(2), self.state_age.min(3), self.clear_age.min(8)),
            flapped: self.flapped,
        }
    }

    /// Applies an event; false where it changes nothing that `Nothing` does not.
    fn apply(&mut self, event: Event) -> bool {
        let rig = &mut self.rig;
        match event {
            Event::Nothing => {}
            Event::Press | Event::Release => {
                let pressed = event == Event::Press;
                if self.pressed == pressed {
                    return false;
                }
                self.pressed = pressed;
                self.switch_age = 0;
                rig.press_arm(pressed);
            }
            Event::StickAway | Event::StickBack => {
                let away = event == Event::StickAway;
                if self.away == away {
                    return false;
                }
                self.away = away;
                rig.drive(if away { 0.5 } else { 0.0 }, 0.0, 0.0);
            }
            Event::StreamOff | Event::StreamOn => {
                let on = event == Event::StreamOn;
                if rig.streaming == on {
                    return false;
                }
                rig.streaming = on;
            }
            Event::FaultMessage => rig.specials.push_back(Content::Fault),
            Event::Foreign => rig.events.push((0, CanEvent::Foreign)),
            Event::Panic => rig.trips.insert(Fault::Panic),
            Event::Acknowledge => rig.requests.acknowledge = true,
            Event::EnterDiag => rig.requests.enter_diag = true,
            Event::LeaveDiag => rig.requests.leave_diag = true,
            Event::BusDown | Event::BusUp => {
                let up = event == Event::BusUp;
                if rig.buses[0].up == up {
                    return false;
                }
                if up { rig.bus_up(0) } else { rig.bus_down(0, BusEvent::Down) }
            }
            Event::Move | Event::Stand => {
                let speed = if event == Event::Move { 5.0 } else { 0.0 };
                if rig.speed == speed {
                    return false;
                }
                rig.speed = speed;
            }
            Event::StopRequested | Event::StopWithdrawn => {
                let stop = if event == Event::StopRequested { Stop::Profile } else { Stop::No };
                if rig.requests.stop == stop {
                    return false;
                }
                rig.request_stop(stop);
            }
        }
        true
    }

    /// The node after an event.
    fn after(&self, event: Event) -> Option<Self> {
        let mut node = self.clone();
        if !node.apply(event) {
            return None;
        }
        let before = node.rig.state();
        node.switch_age = node.switch_age.saturating_add(1);
        node.state_age = node.state_age.saturating_add(1);
        node.clear_age = node.clear_age.saturating_add(1);
        for _ in 0..STEPS {
            let clear = node.rig.core.status().faults.is_empty();
            node.rig.step(25);
            if let Err(violation) = node.oracle.judge(&node.rig.facts) {
                panic!("{before:?} with {event:?}: {violation}\n{:?}", node.rig.core.status());
            }
            let output = &node.rig.facts.output;
            if output.trip.is_some() {
                node.flapped = false;
            } else if clear && !node.rig.facts.status.faults.is_empty() {
                node.flapped = true;
            }
            if !node.rig.facts.status.faults.is_empty() || output.trip.is_some() {
                node.clear_age = 0;
            }
            if output.left.is_some() {
                node.state_age = 0;
            }
        }
        Some(node)
    }
}

#[test]
fn no_way_to_armed_skips_a_step_and_no_way_ends_but_in_lockout() {
    let start = Node::start();
    let mut index: HashMap<Key, usize> = HashMap::from([(start.key(), 0)]);
    let mut states = vec![start.key().state];
    let mut edges: Vec<Vec<(Event, usize)>> = vec![Vec::new()];
    let mut queue = VecDeque::from([(0, start)]);
    while let Some((from, node)) = queue.pop_front() {
        for event in EVENTS {
            let Some(next) = node.after(event) else { continue };
            let key = next.key();
            let known = states.len();
            let to = *index.entry(key).or_insert(known);
            if to == known {
                states.push(key.state);
                edges.push(Vec::new());
                queue.push_back((to, next));
            }
            edges[from].push((event, to));
        }
        assert!(states.len() < 200_000, "the model does not close");
    }

    let mut all_edges = 0;
    let mut into: Vec<Vec<usize>> = vec![Vec::new(); states.len()];
    for (from, out) in edges.iter().enumerate() {
        for (event, to) in out {
            all_edges += 1;
            into[*to].push(from);
            let (a, b) = (states[from], states[*to]);
            if b == StateName::Armed && a != StateName::Armed {
                // The hold takes two events, so READY is always seen before.
                assert_eq!(a, StateName::Ready, "{a:?} to ARMED by {event:?}");
                assert!(matches!(
                    event,
                    Event::Nothing | Event::LeaveDiag | Event::EnterDiag | Event::Acknowledge
                ));
            }
            if a == StateName::Lockout && b != StateName::Lockout {
                assert_eq!(*event, Event::Acknowledge, "{a:?} to {b:?}");
            }
            if a == StateName::Lockout {
                assert!(!matches!(b, StateName::Armed | StateName::Ready));
            }
        }
    }
    for state in StateName::ALL.into_iter().filter(|state| *state != StateName::Init) {
        assert!(states.contains(&state), "{state:?} is never reached");
    }
    // Backwards from every armed node: whoever is not found is stuck for ever.
    let mut reaches = vec![false; states.len()];
    let mut work: Vec<usize> = (0..states.len()).filter(|node| states[*node] == StateName::Armed).collect();
    while let Some(node) = work.pop() {
        if !std::mem::replace(&mut reaches[node], true) {
            work.extend(&into[node]);
        }
    }
    let stuck: Vec<StateName> =
        (0..states.len()).filter(|node| !reaches[*node]).map(|node| states[node]).collect();
    assert!(stuck.is_empty(), "{} of {} nodes never arm again: {:?}", stuck.len(), states.len(), &stuck[..1]);
    let armed = states.iter().filter(|state| **state == StateName::Armed).count();
    println!("model: {} nodes, {all_edges} edges, {armed} armed nodes", states.len());
}
