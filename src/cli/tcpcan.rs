//! `ocpcan tcpcan`: a CAN bus over TCP, as the Python tool of that name does it.
//!
//! Owns the command line, the log lines and the counters that a person reads. Relies on `threads::tcpcan` for the work.
//! Never touches a bus that a gateway drives: that gateway has a tunnel of its own, behind its gate.

mod lines;
mod loops;

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

use self::lines::Ends;
pub(super) use self::lines::{Told, goes_on, line};
use self::loops::Loops;
use super::{complain, exit};
use crate::io::canbus::{Accept, BusAddress, FILTERS, IdMask, OpenCause, OpenError, is_can, queue};
use crate::io::clock;
use crate::io::journal::Journal;
use crate::io::runtime::BusLock;
use crate::io::tcp::{Connector, LinkError, Listener};
use crate::proto::tcpcan::PORT;
use crate::safety::allow::{AllowList, Network};
use crate::safety::input::StateName;
use crate::threads::tcpcan::{Bus, Door, Ended, News, Settings, Tunnel, What};
use crate::time::{Duration, Instant};

/// Carries a CAN bus over TCP, compatible with Python's tcpcan: two buses joined, or a laptop on a bus.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bus: an interface such as `can0`, or a built-in bus `sim:NAME`
    #[arg(value_name = "CANIF")]
    bus: BusAddress,

    /// The other end's address; with --serve, the address to listen at
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    host: String,

    /// TCP port
    #[arg(long, value_name = "PORT", default_value_t = PORT)]
    port: u16,

    /// Wait for peers instead of calling one; up to 8 at a time
    #[arg(long)]
    serve: bool,

    /// End when the connection ends, or cannot be made
    #[arg(long, conflicts_with = "serve")]
    no_retry: bool,

    /// Tell what happens, not only what goes wrong
    #[arg(short, long)]
    verbose: bool,

    /// Frames of the bus that are handed on, as candump writes them: ID:MASK passes what matches, ID~MASK what does
    /// not; several are separated by commas, and one that passes is enough
    #[arg(long, value_name = "ID:MASK", value_delimiter = ',')]
    filter: Vec<IdMask>,

    /// Oldest frame that is handed on, in milliseconds; what is older is dropped and counted
    #[arg(long, value_name = "MS", default_value_t = 250, value_parser = clap::value_parser!(u32).range(10..=60_000))]
    max_age_ms: u32,

    /// Longest time that a frame waits for others to share its segment, in microseconds
    #[arg(long, value_name = "US", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    coalesce_us: u32,

    /// With --serve: who may connect beside this machine, an address or a network such as 192.168.1.0/24; may be given
    /// several times
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', requires = "serve")]
    allow: Vec<Network>,

    /// Print the counters that changed, every second
    #[arg(long)]
    stats: bool,
}

/// How often signals, the lock of the bus and the counters are looked at, at least.
const TURN: Duration = Duration::from_millis(100);

/// A gateway that comes later is noticed within this.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the command.
pub(super) fn run(args: &Args) -> u8 {
    if let Some(text) = driven(&args.bus) {
        complain(&text);
        return exit::UNAVAILABLE;
    }
    if args.filter.len() > FILTERS {
        complain(&format!("{} filters: the kernel takes {FILTERS} at most", args.filter.len()));
        return exit::USAGE;
    }
    if is_can(&args.bus) == Some(false) {
        complain(&OpenError { bus: args.bus.clone(), cause: OpenCause::NotCan }.to_string());
        return exit::UNAVAILABLE;
    }
    if u64::from(args.coalesce_us) * 4 > u64::from(args.max_age_ms) * 1_000 {
        complain(&format!(
            "--coalesce-us {} is more than a quarter of --max-age-ms {}: frames would grow too old while they wait for \
             others",
            args.coalesce_us, args.max_age_ms
        ));
        return exit::USAGE;
    }
    let accept = if args.filter.is_empty() { Accept::All } else { Accept::Masked(args.filter.clone()) };
    let settings = Settings {
        buses: vec![Bus {
            address: args.bus.clone(),
            accept,
            fd: true,
            max_age: Duration::from_millis(args.max_age_ms.into()),
        }],
        coalesce: Duration::from_micros(args.coalesce_us.into()),
    };
    let log = Journal::stderr();
    let mut loops = Loops::new(&args.bus);
    let mut listening = Vec::new();
    let tunnel = if args.serve {
        // First: who calls a port that is open must find it noted.
        if args.port != 0 {
            loops.note_server(args.port);
        }
        // Before signals are noted only: a resolver may take long, and until then they end the program at once.
        let doors = match doors(args) {
            Ok(doors) => doors,
            Err((code, text)) => {
                complain(&text);
                return code;
            }
        };
        listening.extend(doors.iter().filter_map(|door| door.listener.local_address().ok()));
        if args.port == 0 {
            listening.iter().for_each(|address| loops.note_server(address.port()));
        }
        Tunnel::server(settings, doors, None)
    } else {
        if let Err(text) = loops.claim_call(&args.host, args.port) {
            complain(&text);
            return exit::UNAVAILABLE;
        }
        Tunnel::client(settings, Connector::new(&args.host, args.port, clock::now().as_nanos()))
    };
    let signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&format!("cannot listen for signals: {error}"));
            return exit::UNAVAILABLE;
        }
    };
    for address in listening.iter().filter(|_| args.verbose) {
        log.line(format_args!("{}: listening at {address}", args.bus));
    }
    if let Some(kind) = queue::unfit(&args.bus) {
        log.warning(format_args!(
            "{bus}: frames to the bus wait in the queue discipline `{kind}`, which may drop or reorder them after \
             this program has counted them as written; `tc qdisc replace dev {bus} root pfifo` is a plain queue",
            bus = args.bus
        ));
    }
    Command {
        args,
        log,
        tunnel,
        loops,
        ends: Ends::default(),
        spare: spare(),
        told_at: None,
        news: Told::default(),
        untold: 0,
        broken: false,
    }
    .run(&signals)
}

/// A descriptor, if there is one left.
fn spare() -> Option<OwnedFd> {
    std::io::stderr().as_fd().try_clone_to_owned().ok()
}

/// Why this bus must be left alone: a gateway drives it, or it cannot be told.
fn driven(bus: &BusAddress) -> Option<String> {
    match BusLock::is_taken(bus) {
        Ok(false) => None,
        Ok(true) => {
            let who = BusLock::holder(bus).map_or_else(String::new, |pid| format!(" (process {pid})"));
            Some(format!(
                "{bus}: a gateway drives this bus{who}, and no other program may send on it; use the gateway's own \
                 tunnel, [tcpcan.NAME] in its configuration, which keeps actuator ids out"
            ))
        }
        Err(errno) => {
            let why = nix::errno::Errno::from_raw(errno).desc();
            Some(format!("{bus}: it cannot be told whether a gateway drives this bus: {why}"))
        }
    }
}

/// Listens at every address that the host has.
fn doors(args: &Args) -> Result<Vec<Door>, (u8, String)> {
    let unavailable = |text: String| (exit::UNAVAILABLE, text);
    let addresses: Vec<SocketAddr> = match args.host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, args.port)],
        Err(_) => (args.host.as_str(), args.port)
            .to_socket_addrs()
            .map_err(|error| unavailable(format!("--host {}: {error}", args.host)))?
            .collect(),
    };
    if let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback())
        && args.allow.is_empty()
    {
        let text = format!(
            "--host {}: {} can be reached from other machines; say who may connect, such as --allow 192.168.1.7 \
             (0.0.0.0/0 is everybody)",
            args.host,
            open.ip()
        );
        return Err((exit::USAGE, text));
    }
    let mut doors = Vec::new();
    let mut failed = None;
    for address in addresses {
        match Listener::bind(address) {
            Ok(listener) => {
                doors.push(Door { listener, allow: AllowList::new(args.allow.clone()), bus: 0 });
            }
            Err(error) => {
                let is_taken = error.kind() == std::io::ErrorKind::AddrInUse;
                failed = Some(unavailable(format!("cannot listen at {address}: {error}")));
                if is_taken {
                    break;
                }
            }
        }
    }
    match failed {
        // A machine without IPv6 has a localhost with two addresses all the same; a port in use is no such case.
        Some(failed) if doors.is_empty() || failed.1.contains("in use") => Err(failed),
        _ => Ok(doors),
    }
}

/// What signals ask for. Flags: the loop looks at them after every frame, and a pipe would cost a system call each time.
#[derive(Debug, Default)]
struct Signals {
    ends: Arc<AtomicBool>,
    tells: Arc<AtomicBool>,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let signals = Self::default();
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&signals.ends))?;
        }
        signal_hook::flag::register(SIGUSR1, Arc::clone(&signals.tells))?;
        Ok(signals)
    }
}

/// The command at work.
#[derive(Debug)]
struct Command<'a> {
    args: &'a Args,
    log: Journal,
    tunnel: Tunnel,
    loops: Loops,
    ends: Ends,
    /// A descriptor kept free for the look at the bus's lock: peers can use up all others.
    spare: Option<OwnedFd>,
    /// When the last error of the bus was told.
    told_at: Option<Instant>,
    /// What may still be told of peers.
    news: Told,
    /// News that were not.
    untold: u64,
    /// The bus cannot be opened.
    broken: bool,
}

impl Command<'_> {
    fn run(mut self, signals: &Signals) -> u8 {
        let mut looked_at = clock::now();
        let mut shown = self.tunnel.counts();
        let code = loop {
            if signals.tells.swap(false, Ordering::Relaxed) {
                self.tell_counts();
            }
            if signals.ends.load(Ordering::Relaxed) {
                break exit::OK;
            }
            let mut news = heapless::Vec::<News, 64>::new();
            // More than that in one turn is a flood, and the counters tell it.
            self.tunnel.turn(TURN, &|| StateName::Safe, &mut |one| {
                let _ = news.push(one);
            });
            for one in &news {
                self.tell(one);
            }
            if let Some(text) = self.find_loop(&news) {
                self.log.line(format_args!("{text}"));
                break exit::UNAVAILABLE;
            }
            if self.args.no_retry {
                if self.broken {
                    break exit::UNAVAILABLE;
                }
                // As the Python tool: also where there was no connection.
                if self.tunnel.take_hung_up() {
                    break exit::OK;
                }
            }
            let now = clock::now();
            if now.since(looked_at) >= LOOK {
                looked_at = now;
                self.spare = None;
                let driven = driven(&self.args.bus);
                self.spare = spare();
                if let Some(text) = driven {
                    self.log.line(format_args!("{text}"));
                    break exit::UNAVAILABLE;
                }
                if self.args.stats {
                    let counts = self.tunnel.counts();
                    for (count, value) in counts.iter().filter(|(count, value)| shown.get(*count) != *value) {
                        self.log.line(format_args!("counted: {value} {}", count.text()));
                    }
                    shown = counts;
                }
            }
        };
        self.tunnel.stop();
        self.tell_counts();
        code
    }

    /// Why the other end that was just reached must not be joined.
    fn find_loop(&mut self, news: &[News]) -> Option<String> {
        let reached = news.iter().filter(|one| matches!(one.what, What::Connected) && !self.args.serve);
        let address = reached.filter_map(|one| one.peer).next_back()?;
        self.loops.claim_call(&address.ip().to_string(), address.port()).err()
    }

    fn tell_counts(&self) {
        for (count, value) in self.tunnel.counts().iter().filter(|(_, value)| *value > 0) {
            self.log.line(format_args!("counted: {value} {}", count.text()));
        }
    }

    fn tell(&mut self, news: &News) {
        let now = clock::now();
        match news.what {
            What::BusError(_) => {
                // A bad cable makes thousands a second; the counter has them all.
                if self.told_at.is_some_and(|at| now.since(at) < LOOK) {
                    return;
                }
                self.told_at = Some(now);
            }
            What::BusAway(_) => self.broken = true,
            What::Connected => self.ends.note_connected(now),
            _ => {}
        }
        // That a peer goes is nothing wrong where many come and go; to a caller it is.
        let is_ordinary = match news.what {
            What::Connected | What::Agreed => true,
            What::Ended(ended) if !self.args.serve => !self.ends.is_new(ended, now),
            What::Ended(Ended::Link(LinkError::Closed)) => true,
            _ => false,
        };
        if is_ordinary && !self.args.verbose {
            return;
        }
        if !self.news.take(&news.what, now) {
            self.untold += 1;
            return;
        }
        let untold = core::mem::take(&mut self.untold);
        if untold > 0 {
            self.log
                .line(format_args!("{untold} lines about peers were left out; the counters have them all"));
        }
        let address = &self.args.bus;
        let again = if self.args.no_retry { "" } else { goes_on(&news.what) };
        match news.what {
            What::Unreachable(error) => {
                let (host, port) = (&self.args.host, self.args.port);
                self.log.line(format_args!("{host} port {port}: {error}{again}"));
            }
            _ => self.log.line(format_args!("{}{again}", line(news, address, address))),
        }
    }
}
