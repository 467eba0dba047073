//! Which diagnostic requests may pass while the vehicle is driven.
//!
//! Owns the ids that carry diagnostic requests by standard, and the services that only read. Relies on `can`. Never lets
//! through what it does not know: a reset, a session change or a transfer in several frames is refused with everything
//! that cannot be told from one (SAFETY row 93).

use crate::can::{Frame, FrameKind, Id};

/// Whether this id carries requests of a tester: ISO 15765-4 (11-bit 7DF and 7E0 to 7E7; 29-bit 18DAxxyy and 18DBxxyy, of any
/// priority). An ECU may listen at other ids as well; the configuration alone decides about those.
#[must_use]
pub const fn is_request(id: Id) -> bool {
    let raw = id.raw();
    if id.is_extended() {
        // Data page 0, PDU format DA (one ECU) or DB (all of them).
        matches!(raw >> 16 & 0x3FF, 0xDA | 0xDB)
    } else {
        matches!(raw, 0x7DF..=0x7E7)
    }
}

/// Whether a request does no more than read: one frame (ISO 15765-2, normal addressing) with a service that changes
/// nothing in the ECU, or the flow control of an answer.
#[must_use]
pub fn only_reads(frame: &Frame) -> bool {
    if !matches!(frame.kind(), FrameKind::Data | FrameKind::Fd { .. }) {
        return false;
    }
    let data = frame.payload();
    let Some((first, rest)) = data.split_first() else { return false };
    match (first >> 4, first & 0x0F) {
        // Single frame of CAN FD: the length is in the second byte.
        (0, 0) if frame.is_fd() => match rest {
            [len, service, ..] => *len > 0 && reads(*service),
            _ => false,
        },
        (0, 1..=7) => rest.first().is_some_and(|service| reads(*service)),
        // Flow control.
        (3, _) => true,
        _ => false,
    }
}

/// Services that read: SAE J1979 modes without 04 (clear) and 08 (control), and of ISO 14229-1 ReadDTCInformation,
/// ReadDataByIdentifier, ReadMemoryByAddress, ReadScalingDataByIdentifier, ReadDataByPeriodicIdentifier, TesterPresent.
const fn reads(service: u8) -> bool {
    matches!(service, 0x01..=0x03 | 0x05..=0x07 | 0x09 | 0x0A | 0x19 | 0x22..=0x24 | 0x2A | 0x3E)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standard(raw: u32) -> Id {
        Id::standard(raw).unwrap()
    }

    fn extended(raw: u32) -> Id {
        Id::extended(raw).unwrap()
    }

    #[test]
    fn the_ids_of_the_standard_and_no_others() {
        for id in
            [standard(0x7DF), standard(0x7E0), standard(0x7E7), extended(0x18DA_10F1), extended(0x18DB_33F1)]
        {
            assert!(is_request(id), "{id:?}");
        }
        assert!(is_request(extended(0x1CDA_10F2)), "another priority");
        for id in
            [standard(0x7DE), standard(0x7E8), extended(0x7DF), extended(0x18DC_33F1), extended(0x19DA_10F1)]
        {
            assert!(!is_request(id), "{id:?}");
        }
    }

    #[test]
    fn every_service_but_those_that_read_is_refused() {
        let mut passed = Vec::new();
        for service in 0..=u8::MAX {
            let classic = Frame::data(standard(0x7DF), &[2, service, 1]).unwrap();
            let fd = Frame::fd(standard(0x7DF), &[0, 2, service, 1, 0, 0, 0, 0], true, false).unwrap();
            assert_eq!(only_reads(&classic), only_reads(&fd), "{service:02x}");
            if only_reads(&classic) {
                passed.push(service);
            }
        }
        let reading = [1, 2, 3, 5, 6, 7, 9, 10, 0x19, 0x22, 0x23, 0x24, 0x2A, 0x3E];
        assert_eq!(passed, reading);
    }

    #[test]
    fn what_cannot_be_told_from_a_change_is_refused() {
        let frames: [&[u8]; 6] = [
            &[],
            &[0],
            // Length without a service; a first frame and a consecutive one, whatever their service; a nibble of no meaning.
            &[2],
            &[0x10, 0x14, 0x22, 1],
            &[0x21, 1, 2],
            &[0x72, 0x22],
        ];
        for data in frames {
            assert!(!only_reads(&Frame::data(standard(0x7E0), data).unwrap()), "{data:02x?}");
        }
        assert!(!only_reads(&Frame::remote(standard(0x7E0), 8).unwrap()));
        assert!(
            !only_reads(&Frame::fd(standard(0x7E0), &[0, 0, 0x22, 0], true, false).unwrap()),
            "no length"
        );
        assert!(
            !only_reads(&Frame::data(standard(0x7E0), &[0, 2, 0x22]).unwrap()),
            "that form is for CAN FD"
        );
        assert!(only_reads(&Frame::data(standard(0x7E0), &[0x30, 0, 0]).unwrap()), "flow control");
    }
}
