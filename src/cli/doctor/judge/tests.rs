//! Every verdict, without the machine that would cause it.

use super::bus::crystal;
use super::*;
use crate::can::errorframe::ControllerState;
use crate::cli::doctor::facts::{BusFacts, ClockFacts, HardwareWatchdog, Rights, ServiceFacts, Unreadable};
use crate::io::canbus::controller::Controller;
use crate::io::canbus::{Facts as Interface, OpenCause, OpenError};
use crate::io::power::Power;
use crate::signals::plan::Echo;

const MCP2515: &str = "mcp251x";

fn interface() -> Interface {
    Interface {
        driver: heapless::String::try_from(MCP2515).unwrap(),
        is_virtual: false,
        has_driver_echo: true,
        queue_len: 10,
        ifindex: 3,
        is_up: true,
        is_running: true,
    }
}

fn controller() -> Controller {
    Controller {
        kind: "can".to_owned(),
        bitrate_bps: Some(500_000),
        data_bitrate_bps: None,
        state: Some(ControllerState::Active),
        errors: Some((0, 0)),
        sample_point_permille: Some(875),
        clock_hz: Some(8_000_000),
        restart_ms: Some(0),
        berr_reporting: Some(true),
        listen_only: Some(false),
        bus_offs: Some(0),
    }
}

fn can0() -> BusFacts {
    BusFacts {
        name: "vehicle".to_owned(),
        interface: "can0".to_owned(),
        is_built_in: false,
        echo: Echo::Required,
        opened: Some(Ok(interface())),
        controller: Some(controller()),
        unfit_queue: None,
        received: Some(1_000),
        receive_errors: Some(0),
    }
}

/// A Raspberry Pi on which everything is as it should be.
fn healthy() -> Facts {
    Facts {
        path: "/etc/ocpcan/ocpcan.toml".into(),
        config: Ok(ConfigFacts {
            role: "vehicle",
            name: "example".to_owned(),
            digest: "0011223344556677".to_owned(),
            real_time: Some(RealTime::Warn),
            ..ConfigFacts::default()
        }),
        buses: vec![can0()],
        rights: Rights { user: "ocpcan".to_owned(), fifo: Ok(()), memory: Ok(()) },
        running: None,
        clock: ClockFacts { source: Some("arch_sys_counter".to_owned()), is_synchronised: Some(true) },
        ports: vec![PortFacts {
            key: "rcsp.listen".to_owned(),
            address: "127.0.0.1:45451".parse().unwrap(),
            free: Ok(()),
        }],
        peer: Some(PeerFacts {
            key: "ocp.address",
            name: "the Streamer's OCP server",
            address: "127.0.0.1:4000".parse().unwrap(),
            reached: Some(Ok(0.4)),
        }),
        power: Power {
            undervoltage: Some(false),
            throttled: Some(false),
            was_low: Some(false),
            temperature_milli_c: Some(48_000),
        },
        watchdogs: vec![HardwareWatchdog {
            name: "Broadcom BCM2835 Watchdog timer".to_owned(),
            is_active: true,
            timeout_s: Some(10),
        }],
        runtime: RuntimeFacts::Writable("/run/ocpcan".into()),
        service: Some(ServiceFacts {
            active: "active".to_owned(),
            step: "running".to_owned(),
            result: "success".to_owned(),
            enabled: "enabled".to_owned(),
            user: "ocpcan".to_owned(),
            unreadable: Vec::new(),
        }),
    }
}

fn running() -> Running {
    Running {
        pid: Some(812),
        user: Some("ocpcan".to_owned()),
        threads: vec![("ocp".to_owned(), 40, Some(40)), ("watchdog".to_owned(), 45, Some(45))],
        locked_kib: Some(5_000),
        answer: Ok(Answer {
            version: VERSION.to_owned(),
            digest: "0011223344556677".to_owned(),
            state: "READY".to_owned(),
            faults: Vec::new(),
            connected: Some(true),
            why: None,
        }),
    }
}

/// The healthy facts with a gateway at work.
fn at_work() -> Facts {
    let mut facts = healthy();
    facts.running = Some(running());
    facts.ports[0].free = Err(Errno::EADDRINUSE as i32);
    facts.peer.as_mut().unwrap().reached = None;
    facts
}

/// The one finding above ok that a change causes; its text and remedy.
#[track_caller]
fn only(facts: &Facts, level: Level, text: &str, remedy: &str) {
    let findings = judge(facts);
    let bad: Vec<_> = findings.iter().filter(|finding| finding.level > Level::Ok).collect();
    assert_eq!(bad.len(), 1, "{bad:#?}");
    assert_eq!(bad[0].level, level, "{bad:#?}");
    assert!(bad[0].text.contains(text), "{bad:#?}");
    assert!(bad[0].remedy.as_ref().is_some_and(|said| said.contains(remedy)), "{bad:#?}");
    assert_eq!(has_problem(&findings), level == Level::Problem);
}

/// The same after a change of the only bus.
#[track_caller]
fn bus_has(change: impl FnOnce(&mut BusFacts), level: Level, text: &str, remedy: &str) {
    let mut facts = healthy();
    change(&mut facts.buses[0]);
    only(&facts, level, text, remedy);
}

#[track_caller]
fn controller_has(change: impl FnOnce(&mut Controller), level: Level, text: &str, remedy: &str) {
    bus_has(|bus| change(bus.controller.as_mut().unwrap()), level, text, remedy);
}

#[test]
fn a_healthy_machine_is_ok_throughout_with_and_without_a_gateway() {
    for facts in [healthy(), at_work()] {
        let findings = judge(&facts);
        assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{findings:#?}");
        for area in ["Config", "Bus", "Gateway", "Real time", "Ports", "OCP", "Clock", "Supply", "Runtime"] {
            assert!(findings.iter().any(|finding| finding.area == area), "{area}");
        }
    }
    let line = judge(&healthy()).into_iter().find(|finding| finding.area == "Bus").unwrap().text;
    assert_eq!(
        line,
        "vehicle (can0): up, driver mcp251x, 500 kbit/s, sampled at 87.5 %, clock 8 MHz, queue 10"
    );
}

#[test]
fn a_file_with_problems_is_told_and_the_rest_is_looked_at_all_the_same() {
    let facts = Facts {
        config: Err(Unusable::Wrong(vec![
            "x.toml:3: vehicle: missing".to_owned(),
            "x.toml:9: arm: missing".to_owned(),
        ])),
        ports: Vec::new(),
        peer: None,
        ..healthy()
    };
    let findings = judge(&facts);
    assert_eq!(findings.iter().filter(|finding| finding.level == Level::Problem).count(), 2);
    assert!(findings.iter().any(|finding| finding.area == "Supply" && finding.level == Level::Ok));
}

#[test]
fn row_103_and_105_a_broken_seal_is_a_problem_and_none_is_said() {
    let sealed = |seal| {
        let mut facts = healthy();
        facts.config.as_mut().unwrap().seal = seal;
        facts
    };
    only(&sealed(Seal::Broken("cut off; look at it".to_owned())), Level::Problem, "cut off", "look at it");
    let says = |facts: &Facts, text: &str| judge(facts).iter().any(|finding| finding.text.contains(text));
    assert!(says(&sealed(Seal::Holds), "sealed for this computer"));
    assert!(says(&sealed(Seal::None), "not sealed"));
}

#[test]
fn an_interface_that_cannot_be_opened_has_its_remedy() {
    let cannot = |cause| {
        move |bus: &mut BusFacts| {
            bus.opened = Some(Err(OpenError { bus: "can0".parse().unwrap(), cause }));
        }
    };
    bus_has(cannot(OpenCause::NoInterface), Level::Problem, "no such interface", "config.txt");
    bus_has(cannot(OpenCause::Down), Level::Problem, "the interface is down", "ocpcan-can@can0");
    bus_has(cannot(OpenCause::NoCanSupport), Level::Problem, "no CAN sockets", "modprobe can_raw");
    bus_has(cannot(OpenCause::Permission), Level::Problem, "not permitted", "AF_CAN");
    bus_has(|bus| bus.is_built_in = true, Level::Warning, "built-in", "can0");
}

#[test]
fn row_65_and_67_an_interface_that_does_not_arm_is_found_here_too() {
    let without_echo =
        |bus: &mut BusFacts| bus.opened = Some(Ok(Interface { has_driver_echo: false, ..interface() }));
    bus_has(without_echo, Level::Problem, "no echo", "echo = \"unproven\" in bus.vehicle");
    bus_has(
        |bus| {
            without_echo(bus);
            bus.echo = Echo::Unproven;
        },
        Level::Warning,
        "proves nothing",
        "ECHO",
    );
    bus_has(
        |bus| bus.opened = Some(Ok(Interface { queue_len: 1_000, ..interface() })),
        Level::Problem,
        "1000 frames",
        "txqueuelen 10",
    );
    bus_has(|bus| bus.unfit_queue = Some("fq_codel".to_owned()), Level::Warning, "fq_codel", "pfifo_fast");
    // A virtual bus stores nothing and needs no driver.
    let mut facts = healthy();
    facts.buses[0].controller = None;
    facts.buses[0].received = Some(0);
    facts.buses[0].opened =
        Some(Ok(Interface { is_virtual: true, has_driver_echo: false, queue_len: 1_000, ..interface() }));
    assert!(judge(&facts).iter().all(|finding| finding.level == Level::Ok));
}

#[test]
fn what_a_controller_says_of_itself_is_judged() {
    let hint = "the driver was told 16 MHz";
    controller_has(
        |c| c.state = Some(ControllerState::BusOff),
        Level::Problem,
        "bus-off",
        "ip link set can0 down",
    );
    controller_has(|c| c.state = Some(ControllerState::Passive), Level::Problem, "error-passive", hint);
    controller_has(|c| c.state = Some(ControllerState::Warning), Level::Warning, "many errors", "120 ohm");
    controller_has(|c| c.errors = Some((96, 0)), Level::Warning, "sending 96", "120 ohm");
    controller_has(|c| c.bus_offs = Some(2), Level::Warning, "2 times", "120 ohm");
    controller_has(|c| c.restart_ms = Some(100), Level::Problem, "restart-ms 100", "restart-ms 0");
    controller_has(|c| c.listen_only = Some(true), Level::Problem, "listen-only", "listen-only off");
    controller_has(|c| c.berr_reporting = Some(false), Level::Warning, "berr-reporting", "berr-reporting on");
    controller_has(|c| c.bitrate_bps = Some(495_049), Level::Warning, "495049", hint);
    // Below what a controller calls many.
    let mut facts = healthy();
    facts.buses[0].controller.as_mut().unwrap().errors = Some((95, 95));
    assert!(judge(&facts).iter().any(|finding| finding.text.ends_with("sending 95, receiving 95)")));
    assert!(!has_problem(&judge(&facts)));
}

#[test]
fn a_bus_without_a_frame_sends_people_to_the_crystal() {
    bus_has(
        |bus| bus.received = Some(0),
        Level::Warning,
        "no frame was ever received",
        "the driver was told 16 MHz",
    );
    // The FD controller takes its crystal as it is; a USB adapter has none that a person could read.
    assert!(crystal("mcp251xfd", Some(40_000_000)).contains("told 40 MHz"));
    assert_eq!((crystal("gs_usb", Some(48_000_000)), crystal(MCP2515, None)), (String::new(), String::new()));
}

#[test]
fn row_70_refused_rights_are_as_bad_as_the_file_says() {
    for (wanted, level) in [(RealTime::Warn, Level::Warning), (RealTime::Required, Level::Problem)] {
        let mut facts = healthy();
        facts.config.as_mut().unwrap().real_time = Some(wanted);
        facts.rights.fifo = Err(Errno::EPERM as i32);
        only(&facts, level, "real-time priority is refused to ocpcan", "LimitRTPRIO=49");
        facts.rights.fifo = Ok(());
        facts.rights.memory = Err(Errno::ENOMEM as i32);
        only(&facts, level, "locked memory is refused", "LimitMEMLOCK=infinity");
    }
    // What the service has counts, not what this shell gets.
    let mut facts = at_work();
    facts.rights.fifo = Err(Errno::EPERM as i32);
    assert!(!has_problem(&judge(&facts)));
    facts.running.as_mut().unwrap().threads[1].2 = None;
    only(&facts, Level::Warning, "thread watchdog runs without", "LimitRTPRIO=49");
    facts.running.as_mut().unwrap().threads[1].2 = Some(10);
    only(&facts, Level::Warning, "FIFO 10 in place of 45", "LimitRTPRIO=49");
    let mut facts = at_work();
    facts.running.as_mut().unwrap().locked_kib = Some(0);
    only(&facts, Level::Warning, "not locked", "LimitMEMLOCK");
    // A desk asks for nothing.
    let mut facts = healthy();
    facts.config.as_mut().unwrap().real_time = None;
    facts.rights.fifo = Err(Errno::EPERM as i32);
    assert!(judge(&facts).iter().all(|finding| finding.level == Level::Ok));
}

#[test]
fn row_104_a_gateway_with_another_file_or_version_is_named() {
    let mut facts = at_work();
    facts.config.as_mut().unwrap().digest = "ffffffffffffffff".to_owned();
    only(&facts, Level::Warning, "the file is ffffffffffffffff by now", "systemctl reload");
    let answer = |change: fn(&mut Answer)| {
        let mut facts = at_work();
        change(facts.running.as_mut().unwrap().answer.as_mut().unwrap());
        facts
    };
    only(&answer(|a| a.version = "0.0.1 (old)".to_owned()), Level::Warning, "version 0.0.1 (old)", "restart");
    only(
        &answer(|a| a.faults = vec!["OCP is silent".to_owned()]),
        Level::Warning,
        "OCP is silent",
        "ocpcan status",
    );
    only(&answer(|a| a.state = "LOCKOUT".to_owned()), Level::Problem, "LOCKOUT", "ocpcan status");
    only(
        &answer(|a| (a.connected, a.why) = (Some(false), Some("refused".to_owned()))),
        Level::Problem,
        "not connected: refused",
        "ocp.address",
    );
    let mut facts = at_work();
    facts.running.as_mut().unwrap().answer = Err("no answer within 1000 ms".to_owned());
    let findings = judge(&facts);
    assert!(findings.iter().any(|f| f.area == "Gateway" && f.level == Level::Warning), "{findings:#?}");
    assert!(findings.iter().any(|f| f.area == "OCP" && f.text.contains("not called")), "{findings:#?}");
}

#[test]
fn a_port_is_free_held_by_the_gateway_or_somebody_elses() {
    let mut facts = healthy();
    facts.ports[0].free = Err(Errno::EADDRINUSE as i32);
    only(&facts, Level::Problem, "another program listens there", "sport = :45451");
    facts.ports[0].free = Err(Errno::EADDRNOTAVAIL as i32);
    only(&facts, Level::Problem, "no address of this computer", "ip -br address");
    facts.ports[0].free = Err(Errno::EACCES as i32);
    only(&facts, Level::Problem, "Permission denied", "1024");
    let mut facts = at_work();
    facts.ports[0].free = Ok(());
    only(&facts, Level::Warning, "free, although the gateway runs", "its log");
}

#[test]
fn an_ocp_server_that_is_not_reached_is_a_problem() {
    let mut facts = healthy();
    facts.peer.as_mut().unwrap().reached = Some(Err("connection refused".to_owned()));
    only(&facts, Level::Problem, "connection refused", "start the Streamer's OCP server");
}

#[test]
fn clocks_and_what_is_not_known_of_them() {
    let mut facts = healthy();
    facts.clock.is_synchronised = Some(false);
    only(&facts, Level::Warning, "not synchronised", "set-ntp");
    facts.clock.is_synchronised = None;
    only(&facts, Level::Warning, "does not say", "timedatectl");
    let mut facts = healthy();
    facts.clock.source = Some("jiffies".to_owned());
    only(&facts, Level::Warning, "jiffies", "clocksource");
    facts.clock.source = None;
    only(&facts, Level::Warning, "does not say", "monotonic");
}

#[test]
fn row_78_undervoltage_and_heat_are_told() {
    let mut facts = healthy();
    facts.power.undervoltage = Some(true);
    only(&facts, Level::Problem, "undervoltage", "stronger supply");
    let mut facts = healthy();
    facts.power.throttled = Some(true);
    only(&facts, Level::Problem, "slowed down", "heat sink");
    let mut facts = healthy();
    facts.power.was_low = Some(true);
    only(&facts, Level::Warning, "since this computer was started, 48.0 degrees C", "stronger supply");
    let mut facts = healthy();
    facts.power = Power { temperature_milli_c: Some(80_000), ..Power::default() };
    only(&facts, Level::Problem, "too hot, 80.0 degrees C", "air");
    facts.power = Power::default();
    assert!(judge(&facts).iter().all(|finding| finding.level == Level::Ok));
}

#[test]
fn before_there_is_a_configuration_the_interfaces_are_judged_all_the_same() {
    let mut facts = Facts { config: Err(Unusable::NotWritten), peer: None, ports: Vec::new(), ..healthy() };
    facts.buses[0].name = facts.buses[0].interface.clone();
    only(&facts, Level::Problem, "not configured yet", "examples");
    let can0 = judge(&facts).into_iter().find(|finding| finding.area == "Bus").unwrap();
    assert!(can0.text.starts_with("can0: up, "), "{}", can0.text);
    facts.buses.clear();
    let told: Vec<_> = judge(&facts).into_iter().filter(|finding| finding.level != Level::Ok).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(
        told[1].text.contains("no CAN interface") && told[1].remedy.as_ref().unwrap().contains("config.txt")
    );
}

#[test]
fn a_service_that_does_not_run_or_cannot_read_its_files_is_told() {
    let with = |change: &dyn Fn(&mut ServiceFacts)| {
        let mut facts = healthy();
        change(facts.service.as_mut().unwrap());
        facts
    };
    let failed = with(&|service| {
        (service.active, service.result) = ("failed".to_owned(), "exit-code".to_owned());
    });
    only(&failed, Level::Problem, "has failed (exit-code)", "journalctl");
    let again = with(&|service| {
        (service.active, service.step) = ("activating".to_owned(), "auto-restart".to_owned());
    });
    only(&again, Level::Problem, "again and again", "journalctl");
    only(
        &with(&|service| service.active = "inactive".to_owned()),
        Level::Warning,
        "does not run",
        "systemctl start",
    );
    only(
        &with(&|service| service.enabled = "disabled".to_owned()),
        Level::Warning,
        "at boot",
        "systemctl enable",
    );
    let dbc = std::path::PathBuf::from("/etc/ocpcan/example.dbc");
    let refused = with(&|service| service.unreadable = vec![(dbc.clone(), Unreadable::Refused(dbc.clone()))]);
    only(&refused, Level::Problem, "ocpcan may not read it", "chmod o+r");
    let hidden =
        with(&|service| service.unreadable = vec![("/opt/x.dbc".into(), Unreadable::Hidden("/opt".into()))]);
    only(&hidden, Level::Problem, "does not see /opt", "/etc/ocpcan");
    let none = Facts { service: None, ..healthy() };
    assert!(judge(&none).iter().all(|finding| finding.area != "Service"));
}

#[test]
fn row_79_a_hardware_watchdog_that_nobody_feeds_is_told() {
    let fed = judge(&healthy()).into_iter().find(|finding| finding.area == "Hardware").unwrap();
    assert_eq!(
        fed.text,
        "watchdog Broadcom BCM2835 Watchdog timer: fed; it resets this computer 10 s after the last feeding"
    );
    let mut facts = healthy();
    facts.watchdogs[0].is_active = false;
    only(&facts, Level::Warning, "not used", "RuntimeWatchdogSec=10s");
    facts.watchdogs.clear();
    only(&facts, Level::Warning, "no watchdog", "bcm2835_wdt");
}

#[test]
fn row_72_a_runtime_directory_that_takes_nothing_is_a_problem() {
    let mut facts = healthy();
    facts.runtime = RuntimeFacts::Refused("/run/ocpcan".into(), "No space left on device".to_owned());
    only(&facts, Level::Problem, "No space left", "df");
    facts.runtime = RuntimeFacts::Open("/run/ocpcan".into());
    only(&facts, Level::Problem, "others may write", "RuntimeDirectory=ocpcan");
    for fine in [
        RuntimeFacts::Missing("/run/ocpcan".into()),
        RuntimeFacts::Others("/run/ocpcan".into(), "ocpcan".to_owned()),
    ] {
        facts.runtime = fine;
        assert!(judge(&facts).iter().all(|finding| finding.level == Level::Ok));
    }
}
