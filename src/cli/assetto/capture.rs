//! Events from a capture.
//!
//! Owns the way from a file to datagrams: pcap, pcapng, or payloads one behind the other without borders. Relies on the
//! crate `pcap-parser` for the first two. Never guesses where a message begins.

use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use pcap_parser::data::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, PacketData, get_packetdata};
use pcap_parser::pcapng::Block;
use pcap_parser::{
    Linktype, PcapBlockOwned, PcapNGSlice, parse_pcap_frame, parse_pcap_frame_be, parse_pcap_header,
};

use super::line::Printer;
use super::{Args, GAME_PORT, Refusal, failed};
use crate::cli::{complain, exit};
use crate::proto::assetto::game::GameMessage;
use crate::proto::assetto::{Command, Decoder};

/// Ethernet types of a frame that has another type behind four bytes.
const TAGS: [u16; 2] = [0x8100, 0x88a8];

/// The number of UDP in an IP header.
const UDP: u8 = 17;

/// Prints every event of the file.
pub(super) fn run(args: &Args, file: &Path) -> Result<u8, Refusal> {
    let bytes = std::fs::read(file).map_err(|error| failed(file.display(), &error))?;
    let server = args.place.server()?.map(|server| server.ip());
    let port = args.place.listen.map(|listen| listen.port);
    let printer = Printer::new(BufWriter::new(io::stdout()), args.car, args.count);
    let mut replay = Replay { printer, decoder: Decoder::default(), server, port, other: 0, fragments: 0 };
    let result = replay.file(&bytes).and_then(|()| replay.printer.flush().map_err(Stop::Output));
    let (c, other, fragments) = (replay.decoder.counters(), replay.other, replay.fragments);
    let counts = [
        (c.unknown, "datagrams of an unknown type"),
        (c.short, "messages that are cut off"),
        (c.trailing, "datagrams with something behind the message"),
        (other, "packets of others, or commands"),
        (fragments, "pieces of datagrams, which are not put together"),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        complain(&format!("{what}: {count}"));
    }
    match result {
        Ok(()) => Ok(exit::OK),
        Err(Stop::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::OK),
        Err(Stop::Output(error)) => Err(failed("stdout", &error)),
        Err(Stop::Broken(why)) => {
            // What was read before is still good.
            let _ = replay.printer.flush();
            Err((exit::PROTOCOL, format!("{}: {why}", file.display())))
        }
    }
}

/// Why a capture is not read to its end.
enum Stop {
    Output(io::Error),
    Broken(String),
}

struct Replay<W> {
    printer: Printer<W>,
    decoder: Decoder,
    /// Only what this host sent.
    server: Option<IpAddr>,
    /// Only what was sent to this port.
    port: Option<u16>,
    other: u64,
    fragments: u64,
}

impl<W: Write> Replay<W> {
    fn file(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match bytes.first_chunk::<4>() {
            Some(
                [0xd4, 0xc3, 0xb2, 0xa1]
                | [0xa1, 0xb2, 0xc3, 0xd4]
                | [0x4d, 0x3c, 0xb2, 0xa1]
                | [0xa1, 0xb2, 0x3c, 0x4d],
            ) => self.pcap(bytes),
            // No message has the number 10.
            Some([0x0a, 0x0d, 0x0d, 0x0a]) => self.pcapng(bytes),
            _ => self.payloads(bytes),
        }
    }

    /// One message behind the other, as tshark prints payloads. Nothing tells when they were.
    fn payloads(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let mut rest = bytes;
        while !rest.is_empty() && !self.printer.is_done() {
            let at = bytes.len() - rest.len();
            let decoded = self
                .decoder
                .handle_front(rest)
                .map_err(|error| Stop::Broken(format!("at byte {at}: {error}")))?;
            self.printer.event(&decoded.event, None).map_err(Stop::Output)?;
            rest = rest.get(decoded.used..).unwrap_or_default();
        }
        Ok(())
    }

    fn pcap(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let (mut rest, header) =
            parse_pcap_header(bytes).map_err(|_| Stop::Broken("no pcap header".to_owned()))?;
        let parse = if header.is_bigendian() { parse_pcap_frame_be } else { parse_pcap_frame };
        let divisor = if header.is_nanosecond_precision() { 1_000 } else { 1 };
        while !rest.is_empty() && !self.printer.is_done() {
            let at = bytes.len() - rest.len();
            let (behind, frame) =
                parse(rest).map_err(|_| Stop::Broken(format!("at byte {at}: no packet")))?;
            let at_us = u64::from(frame.ts_sec) * 1_000_000 + u64::from(frame.ts_usec) / divisor;
            self.packet(frame.data, header.network, Some(at_us))?;
            rest = behind;
        }
        Ok(())
    }

    fn pcapng(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let broken = || Stop::Broken("no pcapng block where one must be".to_owned());
        // Of each interface: link, ticks in a second, and seconds to add.
        let mut interfaces: Vec<(Linktype, u64, i64)> = Vec::new();
        for block in PcapNGSlice::from_slice(bytes).map_err(|_| broken())? {
            if self.printer.is_done() {
                break;
            }
            match block.map_err(|_| broken())? {
                PcapBlockOwned::NG(Block::SectionHeader(_)) => interfaces.clear(),
                PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => {
                    let ticks = interface.ts_resolution().filter(|ticks| *ticks > 0).unwrap_or(1_000_000);
                    interfaces.push((interface.linktype, ticks, interface.ts_offset()));
                }
                PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                    let interface = usize::try_from(packet.if_id).ok().and_then(|id| interfaces.get(id));
                    let Some(&(link, ticks, offset_s)) = interface else { return Err(broken()) };
                    let time = u128::from(packet.ts_high) << 32 | u128::from(packet.ts_low);
                    let us = i128::try_from(time * 1_000_000 / u128::from(ticks)).unwrap_or(0);
                    let at_us = u64::try_from(us + i128::from(offset_s) * 1_000_000).ok();
                    let len = usize::try_from(packet.caplen).unwrap_or(usize::MAX).min(packet.data.len());
                    self.packet(packet.data.get(..len).unwrap_or_default(), link, at_us)?;
                }
                PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                    let Some((link, ..)) = interfaces.first() else { return Err(broken()) };
                    self.packet(packet.data, *link, None)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn packet(&mut self, bytes: &[u8], link: Linktype, at_us: Option<u64>) -> Result<(), Stop> {
        let found = match get_packetdata(bytes, link, bytes.len()) {
            Some(PacketData::L2(frame)) => ethernet(frame),
            Some(PacketData::L3(kind, packet)) => datagram(kind, packet),
            _ => Found::Other,
        };
        let udp = match found {
            Found::Datagram(udp) => udp,
            Found::Fragment => {
                self.fragments += 1;
                return Ok(());
            }
            Found::Other => {
                self.other += 1;
                return Ok(());
            }
        };
        let is_wanted = self.server.is_none_or(|server| server == udp.from)
            && self.port.is_none_or(|port| port == udp.to_port);
        if !is_wanted {
            self.other += 1;
            return Ok(());
        }
        if udp.from_port == GAME_PORT
            && let Ok(message) = GameMessage::decode(udp.payload)
        {
            return self.printer.message(&message, at_us).map_err(Stop::Output);
        }
        // The other direction stands in the same capture.
        if Command::decode(udp.payload).is_ok() {
            self.other += 1;
            return Ok(());
        }
        match self.decoder.handle_datagram(udp.payload) {
            Ok(event) => self.printer.event(&event, at_us).map_err(Stop::Output),
            Err(_) => Ok(()),
        }
    }
}

struct Udp<'p> {
    from: IpAddr,
    from_port: u16,
    to_port: u16,
    payload: &'p [u8],
}

enum Found<'p> {
    Datagram(Udp<'p>),
    /// Of a datagram that was larger than the network takes.
    Fragment,
    Other,
}

fn ethernet(frame: &[u8]) -> Found<'_> {
    let mut rest = frame.get(12..).unwrap_or_default();
    while let Some((kind, behind)) = rest.split_first_chunk::<2>() {
        let kind = u16::from_be_bytes(*kind);
        if !TAGS.contains(&kind) {
            return datagram(kind, behind);
        }
        rest = behind.get(2..).unwrap_or_default();
    }
    Found::Other
}

fn datagram(kind: u16, packet: &[u8]) -> Found<'_> {
    match kind {
        ETHERTYPE_IPV4 => ipv4(packet),
        ETHERTYPE_IPV6 => ipv6(packet).map_or(Found::Other, Found::Datagram),
        _ => Found::Other,
    }
}

fn ipv4(packet: &[u8]) -> Found<'_> {
    let Some(header) = packet.first_chunk::<20>() else { return Found::Other };
    let [first, _, len_high, len_low, _, _, flags, offset, _, protocol, ..] = *header;
    if first >> 4 != 4 || protocol != UDP {
        return Found::Other;
    }
    // More fragments, or not the first of them.
    if u16::from_be_bytes([flags, offset]) & 0x3fff != 0 {
        return Found::Fragment;
    }
    // Behind a short packet Ethernet has padding.
    let whole = packet.get(..usize::from(u16::from_be_bytes([len_high, len_low]))).unwrap_or(packet);
    let from = packet.get(12..16).and_then(|ip| ip.first_chunk::<4>()).map(|ip| Ipv4Addr::from(*ip));
    match (from, whole.get(usize::from(first & 0xf) * 4..)) {
        (Some(from), Some(segment)) => udp(IpAddr::V4(from), segment).map_or(Found::Other, Found::Datagram),
        _ => Found::Other,
    }
}

/// Without extension headers: no server of this protocol sends any.
fn ipv6(packet: &[u8]) -> Option<Udp<'_>> {
    let (header, segment) = packet.split_first_chunk::<40>()?;
    if header.first()? >> 4 != 6 || *header.get(6)? != UDP {
        return None;
    }
    let from = Ipv6Addr::from(*header.get(8..24)?.first_chunk::<16>()?);
    udp(IpAddr::V6(from), segment)
}

fn udp(from: IpAddr, segment: &[u8]) -> Option<Udp<'_>> {
    let (header, behind) = segment.split_first_chunk::<8>()?;
    let [from_high, from_low, to_high, to_low, len_high, len_low, _, _] = *header;
    let len = usize::from(u16::from_be_bytes([len_high, len_low])).checked_sub(8)?;
    let ports = [[from_high, from_low], [to_high, to_low]].map(u16::from_be_bytes);
    // A capture that was cut has less than the header says.
    let payload = behind.get(..len).unwrap_or(behind);
    Some(Udp { from, from_port: ports[0], to_port: ports[1], payload })
}

#[cfg(test)]
mod tests;
