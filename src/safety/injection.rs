//! What the peers of a tunnel may put on a bus that the gateway drives, and how much of it.
//!
//! Owns the order of the judgements on a peer's frame: the gate first, then the peer's allowance, then that of all peers
//! together; and the strikes that end a connection. Relies on `gate`. Invariant (I5): whatever a peer sends, and in
//! whatever state, a frame with an actuator id is refused, and nothing that was refused leaves an allowance smaller.

use super::gate::{Gate, Verdict};
use super::input::StateName;
use crate::can::Frame;
use crate::time::Instant;

/// Frames with an actuator id that end a connection: one may be a mistake, three are not (SAFETY row 91).
pub const STRIKES: u8 = 3;

/// Why a peer's frame was refused. Consequence of each: the frame is dropped and counted; [`Refusal::Actuator`] is a
/// strike as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It carries an actuator id, in whatever encoding.
    Actuator,
    /// It is not on the list of this state.
    NotListed,
    /// Error messages are the driver's to make.
    ErrorFrame,
    /// A diagnostic request that may change something, while the vehicle is driven.
    Service,
    /// The peer has used up its allowance.
    PeerRate,
    /// All peers together have used up theirs.
    TotalRate,
}

/// So many frames a second, and a tenth of a second's worth at once.
#[derive(Debug, Clone)]
pub struct Allowance {
    per_s: u32,
    /// What is left, in frames times nanoseconds per second: no rounding, whatever the step.
    left: u64,
    at: Instant,
}

/// One frame, in the unit of [`Allowance::left`].
const FRAME: u64 = 1_000_000_000;

impl Allowance {
    /// A full allowance.
    #[must_use]
    pub fn new(per_s: u32) -> Self {
        Self { per_s, left: Self::burst(per_s), at: Instant::ZERO }
    }

    fn burst(per_s: u32) -> u64 {
        u64::from((per_s / 10).max(1)) * FRAME
    }

    fn refill(&mut self, now: Instant) {
        let passed = u64::try_from(now.since(self.at).as_nanos()).unwrap_or(u64::MAX);
        self.at = now;
        self.left =
            self.left.saturating_add(passed.saturating_mul(self.per_s.into())).min(Self::burst(self.per_s));
    }

    /// Takes one, if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        let has = self.has_one(now);
        if has {
            self.take_one();
        }
        has
    }

    fn has_one(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= FRAME
    }

    const fn take_one(&mut self) {
        self.left = self.left.saturating_sub(FRAME);
    }
}

/// The way onto one bus, shared by all its peers.
#[derive(Debug, Clone)]
pub struct Injection {
    gate: Gate,
    total: Allowance,
    peer_per_s: u32,
}

/// What is remembered of one peer.
#[derive(Debug, Clone)]
pub struct Record {
    allowance: Allowance,
    strikes: u8,
}

impl Record {
    /// Whether this peer has had its last try.
    #[must_use]
    pub const fn is_out(&self) -> bool {
        self.strikes >= STRIKES
    }
}

impl Injection {
    /// A way through this gate, with limits in frames per second for each peer and for all together.
    #[must_use]
    pub fn new(gate: Gate, peer_per_s: u32, total_per_s: u32) -> Self {
        Self { gate, total: Allowance::new(total_per_s), peer_per_s }
    }

    /// The record of a new peer.
    #[must_use]
    pub fn record(&self) -> Record {
        Record { allowance: Allowance::new(self.peer_per_s), strikes: 0 }
    }

    /// Judges a frame as it comes in.
    ///
    /// # Errors
    /// [`Refusal`]: drop it.
    pub fn admit(
        &mut self,
        now: Instant,
        state: StateName,
        record: &mut Record,
        frame: &Frame,
    ) -> Result<(), Refusal> {
        match self.judge(state, frame) {
            Err(Refusal::Actuator) => {
                record.strikes = record.strikes.saturating_add(1);
                return Err(Refusal::Actuator);
            }
            Err(refusal) => return Err(refusal),
            Ok(()) => {}
        }
        if !record.allowance.has_one(now) {
            return Err(Refusal::PeerRate);
        }
        if !self.total.has_one(now) {
            return Err(Refusal::TotalRate);
        }
        record.allowance.take_one();
        self.total.take_one();
        Ok(())
    }

    /// Judges a frame again as it goes out: it may have waited while the state changed.
    ///
    /// # Errors
    /// [`Refusal`]: drop it.
    pub fn judge(&self, state: StateName, frame: &Frame) -> Result<(), Refusal> {
        match self.gate.judge(state, frame) {
            Verdict::Pass => Ok(()),
            Verdict::Actuator => Err(Refusal::Actuator),
            Verdict::NotListed => Err(Refusal::NotListed),
            Verdict::ErrorFrame => Err(Refusal::ErrorFrame),
            Verdict::Service => Err(Refusal::Service),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::can::Id;

    fn frame(raw: u32) -> Frame {
        Frame::data(Id::standard(raw).unwrap(), &[1, 1]).unwrap()
    }

    fn injection(peer_per_s: u32, total_per_s: u32) -> Injection {
        let gate = Gate::new(
            &[Id::standard(0x101).unwrap()],
            &[Id::standard(0x7DF).unwrap()],
            &[Id::standard(0x7E0).unwrap()],
            &[],
        );
        Injection::new(gate, peer_per_s, total_per_s)
    }

    #[test]
    fn row_91_three_actuator_frames_are_the_last_and_cost_no_allowance() {
        let mut way = injection(10, 10);
        let mut peer = way.record();
        let now = Instant::from_millis(1_000);
        for strike in 0..STRIKES {
            assert!(!peer.is_out(), "after {strike}");
            assert_eq!(way.admit(now, StateName::Safe, &mut peer, &frame(0x101)), Err(Refusal::Actuator));
        }
        assert!(peer.is_out());
        let mut other = way.record();
        assert_eq!(way.admit(now, StateName::Safe, &mut other, &frame(0x7DF)), Ok(()), "nobody else pays");
    }

    #[test]
    fn row_93_what_may_pass_before_driving_is_refused_while_armed_even_if_it_waited() {
        let mut way = injection(100, 100);
        let mut peer = way.record();
        let now = Instant::from_millis(1_000);
        assert_eq!(way.admit(now, StateName::Ready, &mut peer, &frame(0x7E0)), Ok(()));
        assert_eq!(way.judge(StateName::Armed, &frame(0x7E0)), Err(Refusal::NotListed));
        assert_eq!(way.admit(now, StateName::Armed, &mut peer, &frame(0x7E0)), Err(Refusal::NotListed));
        assert_eq!(way.judge(StateName::Armed, &frame(0x7DF)), Ok(()));
    }

    #[test]
    fn row_93_no_list_lets_a_reset_or_a_session_change_through_while_armed() {
        let mut way = injection(100, 100);
        let mut peer = way.record();
        let now = Instant::from_millis(1_000);
        // ECU reset, communication control, programming session, request to stop fault storage.
        for service in [0x11, 0x28, 0x10, 0x85] {
            let request = Frame::data(Id::standard(0x7DF).unwrap(), &[2, service, 2]).unwrap();
            assert_eq!(
                way.admit(now, StateName::Ready, &mut peer, &request),
                Ok(()),
                "{service:02x} before driving"
            );
            for state in [StateName::Armed, StateName::Stopping] {
                assert_eq!(
                    way.judge(state, &request),
                    Err(Refusal::Service),
                    "{service:02x}, even if it waited"
                );
                assert_eq!(
                    way.admit(now, state, &mut peer, &request),
                    Err(Refusal::Service),
                    "{service:02x}"
                );
            }
        }
    }

    #[test]
    fn row_94_a_flood_passes_at_the_rate_of_its_peer_and_all_peers_at_the_rate_of_all() {
        for (peers, each, total, least, most) in
            [(1_usize, 100, 1_000, 1_000, 1_010), (4, 100, 200, 2_000, 2_020), (3, 7, 1_000, 207, 213)]
        {
            let mut way = injection(each, total);
            let mut records: Vec<Record> = (0..peers).map(|_| way.record()).collect();
            let mut passed = 0;
            // Ten seconds, a frame of each peer every 100 us.
            for tick in 0..100_000 {
                let now = Instant::from_micros(1_000_000 + tick * 100);
                for record in &mut records {
                    passed += usize::from(way.admit(now, StateName::Armed, record, &frame(0x7DF)).is_ok());
                }
            }
            assert!((least..=most).contains(&passed), "{peers} peers of {each}/s, {total}/s: {passed}");
        }
    }

    #[test]
    fn an_allowance_never_grows_beyond_a_tenth_of_a_second_and_never_below_one_frame() {
        let mut way = injection(5, 1_000);
        let mut peer = way.record();
        let later = Instant::from_millis(3_600_000);
        assert_eq!(way.admit(later, StateName::Safe, &mut peer, &frame(0x7DF)), Ok(()));
        assert_eq!(way.admit(later, StateName::Safe, &mut peer, &frame(0x7DF)), Err(Refusal::PeerRate));
    }
}
