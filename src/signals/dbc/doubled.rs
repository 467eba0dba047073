//! Messages and signals of a DBC file that cannot be told apart.
//!
//! Owns finding them and the lines where they stand. Relies on nothing. Never chooses one of two: it names both.

use core::fmt;

use super::{Database, File, Message};
use crate::can::Id;

/// Why a message must not be used: something of it is in the file twice, and which one the vehicle means is a guess.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubled {
    /// Another message has its identifier.
    Identifier {
        /// The identifier of both.
        id: Id,
        /// Their names.
        names: [String; 2],
        /// The lines of the file where they stand, counted from 1.
        lines: Vec<usize>,
    },
    /// Another message has its name.
    Name {
        /// The identifiers of both.
        ids: [Id; 2],
        /// The lines of the file where they stand, counted from 1.
        lines: Vec<usize>,
    },
    /// Two of its signals have the same name.
    Signal {
        /// The name.
        name: String,
        /// The lines of the file where they stand, counted from 1; empty where they have long names.
        lines: Vec<usize>,
    },
}

impl fmt::Display for Doubled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = match self {
            Self::Identifier { id, names: [a, b], lines } => {
                write!(f, "{a} and {b} have the same identifier 0x{:X}", id.raw())?;
                lines
            }
            Self::Name { ids: [a, b], lines } => {
                write!(f, "there are two messages of this name, 0x{:X} and 0x{:X}", a.raw(), b.raw())?;
                lines
            }
            Self::Signal { name, lines } => {
                write!(f, "it has two signals named {name}")?;
                lines
            }
        };
        let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
        if lines.is_empty() { Ok(()) } else { write!(f, " (lines {})", lines.join(" and ")) }
    }
}

/// A message as it is written.
#[derive(Debug, Clone)]
pub(super) struct Header {
    /// The name that the rest of the program uses.
    pub(super) name: String,
    /// The name behind `BO_`.
    pub(super) short: String,
    pub(super) id: Id,
}

impl Database {
    /// What the file has twice, so that this message must not be used for anything that matters.
    #[must_use]
    pub fn doubled(&self, message: &Message) -> Option<&Doubled> {
        let own = |(name, id): &(String, Id)| *name == message.name && *id == message.id;
        self.doubled.iter().find(|(of, _)| own(of)).map(|(_, doubled)| doubled)
    }
}

impl<'a> File<'a> {
    /// `None` where no bus can have the identifier.
    pub(super) fn header(&self, message: &'a can_dbc::Message) -> Option<Header> {
        let name = self.message_name(message).to_owned();
        Some(Header { name, short: message.name.clone(), id: self.id(message)? })
    }
}

/// What is doubled of each message: the message's own name and identifier, and why.
pub(super) fn find(headers: &[Header], messages: &[Message], text: &str) -> Vec<((String, Id), Doubled)> {
    let mut found = Vec::new();
    for message in messages {
        let doubled = of_name(message, headers, text)
            .or_else(|| of_identifier(message, headers, text))
            .or_else(|| of_signal(message, headers, text));
        found.extend(doubled.map(|doubled| ((message.name.clone(), message.id), doubled)));
    }
    found
}

fn of_name(message: &Message, headers: &[Header], text: &str) -> Option<Doubled> {
    let mut same = headers.iter().filter(|header| header.name == message.name);
    let (first, second) = (same.next()?, same.next()?);
    Some(Doubled::Name { ids: [first.id, second.id], lines: lines_of(text, &[first, second]) })
}

fn of_identifier(message: &Message, headers: &[Header], text: &str) -> Option<Doubled> {
    let mut same = headers.iter().filter(|header| header.id == message.id);
    let (first, second) = (same.next()?, same.next()?);
    let names = [first.name.clone(), second.name.clone()];
    Some(Doubled::Identifier { id: message.id, names, lines: lines_of(text, &[first, second]) })
}

fn of_signal(message: &Message, headers: &[Header], text: &str) -> Option<Doubled> {
    let is_before = |at: usize, name: &str| message.signals.iter().take(at).any(|signal| signal.name == name);
    let (_, twice) = message.signals.iter().enumerate().find(|(at, signal)| is_before(*at, &signal.name))?;
    let own = headers.iter().find(|header| header.id == message.id && header.name == message.name)?;
    let head = lines_of(text, &[own]).first().copied()?;
    let body = text.lines().enumerate().skip(head).take_while(|(_, line)| word(line, 0) != Some("BO_"));
    let lines = body.filter(|(_, line)| word(line, 0) == Some("SG_") && word(line, 1) == Some(&twice.name));
    Some(Doubled::Signal { name: twice.name.clone(), lines: lines.map(|(at, _)| at + 1).collect() })
}

/// The lines of these messages' `BO_`, counted from 1, in the order of the file.
fn lines_of(text: &str, headers: &[&Header]) -> Vec<usize> {
    let is_one = |line: &str| {
        word(line, 0) == Some("BO_")
            && headers.iter().any(|header| {
                word(line, 1).and_then(|id| id.parse().ok()) == Some(header.id.word())
                    && word(line, 2) == Some(&header.short)
            })
    };
    text.lines().enumerate().filter(|(_, line)| is_one(line)).map(|(at, _)| at + 1).collect()
}

/// A word of a line, without what the colon separates.
fn word(line: &str, index: usize) -> Option<&str> {
    line.split_whitespace().nth(index).and_then(|word| word.split(':').next())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn doubled(text: &str, name: &str) -> String {
        let db = Database::parse(&format!("VERSION \"\"\n\nBU_: A\n\n{text}\n")).unwrap();
        db.doubled(db.message(name).unwrap()).map_or_else(String::new, ToString::to_string)
    }

    #[test]
    fn both_are_named_with_their_lines() {
        let text = concat!(
            "BO_ 257 A: 8 A\n SG_ X : 0|8@1+ (1,0) [0|0] \"\" A\n SG_ X : 8|8@1+ (1,0) [0|0] \"\" A\n\n",
            "BO_ 258 B: 8 A\n\nBO_ 258 C: 8 A\n\nBO_ 259 D: 8 A\n\nBO_ 2147483907 D: 8 A\n\n",
            "BO_ 2147483908 E: 8 A\n SG_ X : 0|8@1+ (1,0) [0|0] \"\" A\n\nBO_ 260 F: 8 A\n",
        );
        assert_eq!(doubled(text, "A"), "it has two signals named X (lines 6 and 7)");
        assert_eq!(doubled(text, "B"), "B and C have the same identifier 0x102 (lines 9 and 11)");
        assert_eq!(doubled(text, "C"), doubled(text, "B"));
        let names = "there are two messages of this name, 0x103 and 0x103 (lines 13 and 15)";
        assert_eq!(doubled(text, "D"), names);
        // The same number with 11 and with 29 bits is not the same identifier.
        assert_eq!((doubled(text, "E"), doubled(text, "F")), (String::new(), String::new()));
    }

    #[test]
    fn a_long_name_can_double_too() {
        let text = concat!(
            "BO_ 1 M: 8 A\n SG_ S : 0|8@1+ (1,0) [0|0] \"\" A\n SG_ T : 8|8@1+ (1,0) [0|0] \"\" A\n\n",
            "BA_DEF_ SG_ \"SystemSignalLongSymbol\" STRING ;\nBA_DEF_DEF_ \"SystemSignalLongSymbol\" \"\";\n",
            "BA_ \"SystemSignalLongSymbol\" SG_ 1 S \"T\";\n",
        );
        assert!(doubled(text, "M").starts_with("it has two signals named T"));
    }
}
