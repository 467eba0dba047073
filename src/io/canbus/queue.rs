//! The queue in front of a CAN interface: whether it keeps what it takes.
//!
//! Owns one question to the kernel (rtnetlink, the protocol of `tc qdisc show`) and the reading of its answer. Relies on nix. Never
//! changes anything, and knows nothing where it may not ask.

use std::os::fd::AsRawFd as _;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

use super::BusAddress;

/// Numbers of `linux/rtnetlink.h` and `linux/netlink.h`.
const NEW_QDISC: u16 = 36;
const GET_QDISC: u16 = 38;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST_DUMP: u16 = 0x301;
/// `TCA_KIND` of `linux/rtnetlink.h`: the discipline's name.
const KIND: u16 = 1;

/// Bytes of `struct nlmsghdr`, of `struct tcmsg`, and of `struct rtattr`.
const HEADER: usize = 16;
const TC: usize = 20;
const ATTRIBUTE: usize = 4;

/// Answers that are read at most: a machine with a thousand interfaces needs fewer.
const ANSWERS: usize = 100;

/// Disciplines that send what they take, in its order, and refuse what they have no room for. `mq` has one of them for each
/// queue of the hardware.
const PLAIN: &[&str] = &["noqueue", "pfifo_fast", "pfifo", "bfifo", "mq"];

/// The discipline of the bus that may drop or reorder frames which it has taken, if there is one. `fq_codel`, the default
/// of many systems, drops them without a word. `None` also where the kernel does not say.
#[must_use]
pub fn unfit(bus: &BusAddress) -> Option<String> {
    let BusAddress::Kernel(name) = bus else { return None };
    let index = if_nametoindex(name.as_str()).ok()?;
    kinds(index).into_iter().find(|kind| !PLAIN.contains(&kind.as_str()))
}

/// Every discipline of the interface; none where the kernel does not say.
fn kinds(index: u32) -> Vec<String> {
    let mut kinds = Vec::new();
    let flags = SockFlag::SOCK_CLOEXEC;
    let Ok(kernel) = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute) else {
        return kinds;
    };
    let mut request = [0; HEADER + TC];
    request[..4].copy_from_slice(&36_u32.to_ne_bytes()); // the whole request
    request[4..6].copy_from_slice(&GET_QDISC.to_ne_bytes());
    request[6..8].copy_from_slice(&REQUEST_DUMP.to_ne_bytes());
    if send(kernel.as_raw_fd(), &request, MsgFlags::empty()).is_err() {
        return kinds;
    }
    // The kernel fills no more than this at a time.
    let mut answer = vec![0; 32_768];
    for _ in 0..ANSWERS {
        // It answers while it is asked: nothing there is the end.
        let Ok(size) = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) else { break };
        if !read(answer.get(..size).unwrap_or_default(), index, &mut kinds) {
            break;
        }
    }
    kinds
}

/// Takes the disciplines of the interface out of one answer; whether another one follows.
fn read(mut answer: &[u8], index: u32, kinds: &mut Vec<String>) -> bool {
    while let Some(length) = number(answer, 0, 4).filter(|length| (HEADER..=answer.len()).contains(length)) {
        let message = answer.get(..length).unwrap_or_default();
        match number(message, 4, 2).and_then(|kind| u16::try_from(kind).ok()) {
            Some(DONE | ERROR) => return false,
            Some(NEW_QDISC) if number(message, HEADER + 4, 4) == usize::try_from(index).ok() => {
                kinds.extend(attribute(message.get(HEADER + TC..).unwrap_or_default(), KIND));
            }
            _ => {}
        }
        // Messages begin at multiples of four.
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

/// The text of an attribute.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<String> {
    while let Some(length) =
        number(attributes, 0, 2).filter(|length| (ATTRIBUTE..=attributes.len()).contains(length))
    {
        if number(attributes, 2, 2) == Some(wanted.into()) {
            let text = attributes.get(ATTRIBUTE..length)?;
            return Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// A number of two or four bytes in the machine's own order.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + size)?;
    match *bytes {
        [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One message of a dump: a discipline of an interface.
    fn message(kind: u16, index: u32, name: &str) -> Vec<u8> {
        let mut body = vec![0; TC];
        body[4..8].copy_from_slice(&index.to_ne_bytes());
        // Another attribute in front of the name.
        for (attribute, text) in [(9_u16, &b"x"[..]), (KIND, name.as_bytes())] {
            body.extend(u16::try_from(ATTRIBUTE + text.len() + 1).unwrap().to_ne_bytes());
            body.extend(attribute.to_ne_bytes());
            body.extend(text);
            body.push(0);
            body.resize(body.len().next_multiple_of(4), 0);
        }
        let mut bytes = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER, 0);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn the_disciplines_of_one_interface_are_taken_out_of_an_answer() {
        let dump = [
            message(NEW_QDISC, 1, "noqueue"),
            message(NEW_QDISC, 7, "mq"),
            message(NEW_QDISC, 8, "tbf"),
            message(NEW_QDISC, 7, "fq_codel"),
        ]
        .concat();
        let mut kinds = Vec::new();
        assert!(read(&dump, 7, &mut kinds), "more may follow");
        assert_eq!(kinds, ["mq", "fq_codel"]);
        assert!(!read(&message(DONE, 0, ""), 7, &mut kinds));
        // Cut anywhere: what is whole is taken, and it ends.
        for size in 0..dump.len() {
            let mut kinds = Vec::new();
            read(&dump[..size], 7, &mut kinds);
            assert!(kinds.len() <= 2);
        }
    }

    #[test]
    fn the_kernel_says_how_the_loopback_interface_queues() {
        let index = if_nametoindex("lo").unwrap();
        // Nothing where a sandbox forbids the question.
        let kinds = kinds(index);
        println!("lo: {kinds:?}");
        assert!(kinds.iter().all(|kind| !kind.is_empty() && kind.is_ascii()), "{kinds:?}");
        assert_eq!(unfit(&"sim:any".parse().unwrap()), None);
        assert_eq!(unfit(&"nosuchcan0".parse().unwrap()), None);
    }
}
