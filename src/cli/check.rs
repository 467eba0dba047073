//! `ocpcan check`: every problem of a configuration at once, or what it resolves to, down to the bits.
//!
//! Owns the text. Relies on `config`. Never opens a bus or a socket.

mod effective;
mod frames;
mod station;

use super::{DEFAULT_CONFIG, VERSION, complain, exit, print, seal};
use crate::can::{Frame, Id};
use crate::config::{self, CarPlan, Config, Loaded, Problem, Short, budget, written};
use crate::io::power;
use crate::limits::{TUNNEL_PEERS, TUNNEL_QUEUE};
use crate::safety::settings::BOUNDS;
use crate::signals::car::{CarFeed, WantedCar};
use crate::signals::plan::{Kind, Plan, SignalPlan, StopProfile};
use crate::time::{Duration, millis_f64};
use crate::topology;
pub(super) use effective::effective;
use frames::{Bits, buses, receive, reference, reported, send, transform};
use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

/// Checks a configuration: all problems at once, or what it resolves to
///
/// Problems go to stderr and end in exit code 78. A valid configuration is printed as the gateway understands it: every
/// signal with its bits, limits and safe value, the memory of each channel, and how long each fault may take to end in a
/// safe frame.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Print the problems and warnings only
    #[arg(long, short)]
    quiet: bool,
    /// Print the effective configuration as JSON, as a running gateway tells it to `ocpcan rcsp call GwGetConfig`
    #[arg(long, conflicts_with = "quiet")]
    json: bool,
    /// If it is valid, seal it: from then on `ocpcan run` takes this very file on this computer, and no other
    #[arg(long)]
    seal: bool,
    /// Where the kernel tells of the machine, for tests
    #[arg(long, value_name = "FOLDER", default_value = power::SYS, hide = true)]
    sys: PathBuf,
}

/// Checks and prints.
#[must_use]
pub fn run(args: &Args) -> u8 {
    let loaded = match load_either(&args.config) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let (warnings, digest) = match &loaded {
        Loaded::Vehicle(config) => (&config.warnings, &config.digest),
        Loaded::Operator(config) => (&config.warnings, &config.digest),
    };
    if args.seal
        && let Err(error) = seal::write(&args.config, digest, &args.sys)
    {
        complain(&format!("{}: {error}", seal::path(&args.config).display()));
        return exit::IO;
    }
    // What `run` refuses is not good here either.
    let broken = seal::check(&args.config, digest, &args.sys).err();
    let code = if args.quiet {
        for warning in warnings {
            complain(&format!("warning: {warning}"));
        }
        exit::OK
    } else {
        show(args, &loaded)
    };
    match broken {
        Some(broken) => {
            complain(&format!("{}: {broken}; nothing is sent", args.config.display()));
            exit::CONFIG
        }
        None => code,
    }
}

/// Prints the configuration in the form that was asked for.
fn show(args: &Args, loaded: &Loaded) -> u8 {
    if args.json {
        let Loaded::Vehicle(config) = loaded else {
            complain("--json is for a vehicle's configuration; this one has role = \"operator\"");
            return exit::USAGE;
        };
        let record = serde_json::Value::Object(effective(config));
        return print(&format!("{record:#}\n"));
    }
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = match loaded {
        Loaded::Vehicle(config) => report(&mut text, config),
        Loaded::Operator(config) => station::report(&mut text, config),
    };
    print(&text)
}

/// Loads a configuration of either role; all problems go to stderr.
pub(super) fn load_either(path: &Path) -> Result<Loaded, u8> {
    config::load_either(path).map_err(|problems| refuse(&problems))
}

fn refuse(problems: &[Problem]) -> u8 {
    for problem in problems {
        complain(&problem.to_string());
    }
    let count = problems.len();
    complain(&format!("{count} problem{}; nothing is sent", if count == 1 { "" } else { "s" }));
    exit::CONFIG
}

/// The whole report.
fn report(out: &mut String, config: &Config) -> fmt::Result {
    let plan = &config.plan;
    writeln!(out, "ocpcan {VERSION}")?;
    writeln!(out, "vehicle    {}  (configuration {})", plan.vehicle, config.digest)?;
    let form = format!("{:?}", config.ocp.user_data).to_lowercase();
    writeln!(out, "OCP        {}, user data {form}", config.ocp.address)?;
    buses(out, &plan.buses)?;
    management(out, config)?;
    tunnels(out, config)?;
    arming(out, config)?;
    for frame in &plan.send {
        send(out, &plan.buses, frame)?;
        for signal in &frame.signals {
            mapped(out, plan, signal)?;
        }
    }
    for frame in &plan.receive {
        let loss = if frame.required { "its loss trips" } else { "its loss is reported" };
        receive(out, &plan.buses, frame, loss)?;
    }
    if let Some(car) = &config.car {
        simulated(out, plan, car)?;
    }
    reports(out, plan)?;
    times(out, config)?;
    reactions(out, config)?;
    memory(out, config)?;
    writeln!(out, "\nThe vehicle must")?;
    writeln!(
        out,
        "  stop by itself when these frames stay away for {} ms: no software survives a power cut",
        budget::ACTUATOR_TIMEOUT.as_millis()
    )?;
    warnings(out, &config.warnings)
}

fn warnings(out: &mut String, warnings: &[String]) -> fmt::Result {
    writeln!(out, "\nWarnings   {}", if warnings.is_empty() { "none" } else { "" })?;
    for warning in warnings {
        writeln!(out, "  {warning}")?;
    }
    Ok(())
}

fn management(out: &mut String, config: &Config) -> fmt::Result {
    let Some(rcsp) = &config.rcsp else { return writeln!(out, "RCSP       off") };
    let who = if rcsp.allow.is_empty() { "this machine only".to_owned() } else { rcsp.allow.to_string() };
    let stop = if rcsp.remote_stop { ", other machines may ask for a stop" } else { "" };
    writeln!(out, "RCSP       {}, {who}{stop}", rcsp.listen)
}

fn tunnels(out: &mut String, config: &Config) -> fmt::Result {
    let ids = |ids: &[Id]| match ids {
        [] => "nothing".to_owned(),
        ids => ids.iter().map(Id::to_string).collect::<Vec<_>>().join(" "),
    };
    for tunnel in &config.tunnels {
        let bus = config.plan.buses.get(tunnel.bus).map_or("?", |bus| &bus.name);
        let who =
            if tunnel.allow.is_empty() { "this machine only".to_owned() } else { tunnel.allow.to_string() };
        let age = tunnel.max_age.as_millis();
        writeln!(out, "tunnel     {bus}: {}, {who}; frames up to {age} ms old", tunnel.listen)?;
        writeln!(
            out,
            "           peers may send: always {}; unless armed {}; in DIAG {}; {} frames/s each, {} together",
            ids(&tunnel.always),
            ids(&tunnel.unless_armed),
            ids(&tunnel.diagnostic),
            tunnel.peer_per_s,
            tunnel.total_per_s
        )?;
    }
    Ok(())
}

fn arming(out: &mut String, config: &Config) -> fmt::Result {
    let plan = &config.plan;
    let name = |source| written(&plan.user_fields, source);
    let arm = plan.arm.map_or_else(String::new, name);
    writeln!(out, "arm        {arm}, at most {} times a minute", config.arms_per_minute)?;
    if let Some(source) = plan.dead_man {
        writeln!(out, "dead man   {} must be held", name(source))?;
    }
    for requirement in &plan.require {
        writeln!(out, "require    {}", requirement.name)?;
    }
    match &plan.operator_counter {
        Some(counter) => {
            let field = plan.user_fields.get(usize::from(counter.field));
            let field = field.map_or_else(String::new, |f| f.dotted());
            write!(out, "operator   counter user.{field}")?;
            match counter.modulo {
                Some(modulo) => writeln!(out, ", modulo {modulo}"),
                None => writeln!(out),
            }
        }
        None => writeln!(out, "operator   no counter"),
    }?;
    match &plan.speed {
        Some(speed) => {
            let signal = reference(&plan.receive, speed.signal);
            write!(out, "standstill |{signal}| <= {}", Short(speed.standstill))?;
            match speed.cap_without_counter {
                Some(cap) => writeln!(out, ", throttle 0 above {} without an operator counter", Short(cap)),
                None => writeln!(out),
            }
        }
        None => writeln!(out, "standstill unknown"),
    }
}

fn mapped(out: &mut String, plan: &Plan, signal: &SignalPlan) -> fmt::Result {
    let kind = match signal.kind {
        Kind::Throttle => "throttle",
        Kind::Brake => "brake",
        Kind::Steering => "steering",
        Kind::Enable => "enable",
        Kind::Other => "other",
    };
    writeln!(out, "  {} ({kind})", signal.name)?;
    writeln!(out, "    bits     {}", Bits(&signal.codec))?;
    writeln!(out, "    source   {}", origin(plan, signal))?;
    write!(out, "    limits   {} .. {}", Short(signal.min), Short(signal.max))?;
    match (signal.slew_up, signal.slew_down) {
        (None, None) => writeln!(out)?,
        (up, down) => {
            let rate = |r: Option<f64>| r.map_or_else(|| "any".to_owned(), |r| format!("{}/s", Short(r)));
            writeln!(out, ", up {}, down {}", rate(up), rate(down))?;
        }
    }
    let stop = match signal.stop {
        StopProfile::Safe => "at once".to_owned(),
        StopProfile::Hold => "after holding the last value while stopping".to_owned(),
        StopProfile::Ramp { per_s } => format!("by {}/s while stopping", Short(per_s)),
    };
    let still = if signal.at_standstill { "; changes at standstill only" } else { "" };
    if signal.safe.is_nan() {
        writeln!(out, "    safe     none: while the car does not tell this value, the frame is not sent")?;
    } else {
        writeln!(out, "    safe     {}, {stop}{still}", Short(signal.safe))?;
    }
    if let Some(confirm) = &signal.confirm {
        let of = reference(&plan.receive, confirm.signal);
        writeln!(out, "    feedback {of} within {}", Short(confirm.tolerance))?;
    }
    Ok(())
}

/// The source and what becomes of its reading.
fn origin(plan: &Plan, signal: &SignalPlan) -> String {
    let name = |source| written(&plan.user_fields, source);
    if !signal.select.is_empty() {
        let choices: Vec<String> = signal
            .select
            .iter()
            .map(|(source, value)| format!("{} -> {}", name(*source), Short(*value)))
            .collect();
        return format!("last pressed of {}", choices.join(", "));
    }
    let mut text = name(signal.source);
    // Writing to a string cannot fail.
    let _ = transform(&mut text, &signal.transform);
    if signal.toggle {
        text.push_str(", each press toggles");
    }
    text
}

/// The simulated car and what it sends.
fn simulated(out: &mut String, plan: &Plan, car: &CarPlan) -> fmt::Result {
    let settings = &car.settings;
    let who = match &settings.feed {
        CarFeed::Server { server, listen, car } => {
            format!("{} of the server {server}, heard at {listen}", wanted(car))
        }
        CarFeed::Game { game } => format!("the player's car of the game {game}"),
    };
    let (interval, stale) = (millis_f64(settings.interval), millis_f64(settings.stale_after()));
    writeln!(out, "\nsimulated car  {who}; updates every {interval} ms, stale after {stale} ms")?;
    for frame in &car.send {
        send(out, &plan.buses, frame)?;
        for signal in &frame.signals {
            mapped(out, plan, signal)?;
        }
    }
    Ok(())
}

/// Which of a server's cars.
pub(super) fn wanted(car: &WantedCar) -> String {
    match car {
        WantedCar::Slot(slot) => format!("car {slot}"),
        WantedCar::Guid(guid) => format!("the car of driver_guid {guid}"),
        WantedCar::Name(name) => format!("the car of driver_name {name:?}"),
    }
}

fn reports(out: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(out, "\nuser_data  (and {:?}: state and first trip cause)", config::GATEWAY_KEY)?;
    for field in &plan.report {
        let of = reported(&plan.receive, field.from);
        writeln!(out, "  {:<20} {of}, stale after {} ms", field.key, millis_f64(field.stale_after))?;
    }
    if let Some(pos) = &plan.position {
        let (lat, lon) = (reported(&plan.receive, pos.lat), reported(&plan.receive, pos.lon));
        writeln!(out, "  pos                  {lat}, {lon}, stale after {} ms", millis_f64(pos.stale_after))?;
    }
    Ok(())
}

fn times(out: &mut String, config: &Config) -> fmt::Result {
    writeln!(out, "\nTimes")?;
    for bound in BOUNDS {
        let value = config.settings.of(bound.key).map_or(0, |d| d.as_millis());
        let default = if value == u128::from(bound.default_ms) { "" } else { " (changed)" };
        let range = format!("{}..{}", bound.min_ms, bound.max_ms);
        writeln!(out, "  {:<20} {value:>6} ms  {range:<11} {}{default}", bound.key, bound.meaning)?;
    }
    Ok(())
}

fn reactions(out: &mut String, config: &Config) -> fmt::Result {
    writeln!(
        out,
        "\nFrom a fault to the safe frame, at most (of it {} ms reaction)",
        budget::REACTION.as_millis()
    )?;
    writeln!(out, "  {:>5}  {:>8}  {:>8}", "ms", "10 km/h", "30 km/h")?;
    for row in budget::budget(&config.plan, &config.settings) {
        let metres = |kph| format!("{:.2} m", budget::blind_metres(kph, row.within));
        write!(
            out,
            "  {:>5}  {:>8}  {:>8}  {}",
            row.within.as_millis(),
            metres(10.0),
            metres(30.0),
            row.cause
        )?;
        writeln!(out, "{}{}", if row.note.is_empty() { "" } else { ": " }, row.note)?;
    }
    let s = &config.settings;
    let arming: Duration = s.clear + s.neutral + s.hold;
    writeln!(
        out,
        "  then STOPPING for at most {} ms, and at least {} ms to arm again",
        s.stopping.as_millis(),
        arming.as_millis()
    )
}

/// What each channel holds, as declared in the topology.
fn memory(out: &mut String, config: &Config) -> fmt::Result {
    writeln!(out, "\nMemory of the channels")?;
    let mut total = 0;
    for (edge, bytes) in topology::memory() {
        let spec = edge.spec();
        total += bytes;
        writeln!(
            out,
            "  {:<22} {:>4} x {:>6} = {bytes:>8} bytes",
            edge.name(),
            spec.depth,
            spec.message_bytes
        )?;
    }
    writeln!(out, "  {:<38} {total:>8} bytes", "sum")?;
    if !config.tunnels.is_empty() {
        let (peers, frames, frame) = (TUNNEL_PEERS, TUNNEL_QUEUE, size_of::<Frame>() + size_of::<u64>());
        let bytes = 2 * frames * frame + 65_536;
        writeln!(out, "  {:<22} {peers:>4} x {bytes:>6} bytes while connected", "tunnel peers")?;
    }
    Ok(())
}
