//! What was found, before anybody judges it.
//!
//! Owns plain records. Relies on the types of what is described. Contains no decision, so that every verdict can be tested
//! without the machine that would cause it.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{Description, RealTime};
use crate::io::canbus::controller::Controller;
use crate::io::canbus::{Facts as Interface, OpenError};
use crate::io::power::Power;
use crate::signals::plan::Echo;

/// Everything at one moment.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The file that was asked for.
    pub(super) path: PathBuf,
    pub(super) config: Result<ConfigFacts, Unusable>,
    /// In the order of the file; without one every CAN interface of this computer.
    pub(super) buses: Vec<BusFacts>,
    pub(super) rights: Rights,
    /// A gateway that holds one of the buses.
    pub(super) running: Option<Running>,
    pub(super) clock: ClockFacts,
    pub(super) ports: Vec<PortFacts>,
    /// None without a configuration.
    pub(super) peer: Option<PeerFacts>,
    pub(super) power: Power,
    pub(super) watchdogs: Vec<HardwareWatchdog>,
    pub(super) runtime: RuntimeFacts,
    /// The installed service; none where it is not, or another file than its own was asked for.
    pub(super) service: Option<ServiceFacts>,
}

/// What systemd says of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ServiceFacts {
    /// `ActiveState`, `SubState`, `Result` and `UnitFileState`, in systemd's words.
    pub(super) active: String,
    pub(super) step: String,
    pub(super) result: String,
    pub(super) enabled: String,
    pub(super) user: String,
    /// Files that it needs and cannot read.
    pub(super) unreadable: Vec<(PathBuf, Unreadable)>,
}

/// Why the service cannot read a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// By the mode of the file, or of a folder on the way to it.
    Refused(PathBuf),
    /// It lies in a folder that the service's sandbox hides.
    Hidden(PathBuf),
}

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Unusable {
    /// The file is the one that the package brought, comments alone.
    NotWritten,
    /// Its problems, one line each.
    Wrong(Vec<String>),
}

/// What the other questions need of a configuration, and what a person wants to know of it.
#[derive(Debug, Clone, Default)]
pub(super) struct ConfigFacts {
    pub(super) role: &'static str,
    /// Of the vehicle or the desk.
    pub(super) name: String,
    pub(super) digest: String,
    pub(super) descriptions: Vec<Description>,
    pub(super) warnings: Vec<String>,
    /// Whether it is sealed, or why its seal is broken.
    pub(super) seal: Seal,
    /// Whether real-time priority and locked memory are wanted, and how much; none at a desk.
    pub(super) real_time: Option<RealTime>,
}

/// The seal of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Seal {
    #[default]
    None,
    Holds,
    Broken(String),
}

/// One bus.
#[derive(Debug, Clone)]
pub(super) struct BusFacts {
    pub(super) name: String,
    pub(super) interface: String,
    pub(super) is_built_in: bool,
    pub(super) echo: Echo,
    /// What the interface says of itself, or why it cannot be opened; none for the built-in bus, which is made when needed.
    pub(super) opened: Option<Result<Interface, OpenError>>,
    pub(super) controller: Option<Controller>,
    /// A queueing discipline that may drop or reorder frames.
    pub(super) unfit_queue: Option<String>,
    /// Frames received and receive errors since the driver was loaded, where the kernel counts them.
    pub(super) received: Option<u64>,
    pub(super) receive_errors: Option<u64>,
}

/// What this very user gets. `Err` holds the errno.
#[derive(Debug, Clone)]
pub(super) struct Rights {
    pub(super) user: String,
    pub(super) fifo: Result<(), i32>,
    pub(super) memory: Result<(), i32>,
}

/// A gateway that is there.
#[derive(Debug, Clone)]
pub(super) struct Running {
    /// None where the kernel does not tell.
    pub(super) pid: Option<i32>,
    /// Whose process it is.
    pub(super) user: Option<String>,
    /// Its threads that should be at real-time priority: name, wanted, granted. Empty where the kernel does not tell.
    pub(super) threads: Vec<(String, i32, Option<i32>)>,
    /// Locked memory.
    pub(super) locked_kib: Option<u64>,
    /// What it answered, or why there is no answer.
    pub(super) answer: Result<Answer, String>,
}

/// What the gateway says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) version: String,
    pub(super) digest: String,
    pub(super) state: String,
    /// In words.
    pub(super) faults: Vec<String>,
    /// Whether it is connected to OCP, and why not.
    pub(super) connected: Option<bool>,
    pub(super) why: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct ClockFacts {
    /// The counter that the kernel takes time from.
    pub(super) source: Option<String>,
    pub(super) is_synchronised: Option<bool>,
}

/// A timer of the hardware that resets the computer unless somebody feeds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HardwareWatchdog {
    pub(super) name: String,
    pub(super) is_active: bool,
    /// Seconds from the last feeding to the reset.
    pub(super) timeout_s: Option<u32>,
}

/// Where the gateway listens.
#[derive(Debug, Clone)]
pub(super) struct PortFacts {
    /// Its key in the file.
    pub(super) key: String,
    pub(super) address: SocketAddr,
    /// Whether it can be taken now; `Err` holds the errno.
    pub(super) free: Result<(), i32>,
}

/// The OCP server.
#[derive(Debug, Clone)]
pub(super) struct PeerFacts {
    pub(super) key: &'static str,
    pub(super) name: &'static str,
    pub(super) address: SocketAddr,
    /// Why there is no connection, or how long it took in milliseconds; none where it was not called.
    pub(super) reached: Option<Result<f64, String>>,
}

/// The directory for what survives a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RuntimeFacts {
    /// There, this user's, and written to.
    Writable(PathBuf),
    /// There, this user's, and not to be written to: why.
    Refused(PathBuf, String),
    /// There, and another user's: who.
    Others(PathBuf, String),
    /// There, and others may write to it, or it is no folder.
    Open(PathBuf),
    /// Not there.
    Missing(PathBuf),
}
