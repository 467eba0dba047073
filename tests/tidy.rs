//! The rules of the architecture that no compiler checks, by reading the source.
//!
//! Owns the lists: who may use whom, what a pure room must not name, the few exceptions with their reasons. Relies on
//! the source tree beside the manifest. Never judges style: rustfmt and clippy do.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Who may name whom in `crate::` paths; a room may always name itself. Rooms are the folders and files of `src`.
const ROOMS: &[(&str, &[&str])] = &[
    ("limits", &[]),
    ("time", &[]),
    ("can", &["limits", "time"]),
    ("proto", &["limits", "time", "can"]),
    ("signals", &["limits", "time", "can"]),
    ("safety", &["limits", "time", "can", "signals"]),
    ("nodes", &["limits", "time", "can", "proto", "signals", "safety"]),
    ("config", &["limits", "time", "can", "signals", "safety"]),
    ("io", &["limits", "time", "can"]),
    ("topology", &["limits", "time", "can", "signals", "safety", "nodes", "io"]),
    (
        "threads",
        &["limits", "time", "can", "proto", "signals", "safety", "nodes", "config", "io", "topology"],
    ),
    ("sim", &["limits", "time", "can", "proto", "signals"]),
    ("sim/live", &["limits", "time", "can", "proto", "signals", "sim", "io"]),
    // The whole gateway without its threads, between simulators: it stands where `threads` stands.
    ("sim/world", &["limits", "time", "can", "proto", "signals", "safety", "nodes", "config", "sim"]),
    (
        "cli",
        &[
            "limits", "time", "can", "proto", "signals", "safety", "nodes", "config", "io", "topology",
            "threads", "sim",
        ],
    ),
];

/// Rooms without a clock, a socket, a thread or a lock.
const PURE: &[&str] =
    &["limits", "time", "can", "proto", "signals", "safety", "nodes", "config", "sim", "sim/world"];

/// What a pure room must not name.
const IMPURE: &[&str] = &[
    "std::time::Instant",
    "SystemTime",
    "std::thread",
    "thread::spawn",
    "thread::sleep",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "UnixStream",
    "UnixDatagram",
    "std::process",
    "Mutex",
    "RwLock",
    "Condvar",
    "socketcan::",
    "nix::",
    "libc::",
    "crossbeam",
];

/// Rooms in which nothing may panic outside tests: the command path.
const NEVER_PANICS: &[&str] = &["can", "proto", "signals", "safety", "nodes"];

/// Longest file without its `mod tests`.
const LINES: usize = 500;

/// Longer files: the most they may have, and why they are not cut.
const LONGER: &[(&str, usize, &str)] = &[
    ("src/io/sys.rs", 540, "the one file for unsafe code: every call that the crates hide"),
    ("src/proto/json.rs", 560, "one reader; its states make no sense apart"),
    ("src/signals/dbc.rs", 620, "one format, from the file to its checked messages"),
    ("src/proto/ocp/fuzz.rs", 520, "the properties of one protocol; nothing outside tests calls it"),
];

/// Library files that print or panic on purpose, and why.
const FOR_TESTS: &[(&str, &str)] = &[
    (
        "src/proto/ocp/fuzz.rs",
        "properties for tests and fuzz targets: they report by panicking and print their seed",
    ),
    ("src/proto/tcpcan/fuzz.rs", "properties for tests and fuzz targets: they report by panicking"),
    ("src/proto/tcpcan/fuzz/outbox.rs", "the same"),
    ("src/proto/ocp/player/fuzz.rs", "the same"),
    ("src/proto/rcsp/fuzz.rs", "the same"),
    ("src/threads/fault_point.rs", "in no release: tells a test what a thread was refused"),
    ("src/nodes/rcsp/fuzz.rs", "the same"),
    ("src/proto/assetto/fuzz.rs", "the same"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file below `folder` with this ending, as paths from the root with `/`.
fn files(folder: &str, ending: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            // In a second working tree `.git` is a file.
            if ["target", ".git", "corpus", "artifacts", "__pycache__"].contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if name.ends_with(ending) {
                found.push(relative(&path));
            }
        }
    }
    found.sort();
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().to_string_lossy().into_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The Rust sources of the library and the binary.
fn sources() -> Vec<String> {
    let found = files("src", ".rs");
    assert!(found.len() > 40, "the source tree is not where it should be: {} files", found.len());
    found
}

/// Whether the whole file is a test.
fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/")
}

/// The lines in front of the file's own `mod tests`, with their numbers from 1.
fn before_tests(text: &str) -> Vec<(usize, &str)> {
    let lines: Vec<&str> = text.lines().collect();
    let end = lines
        .windows(2)
        .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].trim_start().starts_with("mod tests"))
        .unwrap_or(lines.len());
    lines[..end].iter().enumerate().map(|(at, line)| (at + 1, *line)).collect()
}

/// The line without its comment. A `//` in a text is taken for one too, which hides nothing that is looked for here.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// The room of a source file: its longest match in [`ROOMS`].
fn room(path: &str) -> Option<&'static str> {
    let inside = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let belongs = |room: &str| inside == room || inside.starts_with(&format!("{room}/"));
    ROOMS.iter().map(|(room, _)| *room).filter(|room| belongs(room)).max_by_key(|room| room.len())
}

/// The names that follow `crate::` in a text, also those in a list of braces.
fn crate_names(text: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("crate::") {
        // `$crate::` and `some_crate::` are other things.
        if text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0;
                let mut start = true;
                for (i, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => start = true,
                        c if start && !c.is_whitespace() => {
                            names.insert(word(&list[i..]));
                            start = false;
                        }
                        _ => {}
                    }
                }
            }
            None => {
                names.insert(word(rest));
            }
        }
    }
    names
}

/// Fails with every finding at once.
fn expect_clean(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}\n  {}\n", findings.join("\n  "));
}

#[test]
fn dependencies_point_one_way() {
    assert_eq!(
        crate_names("use crate::{io::{clock, sys}, time::Instant};").into_iter().collect::<Vec<_>>(),
        ["io", "time"]
    );
    assert!(crate_names("some_crate::x").is_empty());
    let rooms: BTreeSet<&str> = ROOMS.iter().map(|(room, _)| *room).collect();
    let mut findings = Vec::new();
    for path in sources() {
        if ["src/lib.rs", "src/main.rs"].contains(&path.as_str()) {
            continue;
        }
        let Some(own) = room(&path) else {
            findings.push(format!("{path}: in no room; add it to the list with what it may use"));
            continue;
        };
        let (_, allowed) = ROOMS.iter().find(|(room, _)| *room == own).unwrap();
        // Tests may use the simulators and the worlds above their own room.
        if is_test_file(&path) {
            continue;
        }
        let whole = read(&path);
        let text: String = before_tests(&whole).iter().map(|(_, line)| format!("{}\n", code(line))).collect();
        for name in crate_names(&text) {
            let top = own.split('/').next().unwrap();
            if rooms.contains(name.as_str()) && name != top && !allowed.contains(&name.as_str()) {
                findings.push(format!("{path}: {own} uses {name}"));
            }
        }
    }
    expect_clean("limits, time -> can -> proto, signals -> safety -> nodes -> threads -> cli", &findings);
}

#[test]
fn the_binary_is_the_command_line_and_nothing_else() {
    let main = read("src/main.rs");
    let used: Vec<&str> = main.lines().map(code).filter(|line| line.contains("ocpcan::")).collect();
    assert!(!used.is_empty() && used.iter().all(|line| line.contains("ocpcan::cli")), "{used:?}");
}

#[test]
fn pure_rooms_have_no_clock_socket_thread_or_lock() {
    let mut findings = Vec::new();
    for path in sources() {
        let Some(own) = room(&path).filter(|own| PURE.contains(own)) else { continue };
        if is_test_file(&path) {
            continue;
        }
        for (at, line) in before_tests(&read(&path)) {
            for word in IMPURE {
                if code(line).contains(word) {
                    findings.push(format!("{path}:{at}: {own} names {word}"));
                }
            }
        }
    }
    expect_clean("time is an argument, and waiting is for threads/", &findings);
}

#[test]
fn every_file_says_what_it_is() {
    let mut all = sources();
    all.extend(files("tests", ".rs"));
    all.extend(files("benches", ".rs"));
    all.extend(files("fuzz", ".rs"));
    let findings: Vec<String> = all.into_iter().filter(|path| !read(path).starts_with("//! ")).collect();
    expect_clean("these files do not begin with `//!`", &findings);
}

#[test]
fn files_stay_short() {
    let mut findings = Vec::new();
    for path in sources() {
        if is_test_file(&path) {
            continue;
        }
        let lines = before_tests(&read(&path)).len();
        let exception = LONGER.iter().find(|(name, _, _)| *name == path);
        let most = exception.map_or(LINES, |(_, most, _)| *most);
        if lines > most {
            findings.push(format!("{path}: {lines} lines without its tests, at most {most}"));
        }
    }
    for (path, _, _) in LONGER {
        let needed = root().join(path).exists() && before_tests(&read(path)).len() > LINES;
        if !needed {
            findings.push(format!("{path}: no longer needs its exception"));
        }
    }
    expect_clean("split by meaning", &findings);
}

#[test]
fn nothing_unfinished_and_no_printing_in_the_library() {
    let unfinished =
        [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("todo", "!("), concat!("unimpl", "emented!(")];
    let printing = ["println!", "print!", "dbg!("];
    let mut findings = Vec::new();
    for path in sources() {
        let text = read(&path);
        for (at, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line)) {
            for word in unfinished {
                if line.contains(word) {
                    findings.push(format!("{path}:{at}: {word}"));
                }
            }
        }
        let may_print = path.starts_with("src/cli") || FOR_TESTS.iter().any(|(name, _)| *name == path);
        if may_print || is_test_file(&path) {
            continue;
        }
        for (at, line) in before_tests(&text) {
            for word in printing {
                if code(line).contains(word) {
                    findings.push(format!("{path}:{at}: {word}"));
                }
            }
        }
    }
    expect_clean("finish it, or say what is open in SAFETY.md; only cli/ prints", &findings);
}

#[test]
fn the_command_path_does_not_panic() {
    let words = [".unwrap()", ".expect(", "panic!(", "unreachable!(", " assert!(", " assert_eq!("];
    let mut findings = Vec::new();
    for path in sources() {
        let checked = room(&path).is_some_and(|own| NEVER_PANICS.contains(&own));
        if !checked || is_test_file(&path) || FOR_TESTS.iter().any(|(name, _)| *name == path) {
            continue;
        }
        for (at, line) in before_tests(&read(&path)) {
            // An assertion in a constant is the compiler's.
            let checked = !line.starts_with("const _");
            for word in words {
                if checked && code(line).contains(word) {
                    findings.push(format!("{path}:{at}: {word}"));
                }
            }
        }
    }
    expect_clean("what arrives must never end the program", &findings);
    for room in NEVER_PANICS {
        let text = read(&format!("src/{room}/mod.rs"));
        for lint in ["unwrap_used", "expect_used", "panic", "indexing_slicing"] {
            let denied =
                text.lines().any(|line| !line.starts_with("//") && line.contains(&format!("clippy::{lint}")));
            assert!(denied, "src/{room}/mod.rs does not deny clippy::{lint}");
        }
    }
}

#[test]
fn unsafe_code_is_in_one_file() {
    let word = concat!("un", "safe");
    let mut findings = Vec::new();
    for path in sources() {
        if path == "src/io/sys.rs" {
            continue;
        }
        for (at, line) in read(&path).lines().enumerate() {
            let opens = |start: &str| code(line).contains(&format!("{word} {start}"));
            if ["{", "fn", "impl", "trait", "extern"].into_iter().any(opens)
                || code(line).contains(concat!("allow(un", "safe_code"))
            {
                findings.push(format!("{path}:{}", at + 1));
            }
        }
    }
    expect_clean("only io/sys.rs", &findings);
    assert!(read("src/io/sys.rs").contains(&format!("{word} {{")), "io/sys.rs is where it is looked for");
    assert!(read("Cargo.toml").contains(&format!("{word}_code = \"deny\"")));
}

#[test]
fn every_dependency_says_why_it_is_there() {
    let manifest = read("Cargo.toml");
    let mut section = "";
    let mut before = "";
    let mut seen = 0;
    let mut findings = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies")
            && line.contains('=')
            && !line.starts_with([' ', '#', ']', '}'])
        {
            seen += 1;
            if !before.starts_with("# ") {
                findings.push(line.to_owned());
            }
        }
        before = line;
    }
    assert!(seen > 10, "{seen} dependencies found");
    expect_clean("a line of reason above each dependency", &findings);
}

#[test]
fn nothing_of_a_workplace_is_in_the_repository() {
    // Pieced together, so that this file is not its own finding.
    let words =
        [concat!("/wo", "rk/"), concat!("fa", "rm-"), concat!("issues", " show"), concat!("wo", "rk/shared")];
    let mut findings = Vec::new();
    for path in files("", "") {
        // What is not text holds no path of ours.
        let Ok(text) = fs::read_to_string(root().join(&path)) else { continue };
        for (at, line) in text.lines().enumerate() {
            for word in words {
                if line.contains(word) {
                    findings.push(format!("{path}:{}: {word}", at + 1));
                }
            }
        }
    }
    expect_clean("paths and tools of a workplace", &findings);
}

/// The texts between single backticks outside fenced blocks, with their line.
fn backticked(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            found.extend(line.split('`').skip(1).step_by(2).map(|piece| (at + 1, piece.to_owned())));
        }
    }
    found
}

/// Whether the file defines a test or another function of this name (Rust or Python).
fn defines(path: &Path, name: &str) -> bool {
    let Ok(text) = fs::read_to_string(path) else { return false };
    text.contains(&format!("fn {name}(")) || text.contains(&format!("def {name}("))
}

/// The file that the first half of `file::test` means.
fn proof_file(file: &str) -> PathBuf {
    root().join(file)
}

#[test]
fn the_proofs_named_in_safety_md_exist() {
    let text = read("SAFETY.md");
    let mut findings = Vec::new();
    let mut proofs = 0;
    for (at, piece) in backticked(&text) {
        let Some((file, name)) = piece.rsplit_once("::") else { continue };
        if file == "file" {
            continue; // the sentence that explains the form
        }
        proofs += 1;
        if !defines(&proof_file(file), name) {
            findings.push(format!("SAFETY.md:{at}: {piece}"));
        }
    }
    assert!(proofs > 50, "only {proofs} proofs found in SAFETY.md");
    expect_clean("these tests do not exist", &findings);
}

#[test]
fn safety_md_has_a_row_for_each_of_the_110_faults_and_a_proof_or_a_reason_in_each() {
    let text = read("SAFETY.md");
    let rows = text.split("<!-- rows -->").nth(1).expect("the marker in front of the rows");
    let mut numbers = BTreeSet::new();
    let mut findings = Vec::new();
    for line in rows.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Ok(number) = cells[0].trim_matches('|').trim().parse::<u32>() else { continue };
        if !numbers.insert(number) {
            findings.push(format!("row {number} is there twice"));
        }
        let proof = cells.last().copied().unwrap_or_default();
        let proven = proof.contains("::") && proof.contains('`');
        let open = proof.contains("open") && proof.contains(':');
        if !proven && !open {
            findings.push(format!("row {number}: neither a test nor `open` with what it waits for: {proof}"));
        }
    }
    findings.extend((1..=110).filter(|n| !numbers.contains(n)).map(|n| format!("row {n} is missing")));
    expect_clean("SAFETY.md section 7", &findings);
}

#[test]
fn files_named_in_the_documents_exist() {
    let mut findings = Vec::new();
    let mut seen = 0;
    for document in ["README.md", "ARCHITECTURE.md", "SAFETY.md", "CHANGELOG.md"] {
        let text = read(document);
        let links = text.lines().enumerate().flat_map(|(at, line)| {
            line.split("](")
                .skip(1)
                .filter_map(move |rest| Some((at + 1, rest.split(')').next()?.to_owned())))
        });
        let links = links.filter(|(_, link)| !link.contains("://") && !link.starts_with('#'));
        let paths = backticked(&text).into_iter().filter(|(_, piece)| {
            let of_ours = ["src/", "tests/", "deploy/", "benches/", "fuzz/", ".ci/", ".github/"];
            of_ours.iter().any(|start| piece.starts_with(start))
        });
        for (at, name) in links.chain(paths) {
            // `file::test`, `tests/run vcan`, `deploy/x.toml:12`.
            let name = name.split("::").next().unwrap().split([' ', '#']).next().unwrap().to_owned();
            if name.contains('*') {
                continue;
            }
            seen += 1;
            if !root().join(&name).exists() {
                findings.push(format!("{document}:{at}: {name}"));
            }
        }
        // Rooms of the source tree, as ARCHITECTURE.md names them: `safety/core.rs`.
        for (at, piece) in backticked(&text) {
            let room = piece.split('/').next().unwrap_or_default();
            let is_room = piece.contains('/') && root().join("src").join(room).is_dir() && room != "tests";
            let plain = piece.chars().all(|c| c.is_alphanumeric() || "_/.".contains(c));
            if is_room && plain && !room.is_empty() && !root().join("src").join(&piece).exists() {
                let as_module = root().join("src").join(format!("{piece}.rs"));
                if !as_module.exists() {
                    findings.push(format!("{document}:{at}: src/{piece}"));
                }
            }
        }
    }
    assert!(seen > 20, "only {seen} names found");
    expect_clean("these files do not exist", &findings);
}
