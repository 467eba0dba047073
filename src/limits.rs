//! Every capacity of the program, with the reason for its size.
//!
//! Owns the numbers that bound memory and work. Relies on nothing. Never changes at run time: what is not bounded
//! here does not exist.

/// Largest OCP message body in bytes: the protocol's own limit ("16 KB"), both directions, without the header.
pub const OCP_BODY: usize = 16_384;

/// Nesting that the JSON reader follows before it calls a message invalid. User data of a dashboard nests 3 or 4
/// deep; 32 leaves room and bounds the work of a hostile message.
pub const JSON_DEPTH: usize = 32;

/// Fields of `client_user_data` that one configuration may name. They travel inline in each command.
pub const USER_FIELDS: usize = 64;

/// Bytes kept of `fault_reason` for display. Diagnostic text is cut, never the message that carries it.
pub const FAULT_REASON: usize = 120;

/// CAN buses of one gateway: one thread each. Two HATs with two channels each is the most a Pi carries.
pub const BUSES: usize = 4;

/// Frames that the gateway sends (actuator messages). Their in-flight and counter state is one bit or byte each
/// in fixed arrays; the foreign-writer filter holds one kernel filter each.
pub const OUT_MESSAGES: usize = 64;

/// Frames in the transmit queue of an interface: a longer one stores old commands for too long (the default of a CAN interface
/// is 10).
pub const TRANSMIT_QUEUE: u32 = 64;

/// Feedback messages that are decoded.
pub const FEEDBACK_MESSAGES: usize = 64;

/// Fields of `vehicle_user_data.user_data` that one configuration may report: with 256 bytes each they fill OCP's body.
pub const REPORT_FIELDS: usize = 64;

/// Signals that one configuration may send. 1,000 is the size that the mapping bench proves.
pub const OUT_SIGNALS: usize = 1_024;

/// Commands between the ocp thread and the watchdog: only the newest matters, four absorb one scheduling hiccup
/// of 20 ms at OCP's 10 ms pace without dropping.
pub const COMMAND_DEPTH: usize = 4;

/// Frames between a can thread and the watchdog or the ocp thread: a full 1 Mbit/s bus carries about 8 frames a
/// millisecond, so 256 is 32 ms of the worst burst, longer than any allowed scheduling gap.
pub const FEEDBACK_DEPTH: usize = 256;

/// Events between the watchdog and main: state changes and trips, a few a second at most.
pub const EVENT_DEPTH: usize = 64;

/// Events between main and the management plane: everything that all of main's own channels hold, read in one turn.
pub const HAPPENING_DEPTH: usize = 2 * EVENT_DEPTH;

/// Bytes of a DBC file. The largest public one that was seen has 807 KB; ten times that bounds a mistaken path.
pub const DBC_BYTES: usize = 8 << 20;

/// Peers of the tunnel, all buses together. Each costs two descriptors and, while connected, 0.8 MB; a laptop, a logger
/// and a second bus are three.
pub const TUNNEL_PEERS: usize = 8;

/// Connections that have not agreed to a version yet, beside the peers. The oldest of them gives way to a new one, so that
/// those who say nothing cannot keep the others out.
pub const TUNNEL_CALLERS: usize = 8;

/// Frames that wait in each direction of one peer: the default age limit (250 ms) of two full 1 Mbit/s buses.
pub const TUNNEL_QUEUE: usize = 4_096;

/// Bytes of a datagram from a driving simulator. The longest legal one has 5108 (a car with five texts of 255
/// characters); what fills this is something else.
pub const ASSETTO_DATAGRAM: usize = 8_192;
