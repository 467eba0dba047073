//! Asks the kernel, the file system, the running gateway and the network.
//!
//! Owns every question and its limit of time. Relies on `io`. Never judges, never sends a frame, and leaves nothing behind: the
//! sockets are closed and the one file that it tries to write is removed.

#![allow(
    clippy::disallowed_methods,
    reason = "a command that tries a right in a thread of its own, and waits for peers"
)]

mod service;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use nix::sys::statvfs::statvfs;
use nix::unistd::{Uid, User};
use serde_json::Value;

use super::facts::{
    Answer, BusFacts, ClockFacts, ConfigFacts, Facts, HardwareWatchdog, PeerFacts, PortFacts, Rights,
    Running, RuntimeFacts, Seal, Unusable,
};
use crate::cli::station::clean;
use crate::cli::{DEFAULT_CONFIG, seal};
use crate::config::{self, Loaded};
use crate::io::canbus::{Accept, BusAddress, OpenError, Port, PortOptions, controller, queue};
use crate::io::power::Power;
use crate::io::runtime::{self, BusLock};
use crate::io::{clock, sys};
use crate::signals::plan::{BusPlan, Echo};
use crate::threads::rcsp_client::{ClientOptions, RcspClient};
use crate::time::{Duration, millis_f64};
use crate::topology::Thread;

/// A peer that does not answer in this time does not answer: both are on this machine or in this vehicle.
const PEER_LIMIT: Duration = Duration::from_secs(1);

/// What is kept of a text that came over a socket.
const TEXT_CHARS: usize = 200;

/// What of a configuration of either role is asked about.
struct Subject {
    facts: ConfigFacts,
    buses: Vec<BusPlan>,
    peer: (&'static str, &'static str, SocketAddr),
    listens: Vec<(String, SocketAddr)>,
    rcsp: Option<SocketAddr>,
}

impl Subject {
    fn of(loaded: Loaded, path: &Path, sys: &Path) -> Self {
        let mut subject = Self::without_seal(loaded);
        subject.facts.seal = match seal::check(path, &subject.facts.digest, sys) {
            Ok(true) => Seal::Holds,
            Ok(false) => Seal::None,
            Err(broken) => Seal::Broken(broken.to_string()),
        };
        subject
    }

    fn without_seal(loaded: Loaded) -> Self {
        match loaded {
            Loaded::Vehicle(config) => {
                let rcsp = config.rcsp.as_ref().map(|rcsp| rcsp.listen);
                let mut listens: Vec<(String, SocketAddr)> = Vec::new();
                listens.extend(rcsp.map(|at| ("rcsp.listen".to_owned(), at)));
                listens.extend(config.tunnels.iter().map(|tunnel| {
                    let bus = config.plan.buses.get(tunnel.bus).map_or("?", |bus| &bus.name);
                    (format!("tcpcan.{bus}.listen"), tunnel.listen)
                }));
                Self {
                    facts: ConfigFacts {
                        role: "vehicle",
                        name: config.plan.vehicle,
                        digest: config.digest,
                        descriptions: config.descriptions,
                        warnings: config.warnings,
                        seal: Seal::None,
                        real_time: Some(config.real_time),
                    },
                    buses: config.plan.buses,
                    peer: ("ocp.address", "the Streamer's OCP server", config.ocp.address),
                    listens,
                    rcsp,
                }
            }
            Loaded::Operator(config) => Self {
                facts: ConfigFacts {
                    role: "operator",
                    name: config.name,
                    digest: config.digest,
                    descriptions: config.descriptions,
                    warnings: config.warnings,
                    seal: Seal::None,
                    real_time: None,
                },
                buses: config.plan.buses,
                peer: ("player.address", "the Player's OCP server", config.player.address),
                listens: Vec::new(),
                rcsp: None,
            },
        }
    }
}

/// Asks everything.
pub(super) fn gather(path: &Path, sys: &Path) -> Facts {
    let loaded = config::load_either(path).map(|loaded| Subject::of(loaded, path, sys));
    let (config, subject) = match loaded {
        Ok(subject) => (Ok(subject.facts.clone()), Some(subject)),
        Err(_) if is_blank(path) => (Err(Unusable::NotWritten), None),
        Err(problems) => (Err(Unusable::Wrong(problems.iter().map(ToString::to_string).collect())), None),
    };
    let buses = subject
        .as_ref()
        .map_or_else(|| can_interfaces(&sys.join("class/net")), |subject| subject.buses.clone());
    let running = subject.as_ref().and_then(running);
    let peer = subject.as_ref().map(|subject| {
        let (key, name, address) = subject.peer;
        // A second caller might take the server from the gateway that drives.
        let reached = running.is_none().then(|| reach(address));
        PeerFacts { key, name, address, reached }
    });
    let descriptions = config.as_ref().map_or(&[][..], |config| &config.descriptions);
    let mut files: Vec<PathBuf> =
        core::iter::once(path.to_path_buf()).chain(descriptions.iter().map(|one| one.path.clone())).collect();
    files.extend(Some(seal::path(path)).filter(|seal| seal.exists()));
    Facts {
        path: path.to_path_buf(),
        config,
        buses: buses.iter().map(|bus| ask_bus(bus, sys)).collect(),
        rights: rights(),
        running,
        clock: ClockFacts {
            source: line(&sys.join("devices/system/clocksource/clocksource0/current_clocksource")),
            is_synchronised: sys::is_clock_synchronised(),
        },
        ports: subject.as_ref().map_or_else(Vec::new, |subject| {
            let port = |(key, address): &(String, SocketAddr)| PortFacts {
                key: key.clone(),
                address: *address,
                free: try_port(*address),
            };
            subject.listens.iter().map(port).collect()
        }),
        peer,
        power: Power::read(sys),
        watchdogs: watchdogs(&sys.join("class/watchdog")),
        runtime: look_at(&runtime::usual_path()),
        service: (path == Path::new(DEFAULT_CONFIG)).then(|| service::ask(&files)).flatten(),
    }
}

/// What the file says that the package brings.
const SHIPPED: &str = "While this file holds comments only, the service is not started";

/// Whether nobody has written a configuration yet: the rule by which the package does not start its service.
fn is_blank(path: &Path) -> bool {
    let is_comment = |line: &str| line.is_empty() || line.starts_with('#');
    fs::read_to_string(path)
        .is_ok_and(|text| text.contains(SHIPPED) && text.lines().map(str::trim).all(is_comment))
}

/// Every CAN interface of this computer, as a bus of its name.
fn can_interfaces(folder: &Path) -> Vec<BusPlan> {
    let is_can = |interface: &String| {
        line(&folder.join(interface).join("type")).and_then(|kind| kind.parse().ok())
            == Some(libc::ARPHRD_CAN)
    };
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> =
        entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).filter(is_can).collect();
    names.sort();
    let bus =
        |interface: String| BusPlan { name: interface.clone(), interface, fd: false, echo: Echo::Required };
    names.into_iter().map(bus).collect()
}

/// What the kernel has of them; whether one is fed stands beside its name.
fn watchdogs(folder: &Path) -> Vec<HardwareWatchdog> {
    let mut found: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .map(|path| HardwareWatchdog {
            name: line(&path.join("identity")).unwrap_or_else(|| path.display().to_string()),
            is_active: line(&path.join("state")).is_some_and(|state| state == "active"),
            timeout_s: line(&path.join("timeout")).and_then(|timeout| timeout.parse().ok()),
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The only line of a file.
fn line(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| clean(text.trim(), TEXT_CHARS))
}

fn ask_bus(plan: &BusPlan, sys: &Path) -> BusFacts {
    let address = plan.interface.parse::<BusAddress>().ok();
    let kernel = address.as_ref().filter(|address| !address.is_sim());
    let count = |file: &str| {
        line(&sys.join("class/net").join(kernel?.name()).join("statistics").join(file))?.parse().ok()
    };
    BusFacts {
        name: plan.name.clone(),
        interface: plan.interface.clone(),
        is_built_in: address.as_ref().is_some_and(BusAddress::is_sim),
        echo: plan.echo,
        opened: kernel.map(|address| {
            // Takes no frame: it only shows whether it could.
            let nothing = Accept::Only(Vec::new());
            let options = PortOptions { accept: nothing, fd: plan.fd, ..PortOptions::default() };
            let port = Port::open(address, &options)?;
            port.facts().map_err(|cause| OpenError { bus: address.clone(), cause })
        }),
        controller: kernel.and_then(controller::ask_kernel),
        unfit_queue: kernel.and_then(queue::unfit),
        received: count("rx_packets"),
        receive_errors: count("rx_errors"),
    }
}

fn user_name(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| format!("user {uid}"), |user| user.name)
}

/// What a process of this user gets. Tried, not read: limits, capabilities and the kernel all have a say.
fn rights() -> Rights {
    let priority = Thread::Watchdog.spec().priority.unwrap_or(1);
    let tried = std::thread::Builder::new()
        .spawn(move || sys::set_fifo_priority(priority).map_err(|errno| errno as i32))
        .map(std::thread::JoinHandle::join);
    let fifo = match tried {
        Ok(Ok(result)) => result,
        _ => Err(Errno::EAGAIN as i32),
    };
    // It holds for the rest of this process, which is short.
    Rights {
        user: user_name(nix::unistd::geteuid()),
        fifo,
        memory: sys::lock_memory().map_err(|errno| errno as i32),
    }
}

/// The gateway that holds a bus of this configuration.
fn running(subject: &Subject) -> Option<Running> {
    let held = subject
        .buses
        .iter()
        .filter_map(|bus| bus.interface.parse::<BusAddress>().ok())
        .find(|address| BusLock::is_taken(address) == Ok(true))?;
    let pid = BusLock::holder(&held);
    let folder = pid.map(|pid| PathBuf::from(format!("/proc/{pid}")));
    let user = folder
        .as_ref()
        .and_then(|folder| fs::metadata(folder).ok())
        .map(|meta| user_name(Uid::from_raw(meta.uid())));
    Some(Running {
        pid,
        user,
        threads: folder.as_deref().map(threads).unwrap_or_default(),
        locked_kib: folder.as_deref().and_then(locked_kib),
        answer: subject.rcsp.map_or_else(|| Err("rcsp is off in this file".to_owned()), question),
    })
}

/// The threads of a process that should be at real-time priority.
fn threads(process: &Path) -> Vec<(String, i32, Option<i32>)> {
    let tasks = fs::read_dir(process.join("task")).into_iter().flatten();
    let mut threads: Vec<_> = tasks
        .filter_map(|task| {
            let task = task.ok()?.path();
            let name = line(&task.join("comm"))?;
            let wanted = Thread::ALL.into_iter().find_map(|thread| {
                let spec = thread.spec();
                let is_it = name == spec.name || name.starts_with(&format!("{}-", spec.name));
                spec.priority.filter(|_| is_it)
            })?;
            // Whole: the fields lie far behind in a line of over 300 bytes.
            let stat = fs::read_to_string(task.join("stat")).ok()?;
            Some((name, wanted, fifo_priority(&stat)))
        })
        .collect();
    threads.sort();
    threads
}

/// The priority under `SCHED_FIFO` in a line of `/proc/PID/stat` (proc(5): fields 40 and 41); none under another policy.
fn fifo_priority(stat: &str) -> Option<i32> {
    const FIFO: &str = "1";
    // The name in the second field may hold anything; the third begins behind its parenthesis.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(37);
    let priority = fields.next()?.parse().ok()?;
    (fields.next()? == FIFO).then_some(priority)
}

fn locked_kib(process: &Path) -> Option<u64> {
    let text = fs::read_to_string(process.join("status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmLck:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// Asks the gateway how it is.
fn question(address: SocketAddr) -> Result<Answer, String> {
    let host = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    let options = ClientOptions { connect_timeout: PEER_LIMIT, command_timeout: PEER_LIMIT, stop: None };
    let mut client =
        RcspClient::connect(&host.to_string(), address.port(), options).map_err(|error| error.to_string())?;
    let answer = client.call("GwGetStatus", None).map_err(|error| error.to_string())?;
    let status: Value = answer.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default();
    Ok(read_answer(&status))
}

/// What of the answer is judged. What is not there is empty.
fn read_answer(status: &Value) -> Answer {
    let text = |value: &Value, key: &str| {
        value.get(key).and_then(Value::as_str).map(|text| clean(text, TEXT_CHARS)).unwrap_or_default()
    };
    let list = |key: &str| status.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let link = list("Links").first();
    Answer {
        version: text(status, "Version"),
        digest: text(status, "ConfigDigest"),
        state: text(status, "State"),
        faults: list("Faults").iter().map(|fault| text(fault, "Text")).collect(),
        connected: link.and_then(|link| link.get("Connected")?.as_bool()),
        why: link.map(|link| text(link, "Why")).filter(|why| !why.is_empty()),
    }
}

/// Whether a listener could take this address now. Nobody can connect meanwhile: it does not listen.
fn try_port(address: SocketAddr) -> Result<(), i32> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let tried = || {
        let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        // As the gateway does: what is left of old connections is no obstacle.
        setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        bind(socket.as_raw_fd(), &SockaddrStorage::from(address))
    };
    tried().map_err(|errno: Errno| errno as i32)
}

fn reach(address: SocketAddr) -> Result<f64, String> {
    let from = clock::now();
    match TcpStream::connect_timeout(&address, PEER_LIMIT) {
        Ok(_) => Ok(millis_f64(clock::now().since(from))),
        Err(error) => Err(error.raw_os_error().map_or_else(
            || format!("no answer within {} ms", PEER_LIMIT.as_millis()),
            |errno| Errno::from_raw(errno).desc().to_lowercase(),
        )),
    }
}

/// The runtime directory as it is. Made by nobody here: it would be the wrong user's.
fn look_at(path: &Path) -> RuntimeFacts {
    let path = path.to_path_buf();
    let Ok(meta) = fs::symlink_metadata(&path) else { return RuntimeFacts::Missing(path) };
    if !meta.is_dir() || meta.mode() & 0o022 != 0 {
        return RuntimeFacts::Open(path);
    }
    // Not written to, or what root made there would be the gateway's trouble; that it is full shows all the same.
    let is_full = statvfs(&path).is_ok_and(|there| there.blocks() > 0 && there.blocks_available() == 0);
    if is_full {
        return RuntimeFacts::Refused(path, "no space left on its file system".to_owned());
    }
    if meta.uid() != nix::unistd::geteuid().as_raw() {
        let owner = user_name(Uid::from_raw(meta.uid()));
        return RuntimeFacts::Others(path, owner);
    }
    // As large as what the gateway keeps there: a full file system shows now.
    let probe = path.join(format!(".doctor-{}", std::process::id()));
    let written = fs::write(&probe, [0; 4_096]);
    let _ = fs::remove_file(&probe);
    match written {
        Ok(()) => RuntimeFacts::Writable(path),
        Err(error) => RuntimeFacts::Refused(path, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_configuration_every_can_interface_is_looked_at() {
        let folder = std::env::temp_dir().join(format!("ocpcan-links-{}", std::process::id()));
        for (name, kind) in [("can1", "280"), ("can0", "280"), ("eth0", "1"), ("lo", "772")] {
            fs::create_dir_all(folder.join(name)).unwrap();
            fs::write(folder.join(name).join("type"), format!("{kind}\n")).unwrap();
        }
        let names: Vec<_> = can_interfaces(&folder).into_iter().map(|bus| bus.interface).collect();
        assert_eq!(names, ["can0", "can1"]);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_shipped_file_is_no_configuration_and_what_is_left_of_one_is_a_wrong_one() {
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/debian/ocpcan.toml");
        assert!(is_blank(Path::new(shipped)));
        let file = std::env::temp_dir().join(format!("ocpcan-blank-{}", std::process::id()));
        assert!(!is_blank(&file), "not there");
        let written = format!("{}\nrole = \"vehicle\"\n", fs::read_to_string(shipped).unwrap());
        for text in ["", "# what was left after a power cut\n", written.as_str()] {
            fs::write(&file, text).unwrap();
            assert!(!is_blank(&file), "{text}");
        }
        fs::remove_file(&file).unwrap();
    }

    #[test]
    fn a_threads_priority_is_read_from_the_longest_line() {
        let process = std::env::temp_dir().join(format!("ocpcan-threads-{}", std::process::id()));
        let task = process.join("task/4194304");
        fs::create_dir_all(&task).unwrap();
        fs::write(task.join("comm"), "can-vehicle\n").unwrap();
        // Every number of proc(5) as long as it gets: a computer that has run for months.
        let long = ["18446744073709551615"; 37].join(" ");
        fs::write(task.join("stat"), format!("4194304 (can-vehicle) {long} 40 1 0 0 0\n")).unwrap();
        let found = threads(&process);
        fs::remove_dir_all(&process).unwrap();
        assert_eq!(found, [("can-vehicle".to_owned(), 40, Some(40))]);
    }

    #[test]
    fn a_threads_priority_is_read_behind_any_name() {
        let rest = "S 1 1 1 0 -1 4194368 1 0 0 0 0 0 0 0 -46 0 9 0 100 1 1 18446744073709551615 0 0 0 0 0 0 0 0 0 0 0 0 -1 1 45";
        assert_eq!(fifo_priority(&format!("7 (watch) dog) {rest} 1 0 0")), Some(45));
        assert_eq!(fifo_priority(&format!("7 (watchdog) {rest} 0 0 0")), None, "another policy");
        assert_eq!(fifo_priority("7 (watchdog) S 1"), None);
        assert_eq!(fifo_priority(""), None);
    }

    #[test]
    fn an_answer_is_read_whatever_is_missing() {
        let status = serde_json::json!({
            "State": "SAFE", "Version": "1 (a)", "ConfigDigest": "00", "Faults": [{ "Text": "no connection\u{1b} to OCP" }],
            "Links": [{ "Connected": false, "Why": "refused" }],
        });
        let answer = read_answer(&status);
        assert_eq!(
            (answer.state.as_str(), answer.connected, answer.why.as_deref()),
            ("SAFE", Some(false), Some("refused"))
        );
        assert!(!answer.faults[0].contains('\u{1b}'));
        let nothing = read_answer(&Value::Null);
        assert_eq!((nothing.state.as_str(), nothing.connected, nothing.faults.len()), ("", None, 0));
    }

    #[test]
    fn a_port_is_free_or_not_and_is_so_afterwards() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(try_port(address), Err(Errno::EADDRINUSE as i32));
        reach(address).unwrap();
        drop(listener);
        assert_eq!(try_port(address), Ok(()));
        assert_eq!(try_port(address), Ok(()));
        assert!(reach(address).unwrap_err().contains("refused"));
        assert_eq!(try_port("192.0.2.1:1".parse().unwrap()), Err(Errno::EADDRNOTAVAIL as i32));
    }

    #[test]
    fn the_runtime_directory_is_looked_at_and_never_made() {
        let path = std::env::temp_dir().join(format!("ocpcan-doctor-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        assert_eq!(look_at(&path), RuntimeFacts::Missing(path.clone()));
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        let mode =
            |bits| fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(bits)).unwrap();
        mode(0o777);
        assert_eq!(look_at(&path), RuntimeFacts::Open(path.clone()));
        mode(0o700);
        assert_eq!(look_at(&path), RuntimeFacts::Writable(path.clone()));
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0, "nothing is left");
        fs::remove_dir(&path).unwrap();
    }
}
