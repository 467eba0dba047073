//! `ocpcan run`: the gateway.
//!
//! Owns the start and stop order, the log lines and, on a terminal, the arming checklist. Relies on `threads`. The
//! threads decide and send; this command reads their events and writes them down, and nothing it waits for can hold
//! them up.

#![allow(clippy::disallowed_methods, reason = "this is the main thread: it waits for the others to end")]

mod news;
mod real_time;
mod reload;
mod screen;
mod supply;

use std::path::PathBuf;

use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::Signals;

use reload::Watched;
use screen::Screen;
use supply::Supply;

use super::check::effective;
use super::safe_stop::last_counters;
use super::tcpcan::Told;
use super::{DEFAULT_CONFIG, VERSION, complain, exit, happening, seal};
use crate::config::{Config, Loaded, budget};
use crate::io::journal::Journal;
use crate::io::runtime::{BusLock, LastCounters, RuntimeDirectory};
use crate::io::{clock, confine, notify, power};
use crate::nodes::report::{next_step, transition};
use crate::safety::faults::Fault;
use crate::safety::input::{StateName, Status};
use crate::threads::{Gateway, GatewayOptions, ManagementOptions, StartError};
use crate::time::{Duration, Instant, millis_f64};
use crate::topology::Event;

/// Runs the gateway, or the operator's station, as the configuration's role says.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Do everything but send: decode, decide and show, without a frame on any bus.
    #[arg(long)]
    listen: bool,
    /// At the operator's desk: the vehicle that gets gamepad and panel, in place of the configuration's.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    vehicle: Option<String>,
    /// Where the kernel tells of the machine, for tests.
    #[arg(long, value_name = "FOLDER", default_value = power::SYS, hide = true)]
    sys: PathBuf,
}

/// How often signals are looked at: a tenth of the 200 ms that SIGTERM may take.
const TURN: Duration = Duration::from_millis(20);

/// After the watchdog has ended, the other threads have this long; a thread that hangs must not keep the process.
const JOIN_LIMIT: Duration = Duration::from_millis(300);

/// The same hint about arming is written again after this.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// Runs the command.
pub(super) fn run(args: &Args) -> u8 {
    let loaded = match super::check::load_either(&args.config) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let log = Journal::stderr();
    let digest = match &loaded {
        Loaded::Vehicle(config) => &config.digest,
        Loaded::Operator(config) => &config.digest,
    };
    if let Err(broken) = seal::check(&args.config, digest, &args.sys) {
        log.error(format_args!("{}: {broken}; nothing is sent", args.config.display()));
        return exit::CONFIG;
    }
    let start = |digest: &str, warnings: &[String]| {
        log.notice(format_args!("ocpcan {VERSION}, configuration {digest} ({})", args.config.display()));
        for warning in warnings {
            log.warning(format_args!("{warning}"));
        }
    };
    let config = match loaded {
        Loaded::Vehicle(_) if args.vehicle.is_some() => {
            complain(
                "--vehicle chooses a vehicle at the operator's desk; this configuration has role = \"vehicle\"",
            );
            return exit::USAGE;
        }
        Loaded::Vehicle(config) => config,
        Loaded::Operator(config) => {
            start(&config.digest, &config.warnings);
            return super::station::run(config, args.vehicle.clone(), args.listen, &log);
        }
    };
    start(&config.digest, &config.warnings);
    if config.plan.operator_counter.is_some() {
        let bound = millis_f64(budget::loss_with_counter(&config.settings));
        log.line(format_args!(
            "an operator who is lost ends in safe frames within {bound} ms after the last count"
        ));
    }
    log.set_level(reload::level(config.log_level));
    let mut main = match Main::prepare(config, log, args) {
        Ok(main) => main,
        Err(code) => return code,
    };
    main.run(args.listen)
}

/// Signals that end the gateway in order, with its stop profile and safe frames: asked for by a person or a supervisor
/// (SIGTERM, SIGINT, SIGQUIT), the terminal or the SSH session has gone (SIGHUP; where there was none it asks for a reload), the
/// limit of processor time is near (SIGXCPU).
const ENDING: [i32; 5] = [SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGXCPU];

/// Signals that would end the process without a safe frame, sent by mistake: told and ignored.
const IGNORED: [i32; 6] = [SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXFSZ];

/// The main thread.
struct Main {
    config: Config,
    log: Journal,
    runtime: Option<RuntimeDirectory>,
    /// One for each bus.
    locks: Vec<BusLock>,
    screen: Screen,
    last_state: Option<StateName>,
    /// What was told about arming in this state, and when: two conditions that alternate must not fill the log.
    told: Vec<(&'static str, Instant)>,
    said_ready: bool,
    /// What came of the wish for locked memory.
    memory: Result<(), i32>,
    /// The configuration's files, and whether the management plane has still to hear of a new one.
    watched: Watched,
    untold: bool,
    /// The supply of this computer.
    supply: Supply,
    sys: PathBuf,
    /// SIGHUP says that the terminal has gone.
    has_terminal: bool,
    /// The end was asked for, and whether by a person or a supervisor.
    stopping: bool,
    asked: bool,
    /// A thread does not come back from what it does (SIGXCPU): the kernel ends the process soon, so nobody is waited for.
    ran_away: bool,
    /// News of the tunnels' peers that are told.
    news: Told,
}

impl Main {
    /// Takes what the gateway needs before its first frame.
    fn prepare(config: Config, log: Journal, args: &Args) -> Result<Self, u8> {
        let mut locks = Vec::new();
        for bus in &config.plan.buses {
            let lock = bus.interface.parse().map_err(|error| format!("{}: {error}", bus.interface));
            match lock.and_then(|address| BusLock::take(&address).map_err(|error| error.to_string())) {
                Ok(lock) => locks.push(lock),
                Err(text) => {
                    complain(&text);
                    return Err(exit::UNAVAILABLE);
                }
            }
        }
        let runtime = match RuntimeDirectory::open() {
            Ok(directory) => Some(directory.of(config.plan.interfaces())),
            Err(error) => {
                log.warning(format_args!(
                    "no runtime directory ({error}): counters and lockout do not survive"
                ));
                None
            }
        };
        let memory = real_time::prepare(&config, &log)?;
        Ok(Self {
            memory,
            watched: Watched::new(&args.config, &config),
            supply: Supply::new(args.sys.clone()),
            sys: args.sys.clone(),
            has_terminal: reload::has_terminal(),
            untold: false,
            config,
            log,
            runtime,
            locks,
            screen: Screen::new(),
            last_state: None,
            told: Vec::new(),
            said_ready: false,
            stopping: false,
            asked: false,
            ran_away: false,
            news: Told::default(),
        })
    }

    /// Starts the threads and stays until they have ended.
    fn run(&mut self, listen_only: bool) -> u8 {
        let mut signals = match Signals::new(ENDING.into_iter().chain(IGNORED).chain([SIGUSR1])) {
            Ok(signals) => signals,
            Err(error) => {
                complain(&format!("cannot listen for signals: {error}"));
                return exit::UNAVAILABLE;
            }
        };
        let counters = last_counters(&self.config);
        let lockout = self.runtime.as_ref().and_then(RuntimeDirectory::lockout);
        // The marker holds the fault's name; one that cannot be read locks out all the same.
        let locked_out = lockout.as_ref().map(|name| Fault::from_name(name).unwrap_or(Fault::TooManyArms));
        if let Some(name) = &lockout {
            let why = Fault::from_name(name).map_or("its marker says no cause that can be read", Fault::text);
            self.log.warning(format_args!(
                "LOCKOUT of the last run still holds: {why}; to acknowledge it, stop and start the gateway, or call \
                 GwAcknowledgeLockout here (ocpcan rcsp)"
            ));
        }
        let options = GatewayOptions {
            listen_only,
            real_time: true,
            locked_out,
            last_counters: self.last_counters(&counters),
            counters,
            runtime: self.runtime.clone(),
            management: Some(ManagementOptions {
                version: VERSION,
                config: effective(&self.config),
                listener: None,
            }),
        };
        // Every thread inherits it.
        if let Err(why) = confine::program() {
            self.log.warning(format_args!("the program {}", happening::not_confined(why)));
        }
        let gateway = match Gateway::start(&self.config, options) {
            Ok(gateway) => gateway,
            Err(error) => {
                complain(&error.to_string());
                // No more threads is the machine's doing; the others cannot be after `config::load`.
                return if matches!(error, StartError::Spawn(_)) {
                    exit::UNAVAILABLE
                } else {
                    exit::SOFTWARE
                };
            }
        };
        gateway.shared.gauges.real_time.note_memory(self.memory);
        if listen_only {
            self.log.line(format_args!("listening only: nothing is sent"));
        }
        let mut code = exit::OK;
        while !gateway.ended() {
            for signal in signals.pending() {
                self.screen.erase();
                self.take_signal(signal, &gateway);
                self.screen.draw();
            }
            let mut event = gateway.events.wait(TURN);
            while let Some(one) = event {
                code = self.take(&one, code);
                gateway.tell(happening::of_event(&one, &self.config));
                event = gateway.events.take();
            }
            self.take_news(&gateway);
            self.take_car_news(&gateway);
            self.look_at_files(&gateway);
            self.look_at_supply(&gateway);
            self.tell_configuration(&gateway);
        }
        while let Some(one) = gateway.events.take() {
            code = self.take(&one, code);
        }
        if gateway.shared.panicked() {
            code = exit::SOFTWARE;
        }
        self.end(gateway, code, listen_only)
    }

    /// The file that `safe-stop` reads, where there can be one.
    fn last_counters(&self, left: &[u32]) -> Option<LastCounters> {
        let runtime = self.runtime.as_ref()?;
        let kept = LastCounters::create(runtime)
            .map_err(|error| {
                let place = runtime.path().display();
                self.log.warning(format_args!("{place}: {error}: alive counters do not survive"));
            })
            .ok()?;
        // What the last process left is kept until this one has sent: it may be killed before its first frame.
        for (slot, (send, next)) in self.config.plan.send.iter().zip(left).enumerate() {
            if let Some(counter) = send.counter {
                let last = next.checked_sub(1).unwrap_or_else(|| counter.modulo.saturating_sub(1));
                let bus = u8::try_from(send.bus).unwrap_or(u8::MAX);
                kept.record(slot, bus, send.id, last.to_le_bytes()[0]);
            }
        }
        Some(kept)
    }

    fn take_signal(&mut self, signal: i32, gateway: &Gateway) {
        if signal == SIGUSR1 {
            self.tell_counters(gateway);
            return;
        }
        if signal == SIGHUP && !self.has_terminal && !self.stopping {
            self.reload(gateway);
            return;
        }
        self.ran_away |= signal == SIGXCPU;
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        if IGNORED.contains(&signal) {
            self.log.line(format_args!("{name}: ignored"));
            return;
        }
        // Asked for twice by a person, it ends at once. What the system adds by itself (a terminal that closes sends SIGHUP
        // beside SIGINT, systemd may send it beside SIGTERM) is no second request.
        let is_asked = matches!(signal, SIGTERM | SIGINT | SIGQUIT);
        let is_new = !self.stopping || (is_asked && self.asked);
        self.asked |= is_asked;
        self.stopping = true;
        if !is_new {
            return;
        }
        self.log.notice(format_args!("{name}: stopping"));
        notify::stopping();
        gateway.shared.request_stop();
    }

    /// Writes down one event, above the checklist. Returns the exit code so far.
    fn take(&mut self, event: &Event, code: u8) -> u8 {
        self.screen.erase();
        let code = self.tell(event, code);
        self.screen.draw();
        code
    }

    fn tell(&mut self, event: &Event, code: u8) -> u8 {
        match event {
            Event::Status(status) => self.take_status(status),
            Event::Bus { bus, what } => {
                self.log.line(format_args!("bus {}: {what}", self.bus(*bus)));
                // It may be another interface than before, or the first one of this name.
                if let Some(Err(error)) = self.locks.get_mut(*bus).map(BusLock::renew) {
                    self.log.warning(format_args!("{error}"));
                }
            }
            Event::BusUnavailable { bus, cause } => {
                if let Some(why) = happening::unavailable(&self.config, *bus, *cause) {
                    self.log.line(format_args!("bus {}: {why}", self.bus(*bus)));
                }
            }
            Event::OcpConnected => {
                self.log.line(format_args!("OCP: {}", happening::connected(&self.config)));
            }
            Event::OcpLost(error) => {
                self.log.line(format_args!("OCP: {}", happening::lost(&self.config, *error)));
            }
            Event::RealTimeRefused { thread, errno } => {
                let name = thread.spec().name;
                let text = nix::errno::Errno::from_raw(*errno).desc();
                self.log.warning(format_args!(
                    "thread {name} runs without real-time priority: {text} (LimitRTPRIO=49)"
                ));
            }
            Event::NotConfined(thread, why) => self.log.warning(format_args!(
                "thread {} {}",
                thread.spec().name,
                happening::not_confined(*why)
            )),
            Event::Requested(command, by, outcome) => {
                self.log.notice(format_args!("RCSP: {command} by {by}: {outcome}"));
            }
            Event::RcspClosed(peer, ended) => self.log.line(format_args!("RCSP: {peer}: closed: {ended}")),
            Event::RcspListening(address) => {
                self.log.line(format_args!("RCSP: `ocpcan status` can ask at {address}"));
            }
            Event::RcspNotListening(errno) => {
                let why = nix::errno::Errno::from_raw(*errno).desc();
                let at = self.config.rcsp.as_ref().map(|rcsp| rcsp.listen.to_string()).unwrap_or_default();
                self.log.warning(format_args!(
                    "RCSP: {at}: {why}; nobody can ask this gateway how it is; trying again (rcsp.listen)"
                ));
            }
            Event::Panicked(thread) => {
                self.log
                    .error(format_args!("thread {} panicked: safe frames, then exit", thread.spec().name));
                return exit::SOFTWARE;
            }
            Event::WatchdogEnded => {}
        }
        code
    }

    fn bus(&self, index: usize) -> &str {
        happening::bus_name(&self.config, index)
    }

    fn take_status(&mut self, status: &Status) {
        if !self.said_ready && status.state != StateName::Init {
            self.said_ready = true;
            notify::ready();
        }
        let next = next_step(status);
        if self.last_state != Some(status.state) {
            self.log.notice(format_args!("{}", transition(self.last_state, status)));
            if status.state == StateName::Lockout {
                self.keep_lockout(status);
            } else if self.last_state == Some(StateName::Lockout) {
                self.forget_lockout();
            }
            self.last_state = Some(status.state);
            self.told.clear();
        }
        if let Some(reaction) = status.reaction
            && self.screen.note_reaction(reaction.trip.at)
        {
            self.log.notice(format_args!(
                "{} answered: safe frames on the bus {:.1} ms after its evidence",
                reaction.trip.fault.name(),
                millis_f64(reaction.time)
            ));
        }
        let now = clock::now();
        self.told.retain(|(_, at)| now.since(*at) < SAY_AGAIN);
        if let Some(todo) = next
            && self.told.iter().all(|(told, _)| *told != todo)
        {
            self.told.push((todo, now));
            if !self.screen.is_terminal {
                let what = if status.faults.first().is_some() { "cannot arm" } else { "to arm" };
                self.log.line(format_args!("{}: {what}: {todo}", status.state.name()));
            }
        }
        notify::status(status.state.name());
        self.screen.status = Some(*status);
    }

    /// A lockout must survive a restart that no person asked for.
    fn keep_lockout(&self, status: &Status) {
        if let Some(fault) = status.lasting_lockout()
            && let Some(runtime) = &self.runtime
            && let Err(error) = runtime.set_lockout(fault.name())
        {
            self.log.warning(format_args!("the lockout is not kept: {error}"));
        }
    }

    /// A person at the box has acknowledged it.
    fn forget_lockout(&self) {
        if let Some(Err(error)) = self.runtime.as_ref().map(RuntimeDirectory::clear_lockout) {
            self.log.warning(format_args!("the lockout's marker is not cleared: {error}"));
        }
    }

    /// Writes down everything that was counted and is not zero.
    fn tell_counters(&self, gateway: &Gateway) {
        for (counter, value) in gateway.shared.counters().filter(|(_, value)| *value > 0) {
            self.log.notice(format_args!("counted: {value} {}", counter.text()));
        }
        for (count, value) in gateway.shared.tunnel.iter().filter(|(_, value)| *value > 0) {
            self.log.notice(format_args!("counted: {value} tcpcan {}", count.text()));
        }
    }

    /// Waits for the threads and says goodbye.
    fn end(&self, gateway: Gateway, code: u8, listen_only: bool) -> u8 {
        let until = clock::now() + if self.ran_away { Duration::ZERO } else { JOIN_LIMIT };
        while !gateway.all_ended() && clock::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.tell_counters(&gateway);
        if gateway.all_ended() {
            gateway.join();
        }
        if code == exit::OK
            && !listen_only
            && let Some(runtime) = &self.runtime
        {
            // Stopped by a person: that is the acknowledgement (a crash leaves the marker). A look without driving is none.
            let _ = runtime.clear_lockout();
        }
        self.log.notice(format_args!("ended, exit {code}"));
        code
    }
}
