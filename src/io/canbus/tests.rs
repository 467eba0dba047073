//! The port, on the built-in bus, or on the bus that `OCPCAN_TEST_BUS` names (a vcan in the VM).
//!
//! With that variable set, the tests that make the bus fail (`sim_*`) run on the built-in bus all the same: a kernel
//! interface is made to fail from outside, by the scripts in `tests/`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use core::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::*;
use crate::can::Id;
use crate::io::clock;

/// Longer than any step takes on a loaded two-core emulated machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// Time in which something that must not come would have come.
const QUIET: Duration = Duration::from_millis(50);

/// Tests on one kernel bus take turns.
static KERNEL_BUS: Mutex<()> = Mutex::new(());

/// A bus for one test, hub included where it is a built-in one.
struct Bus {
    address: BusAddress,
    hub: Option<Hub>,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl Bus {
    /// The bus of the environment, or a built-in one.
    fn any() -> Self {
        match std::env::var("OCPCAN_TEST_BUS") {
            Ok(name) => {
                let turn = KERNEL_BUS.lock().unwrap_or_else(|e| e.into_inner());
                Self { address: name.parse().unwrap(), hub: None, _turn: Some(turn) }
            }
            Err(_) => Self::sim(),
        }
    }

    /// A built-in bus of its own.
    fn sim() -> Self {
        let name = own_name();
        let hub = Hub::start(&name).unwrap();
        Self { address: BusAddress::Sim(name), hub: Some(hub), _turn: None }
    }

    fn open(&self, options: &PortOptions) -> Port {
        Port::open(&self.address, options).unwrap_or_else(|e| panic!("{e}"))
    }

    fn set(&self, fault: Fault) {
        self.hub.as_ref().unwrap().set(fault).unwrap();
    }
}

/// A name that no other test, in this or another process, uses.
fn own_name() -> BusName {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    BusName::try_from(name.as_str()).unwrap()
}

fn sff(raw: u32) -> Id {
    Id::standard(raw).unwrap()
}

fn frame(raw: u32, payload: &[u8]) -> Frame {
    Frame::data(sff(raw), payload).unwrap()
}

/// Options with echo, all kinds of frames.
fn everything() -> PortOptions {
    PortOptions { errors: true, own_messages: true, fd: true, ..PortOptions::default() }
}

/// The next frame, within the deadline.
fn next(port: &Port) -> Received {
    let deadline = clock::now() + PATIENCE;
    while clock::now() < deadline {
        if let Some(received) = port.recv(Some(PATIENCE)).unwrap() {
            return received;
        }
    }
    panic!("no frame within {PATIENCE:?}");
}

/// The next error of receiving, within the deadline.
fn next_error(port: &Port) -> RecvError {
    let deadline = clock::now() + PATIENCE;
    while clock::now() < deadline {
        if let Err(error) = port.recv(Some(PATIENCE)) {
            return error;
        }
    }
    panic!("no error within {PATIENCE:?}");
}

/// Nothing comes.
fn silent(port: &Port) {
    assert_eq!(port.recv(Some(QUIET)), Ok(None));
}

/// Sends, waiting for room with a deadline.
fn push(port: &Port, frame: &Frame) {
    let deadline = clock::now() + PATIENCE;
    loop {
        match port.try_send(frame) {
            Ok(()) => return,
            Err(SendError::Full) if clock::now() < deadline => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_echo_is_the_senders_alone_and_everybody_knows_it_as_local() {
    let bus = Bus::any();
    let (sender, deaf) = (bus.open(&everything()), bus.open(&PortOptions::default()));
    let other = bus.open(&everything());
    let first = frame(0x101, &[1, 2, 3]);
    sender.try_send(&first).unwrap();
    let echo = next(&sender);
    assert_eq!((echo.frame, echo.own, echo.local), (first, true, true));
    for port in [&deaf, &other] {
        let seen = next(port);
        assert_eq!((seen.frame, seen.own, seen.local), (first, false, true));
        assert_eq!(seen.dropped_total, 0);
    }
    deaf.try_send(&frame(0x102, &[])).unwrap();
    assert_eq!(next(&other).frame.id(), sff(0x102));
    silent(&deaf); // no own messages wanted: no echo
}

#[test]
fn filters_take_exactly_what_they_name() {
    let bus = Bus::any();
    let accept = Accept::Only(vec![sff(0x101), Id::extended(0x18FE_F100).unwrap()]);
    let picky = bus.open(&PortOptions { accept, ..PortOptions::default() });
    let nothing =
        bus.open(&PortOptions { accept: Accept::Only(vec![]), errors: true, ..PortOptions::default() });
    let sender = bus.open(&everything());
    let remote = Frame::remote(sff(0x101), 4).unwrap();
    let wanted = [
        frame(0x101, &[7]),
        Frame::data(Id::extended(0x18FE_F100).unwrap(), &[8]).unwrap(),
        remote,
        frame(0x101, &[9]),
    ];
    push(&sender, &wanted[0]);
    push(&sender, &frame(0x100, &[0]));
    push(&sender, &Frame::data(Id::extended(0x101).unwrap(), &[0]).unwrap());
    push(&sender, &wanted[1]);
    push(&sender, &wanted[2]);
    push(&sender, &Frame::fd(sff(0x101), &[0; 12], false, false).unwrap()); // no FD wanted
    push(&sender, &wanted[3]);
    for expected in wanted {
        assert_eq!(next(&picky).frame, expected);
    }
    silent(&picky);
    silent(&nothing);
    // An error message passes by its own filter, and one from a port is recognised as forged (row 66).
    push(&sender, &Frame::error(crate::can::errorframe::BUS_OFF, [0; 8]));
    let forged = next(&nothing);
    assert!(forged.frame.error_class().unwrap().is_bus_off());
    assert!(forged.local && !forged.own);
    silent(&picky);
}

#[test]
fn fd_frames_travel_whole_and_classic_ports_refuse_them() {
    let bus = Bus::any();
    let classic = bus.open(&PortOptions::default());
    let (sender, receiver) = (bus.open(&everything()), bus.open(&everything()));
    let payload: Vec<u8> = (0..64).collect();
    let fd = Frame::fd(sff(0x7ff), &payload, true, false).unwrap();
    push(&sender, &fd);
    assert_eq!(next(&receiver).frame, fd);
    assert!(next(&sender).own);
    assert!(matches!(classic.try_send(&fd), Err(SendError::Refused(_))));
    silent(&classic);
}

#[test]
fn two_thousand_frames_at_8_000_a_second_arrive_whole_and_in_order() {
    const COUNT: u32 = 2_000;
    const GAP: Duration = Duration::from_micros(125); // 8,000 a second: a full 1 Mbit/s bus
    // What may be on its way where this machine cannot keep up: a default receive buffer holds 278 frames.
    const AHEAD: u32 = 200;
    let bus = Bus::any();
    let sender = bus.open(&PortOptions { own_messages: true, ..PortOptions::default() });
    let receivers = [bus.open(&PortOptions::default()), bus.open(&PortOptions::default())];
    let read = [const { AtomicU32::new(0) }; 3];
    std::thread::scope(|scope| {
        let sender = &sender;
        for (port, count) in receivers.iter().chain([sender]).zip(&read) {
            scope.spawn(move || {
                for n in 0..COUNT {
                    let got = next(port);
                    assert_eq!(got.frame.payload(), n.to_ne_bytes());
                    assert_eq!(got.dropped_total, 0);
                    assert_eq!(got.own, core::ptr::eq(port, sender));
                    count.store(n + 1, Ordering::Relaxed);
                }
            });
        }
        let start = clock::now();
        for n in 0..COUNT {
            let due = start + GAP * n;
            let slowest = || read.iter().map(|c| c.load(Ordering::Relaxed)).min().unwrap_or(0);
            while clock::now() < due || n - slowest() >= AHEAD {
                assert!(clock::now().since(due) < PATIENCE, "a reader stands still at {}", slowest());
                std::thread::yield_now();
            }
            push(sender, &frame(0x300, &n.to_ne_bytes()));
        }
    });
}

#[test]
fn a_slow_reader_loses_only_its_own_frames_and_they_are_counted() {
    const COUNT: u32 = 3_000;
    let bus = Bus::any();
    let sender = bus.open(&PortOptions { own_messages: true, ..PortOptions::default() });
    let slow = bus.open(&PortOptions { rcvbuf: Some(16_384), ..PortOptions::default() });
    for n in 0..COUNT {
        push(&sender, &frame(0x300, &n.to_ne_bytes()));
        assert_eq!(next(&sender).frame.payload(), n.to_ne_bytes()); // the sender loses nothing
    }
    let mut got = 0;
    while let Some(received) = slow.recv(Some(QUIET)).unwrap() {
        assert_eq!(received.frame.payload(), u32::to_ne_bytes(got), "the oldest are kept, in order");
        got += 1;
    }
    assert!(got < COUNT, "the buffer held all {got}");
    push(&sender, &frame(0x301, &[]));
    let last = next(&slow);
    assert_eq!(last.frame.id(), sff(0x301));
    assert_eq!(last.dropped_total, COUNT - got);
}

#[test]
fn facts_tell_a_bus_without_a_wire() {
    let bus = Bus::any();
    let port = bus.open(&PortOptions { priority6: true, sndbuf: Some(65_536), ..PortOptions::default() });
    let facts = port.facts().unwrap();
    assert!(facts.is_up && facts.is_virtual, "{facts:?}");
    assert_eq!(facts.ifindex == 0, bus.address.is_sim());
    assert!(port.is_up());
    assert_eq!(port.malformed_total(), 0);
}

#[test]
fn a_missing_interface_is_named_with_a_remedy() {
    let address: BusAddress = "nosuchcan7".parse().unwrap();
    let error = Port::open(&address, &PortOptions::default()).unwrap_err();
    assert!(matches!(error.cause, OpenCause::NoInterface | OpenCause::NoCanSupport), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with("nosuchcan7: ") && text.contains("sim:nosuchcan7"), "{text}");
}

#[test]
fn sim_link_down_is_told_to_senders_and_once_to_readers() {
    let bus = Bus::sim();
    let (sender, reader) = (bus.open(&everything()), bus.open(&PortOptions::default()));
    bus.set(Fault::Down);
    assert_eq!(sender.try_send(&frame(0x101, &[1])), Err(SendError::Down));
    assert!(!sender.is_up());
    assert_eq!(next_error(&reader), RecvError::Down);
    silent(&reader);
    assert_eq!(next_error(&sender), RecvError::Down);
    let error = Port::open(&bus.address, &PortOptions::default()).unwrap_err();
    assert_eq!(error.cause, OpenCause::Down);
    bus.set(Fault::Clear);
    assert!(sender.is_up());
    push(&sender, &frame(0x101, &[2]));
    assert_eq!(next(&reader).frame, frame(0x101, &[2]), "the same ports go on, and nothing is replayed");
    assert!(next(&sender).own);
}

#[test]
fn sim_a_waiting_reader_is_woken_by_link_down() {
    let bus = Bus::sim();
    let reader = bus.open(&PortOptions::default());
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| next_error(&reader));
        bus.set(Fault::Down);
        assert_eq!(waiting.join().unwrap(), RecvError::Down);
    });
}

#[test]
fn sim_swallowed_frames_are_gone_for_good() {
    let bus = Bus::sim();
    let (sender, reader) = (bus.open(&everything()), bus.open(&PortOptions::default()));
    bus.set(Fault::Swallow(true));
    for n in 0..20 {
        push(&sender, &frame(0x101, &[n])); // each write succeeds
    }
    silent(&sender);
    silent(&reader);
    bus.set(Fault::Clear);
    push(&sender, &frame(0x101, &[99]));
    assert_eq!(next(&reader).frame.payload(), [99]);
    assert_eq!(next(&sender).frame.payload(), [99]);
}

#[test]
fn sim_a_stalled_bus_fills_up_then_replays() {
    let bus = Bus::sim();
    let reader = bus.open(&PortOptions::default());
    let sender = bus.open(&PortOptions { own_messages: true, sndbuf: Some(4_608), ..PortOptions::default() });
    bus.set(Fault::Stall(true));
    let mut taken = 0_u8;
    while sender.try_send(&frame(0x101, &[taken])) == Ok(()) {
        taken += 1;
        assert!(taken < 100, "the buffer never fills");
    }
    assert_eq!(sender.try_send(&frame(0x101, &[taken])), Err(SendError::Full));
    assert!(taken >= 2, "only {taken} frames fit");
    silent(&reader);
    bus.set(Fault::Stall(false));
    for n in 0..taken {
        assert_eq!(next(&reader).frame.payload(), [n], "a stall stores (SAFETY fact 4)");
        assert!(next(&sender).own);
    }
    // Down loses what a stall has stored.
    bus.set(Fault::Stall(true));
    push(&sender, &frame(0x101, &[200]));
    bus.set(Fault::Down);
    bus.set(Fault::Clear);
    assert_eq!(next_error(&reader), RecvError::Down);
    silent(&reader);
}

#[test]
fn sim_a_delayed_bus_delivers_later_echo_included() {
    let bus = Bus::sim();
    let (sender, reader) = (bus.open(&everything()), bus.open(&PortOptions::default()));
    let delay = Duration::from_millis(60);
    bus.set(Fault::Delay(delay));
    let sent = clock::now();
    push(&sender, &frame(0x101, &[1]));
    push(&sender, &frame(0x101, &[2]));
    assert_eq!(next(&reader).frame.payload(), [1]);
    let echo = next(&sender);
    assert!(echo.own && echo.at.since(sent) >= delay, "{:?}", echo.at.since(sent));
    bus.set(Fault::Clear);
    push(&sender, &frame(0x101, &[3]));
    assert_eq!(next(&reader).frame.payload(), [2]);
    assert_eq!(next(&reader).frame.payload(), [3]);
}

#[test]
fn sim_bus_off_is_reported_by_the_driver_and_ends_by_a_restart() {
    let bus = Bus::sim();
    let sender = bus.open(&everything());
    bus.set(Fault::BusOff);
    let report = next(&sender);
    assert!(report.frame.error_class().unwrap().is_bus_off());
    assert!(!report.local && !report.own, "what the driver says is not local");
    push(&sender, &frame(0x101, &[1]));
    silent(&sender);
    bus.set(Fault::Restart);
    assert!(next(&sender).frame.error_class().unwrap().is_restarted());
    push(&sender, &frame(0x101, &[2]));
    assert_eq!(next(&sender).frame.payload(), [2]);
}

#[test]
fn sim_a_foreign_node_is_told_from_a_local_program() {
    let bus = Bus::sim();
    let reader = bus.open(&everything());
    bus.set(Fault::Inject(frame(0x101, &[1])));
    let foreign = next(&reader);
    assert!(!foreign.local && !foreign.own);
}

#[test]
fn sim_an_unplugged_adapter_is_gone_and_comes_back_for_new_ports() {
    let bus = Bus::sim();
    let port = bus.open(&everything());
    bus.set(Fault::Gone);
    assert_eq!(next_error(&port), RecvError::Gone);
    assert_eq!(port.recv(None), Err(RecvError::Gone), "for ever");
    assert_eq!(port.try_send(&frame(0x101, &[])), Err(SendError::Gone));
    assert!(!port.is_up());
    let error = Port::open(&bus.address, &PortOptions::default()).unwrap_err();
    assert_eq!(error.cause, OpenCause::NoInterface);
    bus.set(Fault::Clear);
    let port = bus.open(&everything());
    push(&port, &frame(0x101, &[1]));
    assert!(next(&port).own);
}

#[test]
fn sim_faults_can_be_set_from_elsewhere() {
    let bus = Bus::sim();
    let port = bus.open(&everything());
    let BusAddress::Sim(name) = &bus.address else { panic!("not a built-in bus") };
    let line = FaultLine::connect(name).unwrap();
    line.set(Fault::Swallow(true)).unwrap();
    push(&port, &frame(0x101, &[1]));
    silent(&port);
    line.set(Fault::Clear).unwrap();
    push(&port, &frame(0x101, &[2]));
    assert_eq!(next(&port).frame.payload(), [2]);
}

#[test]
fn sim_when_the_hub_dies_the_next_port_becomes_the_hub() {
    let bus = Bus::sim();
    let (first, second) = (bus.open(&everything()), bus.open(&everything()));
    let BusAddress::Sim(name) = &bus.address else { panic!("not a built-in bus") };
    FaultLine::connect(name).unwrap().set(Fault::End).unwrap();
    assert_eq!(next_error(&first), RecvError::Gone);
    assert_eq!(next_error(&second), RecvError::Gone);
    // Two race for it; one wins and both are on the same bus.
    let ports = std::thread::scope(|scope| {
        let open = || bus.open(&everything());
        [scope.spawn(open), scope.spawn(open)].map(|t| t.join().unwrap())
    });
    push(&ports[0], &frame(0x101, &[5]));
    assert!(next(&ports[0]).own);
    assert_eq!(next(&ports[1]).frame.payload(), [5]);
    FaultLine::connect(name).unwrap().set(Fault::End).unwrap();
}

#[test]
fn sim_when_the_process_of_the_hub_is_killed_another_takes_over() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    let name = own_name();
    let bus = Bus { address: BusAddress::Sim(name.clone()), hub: None, _turn: None };
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "io::canbus::tests::child_that_hosts_a_bus", "--ignored", "--nocapture"])
        .env("OCPCAN_TEST_CHILD", bus.address.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("hosting")), "the child did not start");
    let port = bus.open(&everything());
    push(&port, &frame(0x101, &[1]));
    assert_eq!(next(&port).frame.payload(), [1]);
    assert_eq!(next(&port).frame.payload(), [2], "the answer of the other process");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(next_error(&port), RecvError::Gone);
    assert_eq!(port.try_send(&frame(0x101, &[1])), Err(SendError::Gone));
    let ports = [bus.open(&everything()), bus.open(&everything())];
    push(&ports[0], &frame(0x101, &[3]));
    assert!(next(&ports[0]).own);
    assert_eq!(next(&ports[1]).frame.payload(), [3]);
    FaultLine::connect(&name).unwrap().set(Fault::End).unwrap();
}

#[test]
#[ignore = "the other process of the test above"]
fn child_that_hosts_a_bus() {
    // Run by hand or with all ignored tests, there is no bus to host and nothing to show.
    let Ok(address) = std::env::var("OCPCAN_TEST_CHILD") else { return };
    let port = Port::open(&address.parse().unwrap(), &PortOptions::default()).unwrap();
    println!("hosting");
    let got = next(&port);
    assert!(got.local && !got.own);
    push(&port, &frame(0x101, &[2]));
    // Until the parent kills this process or has died itself.
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn sim_noise_on_the_hubs_socket_harms_nobody() {
    let bus = Bus::sim();
    let port = bus.open(&everything());
    let BusAddress::Sim(name) = &bus.address else { panic!("not a built-in bus") };
    let noise = wire::dial(name).unwrap();
    for message in [&[0_u8][..], &[1], &[2], &[3], &[2, 1, 2, 3], &[3, 99, 0, 0, 0, 0], &[0xff; 3000]] {
        let _ = wire::post(noise.as_fd(), message);
    }
    push(&port, &frame(0x101, &[1]));
    assert!(next(&port).own);
}

/// Runs `ip` in the guest; these tests own its interfaces.
fn ip(words: &str) {
    let status = std::process::Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}: {status}");
}

/// A vcan interface of its own.
fn own_vcan(name: &str) -> Bus {
    ip(&format!("link add {name} type vcan"));
    ip(&format!("link set {name} mtu 72 up"));
    Bus { address: name.parse().unwrap(), hub: None, _turn: None }
}

#[test]
#[ignore = "needs root and vcan: runs in the VM"]
fn kernel_link_down_is_told_to_senders_and_once_to_readers() {
    let bus = own_vcan("vcan71");
    let (sender, reader) = (bus.open(&everything()), bus.open(&PortOptions::default()));
    ip("link set vcan71 down");
    assert_eq!(sender.try_send(&frame(0x101, &[1])), Err(SendError::Down));
    assert!(!sender.is_up());
    assert_eq!(next_error(&reader), RecvError::Down);
    silent(&reader);
    let error = Port::open(&bus.address, &PortOptions::default()).unwrap_err();
    assert_eq!(error.cause, OpenCause::Down);
    ip("link set vcan71 up");
    assert!(sender.is_up());
    push(&sender, &frame(0x101, &[2]));
    assert_eq!(next(&reader).frame, frame(0x101, &[2]), "the same ports go on");
    assert!(next(&sender).own);
}

#[test]
#[ignore = "needs root and vcan: runs in the VM"]
fn kernel_an_unplugged_adapter_is_gone_and_comes_back_for_new_ports() {
    let bus = own_vcan("vcan72");
    let (port, sender) = (bus.open(&everything()), bus.open(&PortOptions::default()));
    let before = port.facts().unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| next_error(&port));
        ip("link del vcan72");
        // Deleting takes it down first: either is told, and gone follows.
        assert!(matches!(waiting.join().unwrap(), RecvError::Down | RecvError::Gone));
    });
    assert_eq!(sender.try_send(&frame(0x101, &[])), Err(SendError::Gone));
    assert!(!port.is_up());
    assert_eq!(port.facts(), Err(OpenCause::NoInterface));
    let error = Port::open(&bus.address, &PortOptions::default()).unwrap_err();
    assert_eq!(error.cause, OpenCause::NoInterface);
    let again = own_vcan("vcan72");
    let port = again.open(&everything());
    assert_ne!(port.facts().unwrap().ifindex, before.ifindex);
    push(&port, &frame(0x101, &[1]));
    assert!(next(&port).own);
}

#[test]
#[ignore = "needs root and vcan: runs in the VM"]
fn kernel_interfaces_without_can_or_fd_are_named() {
    let cause =
        |name: &str, options: &PortOptions| Port::open(&name.parse().unwrap(), options).unwrap_err().cause;
    assert_eq!(cause("lo", &PortOptions::default()), OpenCause::NotCan);
    let bus = own_vcan("vcan73");
    ip("link set vcan73 down");
    ip("link set vcan73 mtu 16 up");
    assert_eq!(cause("vcan73", &everything()), OpenCause::NoFd);
    let port = bus.open(&PortOptions { own_messages: true, ..PortOptions::default() });
    push(&port, &frame(0x101, &[1]));
    assert!(next(&port).own);
    let facts = port.facts().unwrap();
    assert_eq!(facts.driver.as_str(), "vcan");
    assert!(facts.is_virtual && facts.is_up && facts.is_running);
}

#[test]
#[ignore = "needs two controllers on one wire, named by OCPCAN_TEST_WIRE: runs in the VM"]
fn wire_a_frame_from_the_other_end_is_not_local() {
    let names = std::env::var("OCPCAN_TEST_WIRE").unwrap();
    let (left, right) = names.split_once(',').unwrap();
    let open =
        |name: &str| Port::open(&name.parse().unwrap(), &PortOptions { fd: false, ..everything() }).unwrap();
    let (left, right) = (open(left), open(right));
    let facts = left.facts().unwrap();
    assert!(!facts.is_virtual && facts.has_driver_echo && facts.is_running, "{facts:?}");
    assert!(!facts.driver.is_empty() && facts.queue_len > 0 && facts.ifindex > 0, "{facts:?}");
    for n in 0..100 {
        push(&left, &frame(0x101, &[n]));
        let (echo, seen) = (next(&left), next(&right));
        assert!(echo.own && echo.local);
        assert!(!seen.own && !seen.local, "what comes by wire is not local");
        assert_eq!((echo.frame, seen.frame), (frame(0x101, &[n]), frame(0x101, &[n])));
    }
}

#[test]
#[ignore = "needs an slcan interface, named by OCPCAN_TEST_SLCAN: runs in the VM"]
fn slcan_a_serial_adapter_is_no_virtual_bus_and_its_echo_proves_nothing() {
    let name = std::env::var("OCPCAN_TEST_SLCAN").unwrap();
    let port = Port::open(&name.parse().unwrap(), &PortOptions { fd: false, ..everything() }).unwrap();
    let facts = port.facts().unwrap();
    println!("{facts:?}");
    assert!(!facts.is_virtual && !facts.has_driver_echo && facts.is_up, "{facts:?}");
    push(&port, &frame(0x123, &[0xaa]));
    assert!(next(&port).own, "the kernel echoes all the same");
}

#[test]
fn many_frames_go_and_come_in_one_call_and_a_full_port_says_so() {
    let name: BusName = "many-frames".parse().unwrap();
    let _hub = Hub::start(&name).unwrap();
    let address = BusAddress::Sim(name);
    let sender = Port::open(&address, &PortOptions { sndbuf: Some(0), ..PortOptions::default() }).unwrap();
    let wanted: Vec<IdMask> = vec!["100:700".parse().unwrap()];
    let reader =
        Port::open(&address, &PortOptions { accept: Accept::Masked(wanted), ..PortOptions::default() })
            .unwrap();
    let frames: Vec<Frame> = (0..200_u32)
        .map(|n| Frame::data(Id::standard(0x100 | n & 1 << 8 | n & 0xFF).unwrap(), &[7]).unwrap())
        .collect();
    let (mut write, mut read) = (Batch::new(), Batch::new());
    let (mut sent, mut got) = (0, Vec::new());
    let deadline = clock::now() + Duration::from_secs(10);
    while got.len() < frames.len() && clock::now() < deadline {
        let (taken, refused) = sender.send_many(&frames[sent..], &mut write);
        assert!(refused.is_none_or(|e| e == SendError::Full), "{refused:?}");
        sent += taken;
        reader.recv_many(&mut read).unwrap();
        got.extend_from_slice(read.frames());
    }
    assert_eq!(got, frames, "in order, whole");
}
