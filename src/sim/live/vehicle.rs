//! The simulated vehicle on a real bus: a kernel interface or the built-in one.
//!
//! Owns the port and one thread. Relies on [`crate::sim::vehicle`] for everything the vehicle does. Never gives up: a
//! bus that goes away is opened again, and the vehicle brakes meanwhile as it would behind a cut cable.

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use crate::io::canbus::{Accept, BusAddress, OpenError, Port, PortOptions, RecvError};
use crate::io::{clock, sys};
use crate::sim::vehicle::{Layout, LayoutError, Snapshot, Vehicle};
use crate::time::{Duration, Instant};

/// The longest wait of the thread: bounds how long a stop takes.
const WAIT_MAX: Duration = Duration::from_millis(50);

/// Pause between two attempts to open a bus that has gone.
const REOPEN: Duration = Duration::from_millis(100);

/// Why the vehicle cannot start. Consequence of each: there is no vehicle.
#[derive(Debug)]
pub enum StartError {
    /// The DBC does not describe it.
    Layout(LayoutError),
    /// The bus cannot be opened.
    Bus(OpenError),
    /// No thread.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(error) => error.fmt(f),
            Self::Bus(error) => error.fmt(f),
            Self::Thread(error) => write!(f, "cannot start a thread: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// What the thread shows to the holder of the handle.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    /// The bus is open.
    connected: AtomicBool,
    seen: Mutex<Snapshot>,
}

/// A running vehicle. Dropping it stops it.
#[derive(Debug)]
pub struct VehicleSim {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl VehicleSim {
    /// Puts a vehicle of the example DBC on the bus.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(bus: &BusAddress) -> Result<Self, StartError> {
        Self::start_with(bus, Layout::example().map_err(StartError::Layout)?)
    }

    /// Puts a vehicle with this layout on the bus.
    ///
    /// # Errors
    /// [`StartError::Bus`], [`StartError::Thread`].
    pub fn start_with(bus: &BusAddress, layout: Layout) -> Result<Self, StartError> {
        let options = PortOptions {
            accept: Accept::Only(layout.accepts().to_vec()),
            fd: layout.needs_fd(),
            ..PortOptions::default()
        };
        let port = Port::open(bus, &options).map_err(StartError::Bus)?;
        let vehicle = Vehicle::new(layout, clock::now());
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            connected: AtomicBool::new(true),
            seen: Mutex::new(vehicle.snapshot()),
        });
        let mut driver = Driver {
            vehicle,
            bus: bus.clone(),
            options,
            port: Some(port),
            reopen_at: Instant::ZERO,
            shared: Arc::clone(&shared),
        };
        let thread = std::thread::Builder::new()
            .name("sim-vehicle".to_owned())
            .spawn(move || {
                // The other end of a line has a computer of its own: where permitted, a busy machine does not slow it.
                let _ = sys::set_fifo_priority(super::PRIORITY);
                driver.run()
            })
            .map_err(StartError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// The vehicle as it is now, not older than its own wait of 20 ms.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the bus is open; without it the vehicle hears nothing and brakes.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.connected.load(Ordering::Relaxed)
    }

    /// Whether the thread runs; false after a stop, or after a mistake in the simulator.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Takes the vehicle off the bus; returns when its thread has ended.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the simulator was printed by its thread; there is nothing to add.
            let _ = thread.join();
        }
    }
}

impl Drop for VehicleSim {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread owns.
struct Driver {
    vehicle: Vehicle,
    bus: BusAddress,
    options: PortOptions,
    /// None while the bus is gone.
    port: Option<Port>,
    reopen_at: Instant,
    shared: Arc<Shared>,
}

impl Driver {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let now = clock::now();
            if now >= self.vehicle.poll_timeout() {
                self.vehicle.handle_timeout(now);
                self.send();
            }
            *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner) = self.vehicle.snapshot();
            let wait = self.vehicle.poll_timeout().since(clock::now()).min(WAIT_MAX);
            match &self.port {
                Some(port) => match port.recv(Some(wait)) {
                    Ok(Some(received)) => self.vehicle.handle_frame(received.at, &received.frame),
                    // Down is told once; the port receives again when the interface is up.
                    Ok(None) | Err(RecvError::Down) => {}
                    Err(RecvError::Gone | RecvError::Io(_)) => {
                        self.port = None;
                        self.shared.connected.store(false, Ordering::Relaxed);
                    }
                },
                None => {
                    std::thread::sleep(wait);
                    self.reopen(clock::now());
                }
            }
        }
    }

    /// Sends what is there. A frame that the bus does not take is lost, as behind a cut cable: the next is newer.
    fn send(&mut self) {
        while let Some(frame) = self.vehicle.poll_transmit() {
            if let Some(port) = &self.port {
                let _ = port.try_send(&frame);
            }
        }
    }

    fn reopen(&mut self, now: Instant) {
        if now < self.reopen_at {
            return;
        }
        self.reopen_at = now + REOPEN;
        if let Ok(port) = Port::open(&self.bus, &self.options) {
            self.port = Some(port);
            self.shared.connected.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::can::{Frame, Id};
    use crate::io::canbus::{BusName, Fault, Hub};
    use crate::signals::dbc::Database;
    use crate::sim::vehicle::Control;

    /// A loaded machine takes its time; nothing here waits that long without being wrong.
    const LIMIT: Duration = Duration::from_secs(20);

    struct Bench {
        hub: Hub,
        vehicle: VehicleSim,
        port: Port,
        bus: BusAddress,
        db: Database,
        count: u8,
        sent_at: Instant,
    }

    impl Bench {
        fn new(name: &str) -> Self {
            let name = format!("v{}{name}", std::process::id() % 100_000);
            let hub = Hub::start(&BusName::try_from(name.as_str()).unwrap()).unwrap();
            let bus: BusAddress = format!("sim:{name}").parse().unwrap();
            let vehicle = VehicleSim::start(&bus).unwrap();
            let port = Port::open(&bus, &PortOptions::default()).unwrap();
            let db = Database::parse(include_str!("../../../deploy/example.dbc")).unwrap();
            Self { hub, vehicle, port, bus, db, count: 0, sent_at: Instant::ZERO }
        }

        /// Commands every 20 ms, if any, and reads the bus, until the condition holds.
        fn until(
            &mut self,
            what: &str,
            drive: Option<(u16, bool)>,
            mut holds: impl FnMut(&Snapshot, Option<Frame>) -> bool,
        ) {
            let end = clock::now() + LIMIT;
            while clock::now() < end {
                if let Some((throttle, enable)) = drive
                    && clock::now() >= self.sent_at + Duration::from_millis(20)
                {
                    self.sent_at = clock::now();
                    let frame = self.command(throttle, enable);
                    let _ = self.port.try_send(&frame);
                }
                let frame = self.port.recv(Some(Duration::from_millis(5))).ok().flatten().map(|r| r.frame);
                if holds(&self.vehicle.snapshot(), frame) {
                    return;
                }
            }
            panic!("not in time: {what}: {:?}", self.vehicle.snapshot());
        }

        fn command(&mut self, throttle: u16, enable: bool) -> Frame {
            let mut data = [0_u8; 8];
            data[2..4].copy_from_slice(&throttle.to_le_bytes());
            data[6] = u8::from(enable) | self.count << 4;
            self.count = (self.count + 1) % 16;
            data[7] = crc::Crc::<u8>::new(&crc::CRC_8_SAE_J1850).checksum(&data[..7]);
            Frame::data(Id::standard(0x101).unwrap(), &data).unwrap()
        }
    }

    #[test]
    fn drives_times_out_and_survives_the_loss_of_its_bus() {
        let mut bench = Bench::new("a");
        bench.until("disabled", Some((0, false)), |seen, _| seen.control == Control::Disabled);
        bench.until("driving", Some((1000, true)), |seen, _| seen.speed_kph() > 1.0);
        let db = bench.db.clone();
        bench.until("reported", Some((1000, true)), |_, frame| {
            let decoded = frame.as_ref().and_then(|f| db.decode(f));
            decoded.is_some_and(|d| d.values.iter().any(|v| v.signal.name == "SPEED_KPH" && v.value > 1.0))
        });
        bench.until("timed out", None, |seen, _| seen.control == Control::TimedOut);
        bench.until("stopped by itself", None, |seen, _| seen.motion.stands());

        bench.hub.set(Fault::Gone).unwrap();
        let end = clock::now() + LIMIT;
        while bench.vehicle.is_connected() {
            assert!(clock::now() < end, "the loss is not noticed");
            std::thread::yield_now();
        }
        bench.hub.set(Fault::Clear).unwrap();
        bench.port = Port::open(&bench.bus, &PortOptions::default()).unwrap();
        bench.until("back", Some((0, false)), |seen, _| seen.control == Control::Disabled);
        assert!(bench.vehicle.is_connected() && bench.vehicle.is_running());
        bench.vehicle.stop();
        assert!(!bench.vehicle.is_running());
    }

    #[test]
    fn a_bus_that_does_not_exist_is_an_error() {
        let error = VehicleSim::start(&"nosuchcan0".parse().unwrap()).unwrap_err();
        assert!(matches!(error, StartError::Bus(_)), "{error}");
    }
}
