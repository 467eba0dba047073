//! What the facts mean, and what a person does about it.
//!
//! Owns every verdict and its words. Relies on the facts alone: no clock, no kernel, no file. Never says ok of what it does not
//! know.

mod bus;
mod service;

use nix::errno::Errno;

use super::facts::{Answer, ConfigFacts, Facts, PeerFacts, PortFacts, Running, RuntimeFacts, Seal, Unusable};
use crate::cli::VERSION;
use crate::config::RealTime;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it should be.
    Ok,
    /// It works, and a person should know.
    Warning,
    /// It does not drive, or not safely, as it is.
    Problem,
}

impl Level {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// What was looked at; the word at the left.
    pub(super) area: &'static str,
    pub(super) level: Level,
    pub(super) text: String,
    /// What to do.
    pub(super) remedy: Option<String>,
}

/// Whether any of them is a problem.
pub(super) fn has_problem(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.level == Level::Problem)
}

/// A report in the making.
struct Report {
    area: &'static str,
    findings: Vec<Finding>,
}

impl Report {
    fn ok(&mut self, text: impl Into<String>) {
        self.add(Level::Ok, text.into(), None);
    }

    fn warning(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Warning, text.into(), Some(remedy.into()));
    }

    fn problem(&mut self, text: impl Into<String>, remedy: impl Into<String>) {
        self.add(Level::Problem, text.into(), Some(remedy.into()));
    }

    fn add(&mut self, level: Level, text: String, remedy: Option<String>) {
        self.findings.push(Finding { area: self.area, level, text, remedy });
    }
}

/// Judges everything, in the order in which a technician would mend it.
pub(super) fn judge(facts: &Facts) -> Vec<Finding> {
    let mut report = Report { area: "Config", findings: Vec::new() };
    match &facts.config {
        Ok(config) => valid(&mut report, config),
        Err(Unusable::NotWritten) => report.problem(
            format!("{}: not configured yet", facts.path.display()),
            "begin with /usr/share/doc/ocpcan/README.md and one of the examples beside it",
        ),
        Err(Unusable::Wrong(problems)) => {
            for problem in problems {
                report.problem(problem.clone(), "correct the file; `ocpcan check` names the same problems");
            }
        }
    }
    report.area = "Bus";
    if facts.config.is_err() && facts.buses.is_empty() {
        report.problem(
            "this kernel has no CAN interface",
            "the lines of the HAT in /boot/firmware/config.txt, then a reboot; `dmesg | grep -i -e can -e spi` says more",
        );
    }
    for one in &facts.buses {
        bus::bus(&mut report, one);
    }
    report.area = "Gateway";
    gateway(&mut report, facts);
    report.area = "Service";
    if let Some(facts) = &facts.service {
        service::service(&mut report, facts);
    }
    report.area = "Real time";
    real_time(&mut report, facts);
    report.area = "Ports";
    for port in &facts.ports {
        self::port(&mut report, port, facts.running.as_ref());
    }
    report.area = "OCP";
    if let Some(peer) = &facts.peer {
        self::peer(&mut report, peer, facts.running.as_ref());
    }
    report.area = "Clock";
    clock(&mut report, facts);
    report.area = "Supply";
    supply(&mut report, facts);
    report.area = "Hardware";
    hardware(&mut report, facts);
    report.area = "Runtime";
    runtime(&mut report, facts);
    report.findings
}

fn valid(report: &mut Report, config: &ConfigFacts) {
    report.ok(format!("{} \"{}\", configuration {}", config.role, config.name, config.digest));
    match &config.seal {
        Seal::Holds => report.ok("sealed for this computer"),
        Seal::None => report.ok("not sealed: a file that was cut off, or another vehicle's, would be taken (`ocpcan check --seal`)"),
        Seal::Broken(why) => {
            let (what, remedy) = why.split_once("; ").unwrap_or((why, "`ocpcan check --seal`"));
            report.problem(what, remedy);
        }
    }
    for dbc in &config.descriptions {
        report.ok(format!("{}: {}", dbc.path.display(), dbc.digest));
    }
    for warning in &config.warnings {
        report.warning(warning.clone(), "`ocpcan check` shows where");
    }
}

/// The process number where it is known.
fn process(running: &Running) -> String {
    let user = running.user.as_ref().map_or_else(String::new, |user| format!(", {user}"));
    running.pid.map_or_else(|| "a process of this computer".to_owned(), |pid| format!("process {pid}{user}"))
}

fn gateway(report: &mut Report, facts: &Facts) {
    let Some(running) = &facts.running else {
        if facts.config.is_ok() {
            report.ok("none runs on these buses");
        }
        return;
    };
    let who = process(running);
    match &running.answer {
        Err(why) => report.warning(
            format!("{who} drives these buses and cannot be asked: {why}"),
            "[rcsp] in the file that it was started with; its log says where it listens",
        ),
        Ok(answer) => {
            report.ok(format!("{who}: ocpcan {}, {}", answer.version, answer.state));
            compare(report, answer, facts.config.as_ref().ok());
            for fault in &answer.faults {
                report.warning(
                    format!("{}: {fault}", answer.state),
                    "`ocpcan status` says what is missing to arm",
                );
            }
            if answer.state == "LOCKOUT" {
                report.problem(
                    "LOCKOUT: a person at the vehicle must look",
                    "`ocpcan status` says why and how to acknowledge it",
                );
            }
        }
    }
}

/// Whether what runs is what is installed.
fn compare(report: &mut Report, answer: &Answer, config: Option<&ConfigFacts>) {
    if let Some(config) = config.filter(|config| config.digest != answer.digest) {
        report.warning(
            format!("it runs with configuration {}, and the file is {} by now", answer.digest, config.digest),
            "reload or restart it while nobody drives: systemctl reload ocpcan",
        );
    }
    if answer.version != VERSION {
        report.warning(
            format!("it is version {}, and this program is {VERSION}", answer.version),
            "restart it while nobody drives: systemctl restart ocpcan",
        );
    }
}

const FOR_FIFO: &str =
    "LimitRTPRIO=49 in the service's unit; for a shell: ulimit -r 49, or /etc/security/limits.d";
const FOR_MEMORY: &str = "LimitMEMLOCK=infinity in the service's unit; for a shell: ulimit -l unlimited";

fn real_time(report: &mut Report, facts: &Facts) {
    let Some(wanted) = facts.config.as_ref().ok().and_then(|config| config.real_time) else { return };
    // Without it the gateway is slower under load, or does not start at all, as the file says.
    let level = match wanted {
        RealTime::Required => Level::Problem,
        RealTime::Warn => Level::Warning,
    };
    let refused =
        |report: &mut Report, text: String, remedy: &str| report.add(level, text, Some(remedy.to_owned()));
    if let Some(running) = facts.running.as_ref().filter(|running| !running.threads.is_empty()) {
        for (name, wanted, granted) in &running.threads {
            match granted {
                Some(granted) if granted == wanted => {}
                Some(other) => refused(
                    report,
                    format!("the gateway's thread {name} runs at FIFO {other} in place of {wanted}"),
                    FOR_FIFO,
                ),
                None => refused(
                    report,
                    format!("the gateway's thread {name} runs without real-time priority"),
                    FOR_FIFO,
                ),
            }
        }
        if running.threads.iter().all(|(_, wanted, granted)| *granted == Some(*wanted)) {
            let names: Vec<String> =
                running.threads.iter().map(|(name, wanted, _)| format!("{name} {wanted}")).collect();
            report.ok(format!("granted to the gateway's threads: FIFO {}", names.join(", ")));
        }
        match running.locked_kib {
            Some(0) => refused(report, "the gateway's memory is not locked".to_owned(), FOR_MEMORY),
            Some(kib) => report.ok(format!("the gateway has {kib} KiB of memory locked")),
            None => {}
        }
        return;
    }
    let rights = &facts.rights;
    let as_whom = format!("{} (a service may have other rights)", rights.user);
    match rights.fifo {
        Ok(()) => report.ok(format!("real-time priority is granted to {as_whom}")),
        Err(errno) => {
            let why = Errno::from_raw(errno).desc();
            refused(report, format!("real-time priority is refused to {as_whom}: {why}"), FOR_FIFO);
        }
    }
    match rights.memory {
        Ok(()) => report.ok(format!("locked memory is granted to {}", rights.user)),
        Err(errno) => {
            let why = Errno::from_raw(errno).desc();
            refused(report, format!("locked memory is refused to {}: {why}", rights.user), FOR_MEMORY);
        }
    }
}

fn port(report: &mut Report, port: &PortFacts, running: Option<&Running>) {
    let PortFacts { key, address, free } = port;
    match free.map_err(Errno::from_raw) {
        Ok(()) if running.is_some_and(|running| running.answer.is_ok()) => report.warning(
            format!("{key} {address}: free, although the gateway runs"),
            "it listens elsewhere, or could not: its log says so",
        ),
        Ok(()) => report.ok(format!("{key} {address}: free")),
        Err(Errno::EADDRINUSE) => match running {
            Some(running) => {
                report.ok(format!("{key} {address}: in use while the gateway runs ({})", process(running)))
            }
            None => report.problem(
                format!("{key} {address}: another program listens there"),
                format!("ss -ltnp 'sport = :{}' names it; end it, or choose another port", address.port()),
            ),
        },
        Err(Errno::EADDRNOTAVAIL) => report.problem(
            format!("{key} {address}: no address of this computer"),
            "`ip -br address` lists those it has; an interface may be down",
        ),
        Err(errno) => report.problem(
            format!("{key} {address}: {}", errno.desc()),
            "choose a port from 1024 up, and an address of this computer",
        ),
    }
}

fn peer(report: &mut Report, peer: &PeerFacts, running: Option<&Running>) {
    let PeerFacts { key, name, address, reached } = peer;
    let remedy = format!("start {name}; is {key} its address and its port the one of OCP?");
    match (reached, running.and_then(|running| running.answer.as_ref().ok())) {
        (Some(Ok(ms)), _) => report.ok(format!("{name} {address}: reached in {ms:.1} ms")),
        (Some(Err(why)), _) => report.problem(format!("{name} {address}: {why}"), remedy),
        (None, Some(Answer { connected: Some(true), .. })) => {
            report.ok(format!("{name} {address}: the gateway is connected"))
        }
        (None, Some(Answer { connected: Some(false), why, .. })) => {
            let why = why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
            report.problem(format!("{name} {address}: the gateway is not connected{why}"), remedy);
        }
        (None, _) => report.warning(
            format!("{name} {address}: not called: a gateway runs, and a second caller may take its place"),
            "stop the gateway and look again, or let it be asked ([rcsp])",
        ),
    }
}

/// Counters that are slow to read or coarse.
const POOR_CLOCKS: [&str; 3] = ["jiffies", "acpi_pm", "hpet"];

fn clock(report: &mut Report, facts: &Facts) {
    match facts.clock.source.as_deref() {
        Some(source) if POOR_CLOCKS.contains(&source) => report.warning(
            format!("time is taken from {source}, which is slow or coarse"),
            "the kernel's log says why it gave up the better one (dmesg | grep clocksource)",
        ),
        Some(source) => report.ok(format!("time is taken from {source}")),
        None => report.warning(
            "the kernel does not say where it takes time from",
            "none; the gateway uses its monotonic clock",
        ),
    }
    match facts.clock.is_synchronised {
        Some(true) => report.ok("the wall clock is synchronised"),
        Some(false) => report.warning(
            "the wall clock is not synchronised: times in logs may be wrong; nothing that drives relies on it",
            "timedatectl set-ntp true, or a receiver or clock chip",
        ),
        None => report.warning("the kernel does not say whether the wall clock is right", "timedatectl"),
    }
}

fn supply(report: &mut Report, facts: &Facts) {
    let power = facts.power;
    let remedy = "a stronger supply with short thick wires; for heat: air, a heat sink, less load";
    let warm = power.temperature_milli_c.map(|milli| format!("{:.1} degrees C", f64::from(milli) / 1_000.0));
    let warm = warm.map_or_else(String::new, |warm| format!(", {warm}"));
    if let Some(trouble) = power.trouble() {
        return report.problem(format!("{trouble}{warm}"), remedy);
    }
    match (power.undervoltage, power.was_low) {
        (_, Some(true)) => {
            report.warning(
                format!("enough now, and too low or too hot since this computer was started{warm}"),
                remedy,
            );
        }
        (Some(false), _) => report.ok(format!("enough{warm}")),
        _ => report.ok(format!("this computer does not tell its voltage{warm}")),
    }
}

/// SAFETY row 79: only a timer beside the processor notices a kernel that hangs.
fn hardware(report: &mut Report, facts: &Facts) {
    let remedy = "RuntimeWatchdogSec=10s lets systemd feed it: 10-ocpcan-watchdog.conf among the examples";
    let alone = "a kernel that hangs stays so, and the actuators' own timeout is all that acts";
    if let Some(fed) = facts.watchdogs.iter().find(|watchdog| watchdog.is_active) {
        let after = fed.timeout_s.map_or_else(String::new, |timeout_s| format!(" {timeout_s} s"));
        report
            .ok(format!("watchdog {}: fed; it resets this computer{after} after the last feeding", fed.name));
    } else if let Some(idle) = facts.watchdogs.first() {
        report.warning(format!("watchdog {}: not used: {alone}", idle.name), remedy);
    } else {
        report.warning(
            format!("no watchdog that this kernel knows of: {alone}"),
            format!("load the board's driver (bcm2835_wdt on a Raspberry Pi), then {remedy}"),
        );
    }
}

fn runtime(report: &mut Report, facts: &Facts) {
    let user = &facts.rights.user;
    let remedy = "RuntimeDirectory=ocpcan in the service's unit";
    match &facts.runtime {
        RuntimeFacts::Writable(path) => report.ok(format!("{}: {user} can write to it", path.display())),
        RuntimeFacts::Missing(path) => {
            report.ok(format!("{}: not there yet; the service's start makes it", path.display()))
        }
        RuntimeFacts::Others(path, owner) => {
            report.ok(format!("{}: belongs to {owner}, so the gateway must run as {owner}", path.display()));
        }
        RuntimeFacts::Refused(path, why) => report.problem(
            format!("{}: {why}: counters, a lockout and restarts of a bus would be lost", path.display()),
            "make room on it (df), or mount it writable: it belongs on a tmpfs",
        ),
        RuntimeFacts::Open(path) => report.problem(
            format!(
                "{}: others may write to it, or it is no folder; the gateway does not use it",
                path.display()
            ),
            remedy,
        ),
    }
}

#[cfg(test)]
mod tests;
