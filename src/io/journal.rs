//! Log lines on stderr, whatever state stderr is in.
//!
//! Owns the writing of lines and how much each matters. Relies on poll. Never waits for a reader, never fails and never ends the program because
//! of a closed or full stderr: what cannot be written is counted, and the count is told when writing works again.
//! Control characters in a line are escaped: part of it may come from the network (SAFETY rows 42 and 109). Where the service
//! manager reads stderr, each line says its level in the form that it takes (`<4>`); elsewhere the word alone does.

use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Longest line in bytes, line end included. A pipe that is ready takes this much at once (`PIPE_BUF` is 4,096).
const LINE: usize = 1_024;

/// What a line that was too long ends with.
const CUT: &str = "...";

/// How much a line matters, in the numbers of syslog(3): the lower, the more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// It ends, or does not start.
    Error = 3,
    /// It goes on, and a person should look.
    Warning = 4,
    /// A state has changed, or a person has asked.
    Notice = 5,
    /// Anything else.
    Info = 6,
}

/// A writer of log lines. Can be shared between threads; a line is written by one call.
#[derive(Debug)]
pub struct Journal {
    out: Option<OwnedFd>,
    lost: AtomicU64,
    /// The service manager reads it.
    is_journal: bool,
    /// Lines that matter less are not written.
    most: AtomicU8,
}

impl Journal {
    /// Writes to the stderr of the process.
    #[must_use]
    pub fn stderr() -> Self {
        let stderr = std::io::stderr();
        let is_journal = std::env::var_os("JOURNAL_STREAM").is_some_and(|said| is_it(stderr.as_fd(), &said));
        Self { is_journal, ..Self::to(stderr.as_fd()) }
    }

    /// Writes to a copy of this descriptor; to nothing, counting, where it cannot be copied.
    #[must_use]
    pub fn to(fd: BorrowedFd<'_>) -> Self {
        Self {
            out: fd.try_clone_to_owned().ok(),
            lost: AtomicU64::new(0),
            is_journal: false,
            most: AtomicU8::new(Level::Info as u8),
        }
    }

    /// From now on, lines that matter less than this are not written.
    pub fn set_level(&self, level: Level) {
        self.most.store(level as u8, Ordering::Relaxed);
    }

    /// Writes one line that says how things are.
    pub fn line(&self, text: fmt::Arguments<'_>) {
        self.write(Level::Info, text);
    }

    /// Writes one line about a change of state, or what a person asked for.
    pub fn notice(&self, text: fmt::Arguments<'_>) {
        self.write(Level::Notice, text);
    }

    /// Writes one line that a person should see, with the word in front of it.
    pub fn warning(&self, text: fmt::Arguments<'_>) {
        self.write(Level::Warning, format_args!("warning: {text}"));
    }

    /// Writes one line about why it ends, or does not start.
    pub fn error(&self, text: fmt::Arguments<'_>) {
        self.write(Level::Error, text);
    }

    fn write(&self, level: Level, text: fmt::Arguments<'_>) {
        if level as u8 > self.most.load(Ordering::Relaxed) {
            return;
        }
        let owed = self.lost.swap(0, Ordering::Relaxed);
        if owed > 0 && !self.put(Level::Warning, format_args!("{owed} log lines were lost")) {
            self.lost.fetch_add(owed + 1, Ordering::Relaxed);
            return;
        }
        if !self.put(level, text) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lines lost and not told yet.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Writes one line if that works without waiting.
    fn put(&self, level: Level, text: fmt::Arguments<'_>) -> bool {
        let Some(out) = &self.out else { return false };
        let mut line = Line { bytes: heapless::Vec::new(), full: false };
        if self.is_journal {
            let _ = line.bytes.extend_from_slice(&[b'<', b'0' + level as u8, b'>']); // it is empty
        }
        let complete = line.write_fmt(text).is_ok();
        if !complete || line.full {
            line.cut();
        }
        let _ = line.bytes.push(b'\n'); // room was kept
        let mut fds = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
        let ready = matches!(poll(&mut fds, PollTimeout::ZERO), Ok(n) if n > 0)
            && fds.iter().all(|fd| fd.revents().is_some_and(|r| r.contains(PollFlags::POLLOUT)));
        ready && nix::unistd::write(out, &line.bytes).is_ok_and(|n| n == line.bytes.len())
    }
}

/// Whether a descriptor is what the service manager says it reads: `JOURNAL_STREAM` is its device and inode (systemd.exec(5)).
fn is_it(fd: BorrowedFd<'_>, said: &OsStr) -> bool {
    let is = nix::sys::stat::fstat(fd).map(|stat| format!("{}:{}", stat.st_dev, stat.st_ino));
    is.is_ok_and(|is| said == is.as_str())
}

/// A line in the making.
struct Line {
    bytes: heapless::Vec<u8, LINE>,
    full: bool,
}

impl Line {
    /// Appends text if it fits with the line end.
    fn append(&mut self, text: &str) {
        self.full |= self.full
            || self.bytes.len() + text.len() >= LINE
            || self.bytes.extend_from_slice(text.as_bytes()).is_err();
    }

    /// Ends the line with the sign that it was cut.
    fn cut(&mut self) {
        let mut keep = self.bytes.len().min(LINE - CUT.len() - 1);
        // Not inside a character: its later bytes are 10xxxxxx.
        while keep > 0 && self.bytes.get(keep).is_some_and(|b| b & 0xC0 == 0x80) {
            keep -= 1;
        }
        self.bytes.truncate(keep);
        let _ = self.bytes.extend_from_slice(CUT.as_bytes()); // room was made
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut buffer = [0; 4];
        for c in text.chars() {
            if c.is_control() && c != '\t' {
                for escaped in c.escape_default() {
                    self.append(escaped.encode_utf8(&mut buffer));
                }
            } else {
                self.append(c.encode_utf8(&mut buffer));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn pipe() -> (std::fs::File, OwnedFd) {
        let (read, write) = nix::unistd::pipe().unwrap();
        (read.into(), write)
    }

    #[test]
    fn lines_arrive_escaped_and_cut() {
        let (mut reader, writer) = pipe();
        let journal = Journal::to(writer.as_fd());
        drop(writer);
        journal.line(format_args!("trip: {}\u{9b}é", "a\nb\x1b[31m\t"));
        journal.line(format_args!("{}", "ü".repeat(LINE)));
        drop(journal);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "trip: a\\nb\\u{1b}[31m\t\\u{9b}é");
        assert!(lines[1].ends_with("ü...") && lines[1].len() < LINE, "{}", lines[1].len());
        assert_eq!(lines.len(), 2);
    }

    #[test]
    fn a_full_pipe_costs_lines_not_time_and_the_loss_is_told() {
        let (mut reader, writer) = pipe();
        let journal = Journal::to(writer.as_fd());
        drop(writer);
        let mut written = 0;
        while journal.lost() == 0 {
            journal.line(format_args!("line {written}"));
            written += 1;
            assert!(written < 1_000_000, "the pipe never fills");
        }
        journal.line(format_args!("lost too"));
        assert!(journal.lost() >= 2);
        let mut buffer = vec![0; 65_536];
        assert!(reader.read(&mut buffer).unwrap() > 0);
        journal.line(format_args!("after"));
        assert_eq!(journal.lost(), 0);
        drop(journal);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("log lines were lost\nafter\n"), "{rest}");
    }

    #[test]
    fn the_journal_is_told_the_level_and_a_level_hides_what_matters_less() {
        let (mut reader, writer) = pipe();
        let journal = Journal { is_journal: true, ..Journal::to(writer.as_fd()) };
        drop(writer);
        let all = || {
            journal.error(format_args!("a"));
            journal.warning(format_args!("b\n<0>forged"));
            journal.notice(format_args!("c"));
            journal.line(format_args!("d"));
        };
        all();
        journal.set_level(Level::Warning);
        all();
        drop(journal);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let warned = "<3>a\n<4>warning: b\\n<0>forged\n";
        assert_eq!(text, format!("{warned}<5>c\n<6>d\n{warned}"));
    }

    #[test]
    fn only_the_very_stream_that_the_manager_names_is_the_journal() {
        let (_reader, writer) = pipe();
        let stat = nix::sys::stat::fstat(&writer).unwrap();
        let named = |device, inode| is_it(writer.as_fd(), OsStr::new(&format!("{device}:{inode}")));
        assert!(named(stat.st_dev, stat.st_ino));
        assert!(!named(stat.st_dev, stat.st_ino + 1));
        assert!(!is_it(writer.as_fd(), OsStr::new("")));
    }

    #[test]
    fn a_closed_reader_ends_nothing() {
        let (reader, writer) = pipe();
        let journal = Journal::to(writer.as_fd());
        drop(reader);
        journal.line(format_args!("nobody reads"));
        journal.line(format_args!("nobody reads"));
        assert!(journal.lost() >= 2);
    }
}
