//! One screen about a gateway, from the answer to `GwGetStatus`.
//!
//! Owns the layout and the words. Relies on the answer alone, and on no key in it: what is missing is a dash. Never lets a
//! control character out.

use serde_json::Value;

use crate::cli::station::clean;

/// Width of a terminal that has no other.
const COLUMNS: usize = 80;

/// Width of the names at the left.
pub(in crate::cli) const NAMES: usize = 11;

/// Width of the other end of a link.
const WHO: usize = 28;

/// Events on the screen.
const EVENTS: usize = 5;

/// Longest text of one field.
const FIELD: usize = 200;

/// Whether colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Colours {
    No,
    Yes,
}

/// What a colour says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Tone {
    Good,
    Waiting,
    Bad,
}

impl Colours {
    pub(in crate::cli) fn paint(self, tone: Tone, text: &str) -> String {
        let code = match (self, tone) {
            (Self::No, _) => return text.to_owned(),
            (Self::Yes, Tone::Good) => 32,
            (Self::Yes, Tone::Waiting) => 33,
            (Self::Yes, Tone::Bad) => 31,
        };
        format!("\x1b[1;{code}m{text}\x1b[0m")
    }
}

/// The state's name as the gateway tells it.
pub(super) fn state(status: &Value) -> &str {
    status.get("State").and_then(Value::as_str).unwrap_or("-")
}

/// What must change for a screen to be printed anew where there is no terminal: state, faults, the newest event.
pub(super) fn marks(status: &Value) -> String {
    let faults: Vec<String> = list(status, "Faults").iter().map(|fault| text(fault, "Name")).collect();
    let newest = list(status, "Events").last().map(|event| text(event, "Number"));
    format!("{} {} {}", clean(state(status), FIELD), faults.join(","), newest.unwrap_or_default())
}

/// The whole screen.
pub(super) fn screen(status: &Value, colours: Colours) -> String {
    let mut out = String::new();
    head(&mut out, status, colours);
    why(&mut out, status, colours);
    checklist(&mut out, status, colours);
    sources(&mut out, status);
    buses(&mut out, status, colours);
    links(&mut out, status, colours);
    peers(&mut out, status, colours);
    latency(&mut out, status);
    events(&mut out, status);
    out
}

/// The name at the left, then the text; what does not fit into the width goes on below.
fn row(out: &mut String, name: &str, text: &str) {
    hanging(out, name, text, NAMES + 2);
}

/// The same, and the lines below begin at that column.
pub(in crate::cli) fn hanging(out: &mut String, name: &str, text: &str, column: usize) {
    let mut line = format!("{name:<NAMES$}{text}");
    // Nothing is broken in front of the text: a line that went on would never get shorter.
    let mut from = NAMES;
    while visible(&line) > COLUMNS {
        let at = break_at(&line, from);
        let rest = line.split_off(at);
        out.push_str(line.trim_end());
        out.push('\n');
        line = format!("{:column$}{}", "", rest.trim_start());
        from = column;
    }
    out.push_str(line.trim_end());
    out.push('\n');
}

/// Where a line that is too long is broken: at the last space behind `from` that fits, or where the width ends.
fn break_at(line: &str, from: usize) -> usize {
    let (mut width, mut in_escape, mut space) = (0, false, None);
    for (at, c) in line.char_indices() {
        in_escape |= c == '\x1b';
        if in_escape {
            in_escape = c != 'm';
            continue;
        }
        if c == ' ' && width > from {
            space = Some(at);
        }
        if width == COLUMNS {
            return space.unwrap_or(at);
        }
        width += 1;
    }
    line.len()
}

/// Characters that a terminal shows.
fn visible(line: &str) -> usize {
    let mut in_escape = false;
    line.chars()
        .filter(|c| {
            in_escape |= *c == '\x1b';
            let is_shown = !in_escape;
            in_escape &= *c != 'm';
            is_shown
        })
        .count()
}

/// The elements of a list; none where there is no list.
fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The word for a list without elements; a dash where there is no list.
fn none(value: &Value, key: &str) -> &'static str {
    if value.get(key).is_some_and(Value::is_array) { "none" } else { "-" }
}

/// A field as text; a dash where it is missing or `null`.
fn text(value: &Value, key: &str) -> String {
    match value.get(key) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => clean(text, FIELD),
        Some(other) => clean(&other.to_string(), FIELD),
    }
}

fn number(value: &Value, key: &str) -> Option<f64> {
    value.get(key).and_then(Value::as_f64).filter(|number| number.is_finite())
}

fn flag(value: &Value, key: &str) -> Option<bool> {
    value.get(key).and_then(Value::as_bool)
}

/// A number with so many digits behind the point; a dash where there is none.
fn digits(value: &Value, key: &str, places: usize) -> String {
    number(value, key).map_or_else(|| "-".to_owned(), |number| format!("{number:.places$}"))
}

/// A time in the unit that is read at a glance.
fn time(ms: Option<f64>) -> String {
    let Some(ms) = ms else { return "-".to_owned() };
    let s = ms / 1_000.0;
    // Whole units of a time that is finite and not negative; a larger one than a u64 holds is shown as its greatest.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
    let whole = s as u64;
    if ms < 10.0 {
        format!("{ms:.1} ms")
    } else if ms < 1_000.0 {
        format!("{ms:.0} ms")
    } else if s < 100.0 {
        format!("{s:.1} s")
    } else if whole < 7_200 {
        format!("{} min {:02} s", whole / 60, whole % 60)
    } else if whole < 172_800 {
        format!("{} h {:02} min", whole / 3_600, whole / 60 % 60)
    } else {
        format!("{} d {:02} h", whole / 86_400, whole / 3_600 % 24)
    }
}

/// A fault in words, with the name that the documents use.
fn fault(value: &Value, name: &str) -> String {
    format!("{} ({})", text(value, "Text"), text(value, name))
}

fn head(out: &mut String, status: &Value, colours: Colours) {
    let first = format!("{} ({})", text(status, "Vehicle"), text(status, "Role"));
    row(out, "Vehicle", &first);
    let program = format!(
        "ocpcan {}, up {}, configuration {}",
        text(status, "Version"),
        time(number(status, "UptimeMs")),
        text(status, "ConfigDigest")
    );
    row(out, "Gateway", &program);
    if flag(status, "ListenOnly") == Some(true) {
        row(out, "", "listens only: sends nothing to any bus");
    }
    // Gateways before this record have none.
    if let Some(record) = status.get("RealTime").filter(|record| record.is_object()) {
        row(out, "Real time", &real_time(record, colours));
    }
}

/// Whether the kernel gave what keeps the gateway in time.
fn real_time(record: &Value, colours: Colours) -> String {
    let (granted, refused) =
        (number(record, "Threads").unwrap_or(0.0), number(record, "Refused").unwrap_or(0.0));
    let threads = if refused > 0.0 {
        let why = text(record, "RefusedWhy");
        colours.paint(Tone::Bad, &format!("{refused} threads without priority: {why}"))
    } else if granted > 0.0 {
        format!("{granted} threads at real-time priority")
    } else {
        "no priority asked for".to_owned()
    };
    let memory = match flag(record, "MemoryLocked") {
        Some(true) => "memory locked".to_owned(),
        Some(false) => colours.paint(Tone::Bad, &format!("memory not locked: {}", text(record, "MemoryWhy"))),
        None => "no locked memory asked for".to_owned(),
    };
    format!("{threads}; {memory}")
}

/// The state and why.
fn why(out: &mut String, status: &Value, colours: Colours) {
    let name = state(status);
    let tone = match name {
        "ARMED" | "READY" => Tone::Good,
        "LOCKOUT" | "STOPPING" => Tone::Bad,
        _ => Tone::Waiting,
    };
    out.push('\n');
    let since = time(number(status, "InStateMs"));
    row(out, "State", &format!("{} for {since}", colours.paint(tone, &clean(name, FIELD))));
    let faults = list(status, "Faults");
    for (at, one) in faults.iter().enumerate() {
        row(out, if at == 0 { "Wrong now" } else { "" }, &colours.paint(Tone::Bad, &fault(one, "Name")));
    }
    if faults.is_empty() {
        let word = if none(status, "Faults") == "none" { "nothing" } else { "-" };
        row(out, "Wrong now", word);
    }
    if let Some(lockout) = status.get("Lockout").filter(|lockout| lockout.is_object()) {
        row(out, "Lockout", &colours.paint(Tone::Bad, &fault(lockout, "Fault")));
    }
    if let Some(cause) = status.get("Cause").filter(|cause| cause.is_object()) {
        let ago = time(number(cause, "AgeMs"));
        row(out, "Last trip", &format!("{ago} ago, from {}: {}", text(cause, "From"), fault(cause, "Fault")));
        let answered = status
            .get("Reaction")
            .filter(|reaction| reaction.get("Fault") == cause.get("Fault"))
            .map(|reaction| format!(", answered on the bus in {} ms", digits(reaction, "Ms", 1)));
        row(out, "", &format!("class {}{}", text(cause, "Class"), answered.unwrap_or_default()));
    } else {
        row(out, "Last trip", "none");
    }
    let standing = match flag(status, "Standing") {
        Some(true) => "yes",
        Some(false) => "no, or not known",
        None => "-",
    };
    let scale =
        number(status, "ThrottleScale").map_or_else(|| "-".to_owned(), |s| format!("{:.0} %", s * 100.0));
    row(out, "Standstill", &format!("{standing}; throttle at most {scale}"));
    let (arms, trips) = (text(status, "Arms"), text(status, "Trips"));
    row(out, "So far", &format!("armed: {arms}, tripped: {trips}"));
}

/// What is missing to arm.
fn checklist(out: &mut String, status: &Value, colours: Colours) {
    out.push('\n');
    let points = list(status, "Checklist");
    let next = text(status, "Next");
    row(
        out,
        "To arm",
        if next == "-" && state(status) == "ARMED" { "armed: the operator drives" } else { &next },
    );
    for point in points {
        let is_met = flag(point, "Met") == Some(true);
        let mark =
            if is_met { colours.paint(Tone::Good, "[x]") } else { colours.paint(Tone::Waiting, "[ ]") };
        let todo = if is_met { String::new() } else { text(point, "Todo") };
        row(out, "", &format!("{mark} {:<12} {todo}", text(point, "Name").replace('_', " ")));
    }
}

/// How old the last command of each source is.
fn sources(out: &mut String, status: &Value) {
    out.push('\n');
    let sources = list(status, "Sources");
    for (at, source) in sources.iter().enumerate() {
        let age = number(source, "AgeMs")
            .map_or_else(|| "never".to_owned(), |ms| format!("{} ago", time(Some(ms))));
        row(out, if at == 0 { "Commands" } else { "" }, &format!("{:<24} {age}", text(source, "Name")));
    }
    if sources.is_empty() {
        row(out, "Commands", none(status, "Sources"));
    }
}

fn buses(out: &mut String, status: &Value, colours: Colours) {
    out.push('\n');
    let title = format!(
        "{:<10} {:<8} {:<12} {:>6} {:>9} {:>7} {:>7}",
        "interface", "bit/s", "state", "load", "frames/s", "errors", "dropped"
    );
    row(out, "Buses", &title);
    for bus in list(status, "Buses") {
        let name = text(bus, "State");
        let tone = match name.as_str() {
            "ErrorActive" | "Up" => Tone::Good,
            "ErrorWarning" => Tone::Waiting,
            _ => Tone::Bad,
        };
        let rate = number(bus, "BitrateBps").map_or_else(|| "-".to_owned(), bit_rate);
        let load = number(bus, "LoadPercent").map_or_else(|| "-".to_owned(), |load| format!("{load:.1} %"));
        let line = format!(
            "{:<10} {rate:<8} {} {load:>6} {:>9} {:>7} {:>7}",
            clean(&text(bus, "Interface"), 10),
            colours.paint(tone, &format!("{name:<12}")),
            digits(bus, "FramesPerS", 0),
            text(bus, "ErrorMessages"),
            text(bus, "Dropped")
        );
        row(out, &format!("  {}", clean(&text(bus, "Name"), NAMES - 3)), &line);
        let counts = [text(bus, "TxErrors"), text(bus, "RxErrors")];
        if counts.iter().any(|count| count != "-" && count != "0") {
            row(out, "", &format!("error counters: sending {}, receiving {}", counts[0], counts[1]));
        }
    }
    if list(status, "Buses").is_empty() {
        row(out, "", none(status, "Buses"));
    }
}

/// Bits per second as people say it.
pub(in crate::cli) fn bit_rate(bps: f64) -> String {
    if bps >= 1e6 { format!("{} M", bps / 1e6) } else { format!("{} k", bps / 1e3) }
}

fn links(out: &mut String, status: &Value, colours: Colours) {
    out.push('\n');
    let links = list(status, "Links");
    for (at, link) in links.iter().enumerate() {
        let since = time(number(link, "ForMs"));
        let is_told = number(link, "ForMs").is_some();
        let said = match flag(link, "Connected") {
            Some(connected) if !is_told && text(link, "Why") != "-" => {
                colours.paint(if connected { Tone::Good } else { Tone::Bad }, &text(link, "Why"))
            }
            Some(true) => colours.paint(Tone::Good, &format!("connected for {since}")),
            Some(false) => {
                let why = text(link, "Why");
                let why = if why == "-" { String::new() } else { format!(": {why}") };
                format!("{}{why}", colours.paint(Tone::Bad, &format!("not connected for {since}")))
            }
            None => "-".to_owned(),
        };
        let who = format!("{} {}", text(link, "Name"), text(link, "Address"));
        let line = format!("{who:<WHO$} {said}");
        hanging(out, if at == 0 { "Links" } else { "" }, &line, NAMES + WHO + 1);
    }
    if links.is_empty() {
        row(out, "Links", none(status, "Links"));
    }
}

fn peers(out: &mut String, status: &Value, colours: Colours) {
    let peers = list(status, "Peers");
    for (at, peer) in peers.iter().enumerate() {
        let since = time(number(peer, "ForMs"));
        let said = match flag(peer, "Agreed") {
            Some(true) => colours.paint(Tone::Good, &format!("for {since}")),
            Some(false) => colours.paint(Tone::Waiting, "no version yet"),
            None => "-".to_owned(),
        };
        let who = format!("{} on {}", text(peer, "Address"), text(peer, "Bus"));
        let counts = format!(
            "{} in, {} out, {} waiting",
            text(peer, "FramesToBus"),
            text(peer, "FramesToPeer"),
            text(peer, "Waiting")
        );
        let line = format!("{who:<WHO$} {said}; {counts}");
        hanging(out, if at == 0 { "Peers" } else { "" }, &line, NAMES + WHO + 1);
    }
    if peers.is_empty() {
        row(out, "Peers", none(status, "Peers"));
    }
}

fn latency(out: &mut String, status: &Value) {
    out.push('\n');
    row(out, "Latency", &format!("{:<32} {:>8} {:>8} {:>8} {:>8}", "ms", "p50", "p99", "max", "samples"));
    for one in list(status, "Latency") {
        let figures = format!(
            "{:<32} {:>8} {:>8} {:>8} {:>8}",
            clean(&text(one, "Name"), 32),
            digits(one, "P50Ms", 1),
            digits(one, "P99Ms", 1),
            digits(one, "MaxMs", 1),
            text(one, "Count")
        );
        row(out, "", &figures);
    }
    if list(status, "Latency").is_empty() {
        row(out, "", none(status, "Latency"));
    }
}

/// The last events, the newest at the end.
fn events(out: &mut String, status: &Value) {
    out.push('\n');
    let all = list(status, "Events");
    let last = all.get(all.len().saturating_sub(EVENTS)..).unwrap_or_default();
    for (at, event) in last.iter().enumerate() {
        let what = match text(event, "Text") {
            none if none == "-" => format!("{} {}", text(event, "Topic"), text(event, "DeviceId")),
            said => format!("{}: {said}", text(event, "Topic")),
        };
        let age = time(number(event, "AgeMs"));
        let line = format!("{:>5} {age:>11}  {what}", text(event, "Number"));
        hanging(out, if at == 0 { "Events" } else { "" }, &line, NAMES + 19);
    }
    if last.is_empty() {
        row(out, "Events", none(status, "Events"));
    }
}

#[cfg(test)]
mod tests;
