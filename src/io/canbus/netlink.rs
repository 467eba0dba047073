//! Questions to the kernel about network interfaces (rtnetlink).
//!
//! Owns one request at a time and the cutting of its answer into messages and attributes. Relies on nix. Never changes
//! anything, and knows nothing where it may not ask.

use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// Numbers of `linux/netlink.h`.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// A question about one thing, and one about all of them.
const REQUEST: u16 = 0x001;
pub(super) const REQUEST_DUMP: u16 = 0x301;

/// Numbers of `linux/rtnetlink.h`: a question about an interface, and its answer.
const NEW_LINK: u16 = 16;
const GET_LINK: u16 = 18;

/// Bytes of `struct ifinfomsg`: the interface's type is at 2, its index at 4, its flags at 8.
pub(super) const INFO: usize = 16;

/// Bytes of `struct nlmsghdr` and of `struct rtattr`.
pub(super) const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;

/// The bits of an attribute's number that are flags.
const FLAGS: usize = 0xC000;

/// Answers that are read at most: a machine with a thousand interfaces needs fewer.
const ANSWERS: usize = 100;

/// Asks, and gives every message of this kind to `each`: what stands behind its header. Silence where the kernel does not
/// answer.
pub(super) fn ask(question: u16, flags: u16, body: &[u8], answer: u16, mut each: impl FnMut(&[u8])) {
    let cloexec = SockFlag::SOCK_CLOEXEC;
    let Ok(kernel) = socket(AddressFamily::Netlink, SockType::Raw, cloexec, SockProtocol::NetlinkRoute)
    else {
        return;
    };
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut request = length.to_ne_bytes().to_vec();
    request.extend(question.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.resize(HEADER, 0);
    request.extend(body);
    if send(kernel.as_raw_fd(), &request, MsgFlags::empty()).is_err() {
        return;
    }
    // The kernel fills no more than this at a time.
    let mut buffer = vec![0; 32_768];
    for _ in 0..ANSWERS {
        // It answers while it is asked: nothing there is the end.
        let Ok(size) = recv(kernel.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) else { return };
        if !messages(buffer.get(..size).unwrap_or_default(), answer, &mut each) {
            return;
        }
    }
}

/// Asks about one interface, and gives what stands behind the header of the answer to `each`.
pub(super) fn ask_link(index: u32, each: impl FnMut(&[u8])) {
    let mut body = [0; INFO];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    ask(GET_LINK, REQUEST, &body, NEW_LINK, each);
}

/// The interface's type (`ARPHRD_CAN` and others) and all its flags: the older calls know sixteen of them.
pub(super) fn type_and_flags(index: u32) -> Option<(u16, u32)> {
    let mut found = None;
    ask_link(index, |message| {
        let kind = number(message, 2, 2).and_then(|kind| u16::try_from(kind).ok());
        let flags = number(message, 8, 4).and_then(|flags| u32::try_from(flags).ok());
        found = kind.zip(flags);
    });
    found
}

/// Takes the messages of a kind out of one answer; whether another answer follows.
pub(super) fn messages(mut bytes: &[u8], kind: u16, each: &mut impl FnMut(&[u8])) -> bool {
    while let Some(length) = number(bytes, 0, 4).filter(|length| (HEADER..=bytes.len()).contains(length)) {
        let message = bytes.get(..length).unwrap_or_default();
        match number(message, 4, 2).and_then(|kind| u16::try_from(kind).ok()) {
            Some(DONE | ERROR) => return false,
            Some(this) if this == kind => each(message.get(HEADER..).unwrap_or_default()),
            _ => {}
        }
        // Messages begin at multiples of four.
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    true
}

/// What an attribute holds.
pub(super) fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some(length) =
        number(attributes, 0, 2).filter(|length| (ATTRIBUTE..=attributes.len()).contains(length))
    {
        if number(attributes, 2, 2).map(|kind| kind & !FLAGS) == Some(wanted.into()) {
            return attributes.get(ATTRIBUTE..length);
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    None
}

/// An attribute that is a text.
pub(super) fn text(attributes: &[u8], wanted: u16) -> Option<String> {
    let text = attribute(attributes, wanted)?;
    Some(String::from_utf8_lossy(text).trim_end_matches('\0').to_owned())
}

/// A number of two or four bytes in the machine's own order.
pub(super) fn number(bytes: &[u8], at: usize, size: usize) -> Option<usize> {
    let bytes = bytes.get(at..at + size)?;
    match *bytes {
        [a, b] => Some(u16::from_ne_bytes([a, b]).into()),
        [a, b, c, d] => usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok(),
        _ => None,
    }
}
