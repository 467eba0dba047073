//! The queue in front of a CAN interface: whether it keeps what it takes.
//!
//! Owns one question to the kernel (rtnetlink, the protocol of `tc qdisc show`) and the reading of its answer. Relies on nix. Never
//! changes anything, and knows nothing where it may not ask.

use nix::net::if_::if_nametoindex;

use super::BusAddress;
use super::netlink::{REQUEST_DUMP, ask, number, text};

/// Numbers of `linux/rtnetlink.h`.
const NEW_QDISC: u16 = 36;
const GET_QDISC: u16 = 38;
/// `TCA_KIND` of `linux/rtnetlink.h`: the discipline's name.
const KIND: u16 = 1;

/// Bytes of `struct tcmsg`.
const TC: usize = 20;

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
    ask(GET_QDISC, REQUEST_DUMP, &[0; TC], NEW_QDISC, |message| take(message, index, &mut kinds));
    kinds
}

/// Takes the discipline out of a message, if it is the interface's.
fn take(message: &[u8], index: u32, kinds: &mut Vec<String>) {
    if number(message, 4, 4) == usize::try_from(index).ok() {
        kinds.extend(text(message.get(TC..).unwrap_or_default(), KIND));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::canbus::netlink::{HEADER, messages};

    const ATTRIBUTE: usize = 4;
    const DONE: u16 = 3;

    fn read(dump: &[u8], index: u32, kinds: &mut Vec<String>) -> bool {
        messages(dump, NEW_QDISC, &mut |message| take(message, index, kinds))
    }

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
