//! The seal of a configuration: that it is whole, and for this computer.
//!
//! A file that was cut off by a power loss can still be a configuration (its last tables are missing), and one that was copied
//! from another vehicle always is. `ocpcan check --seal` writes down, beside the file, its digest and the number of the
//! computer; from then on `ocpcan run` takes that file on that computer and no other (SAFETY rows 103 and 105). A file without
//! a seal is taken as it is.
//!
//! Owns the seal's file and its reading. Relies on the digest of `config`. Never repairs anything.

use std::fmt;
use std::fs::{self, File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Where a board says its own number, below `/sys`; it stays with the board when the card goes to another one.
const SERIAL: &str = "firmware/devicetree/base/serial-number";

/// Where another computer has one of its installation.
const MACHINE_ID: &str = "/etc/machine-id";

/// Bytes of a seal that are read: ours has two words of fewer than 64.
const SEAL_BYTES: usize = 256;

/// Why a sealed file is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// It is not the file that was sealed: sealed, and found.
    Digest(String, String),
    /// It was sealed on another computer: there, and here.
    Machine(String, String),
    /// The seal itself cannot be read.
    Unreadable(String),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Digest(sealed, found) => write!(
                f,
                "the file is {found} and {sealed} was sealed: it was cut off, or changed and not sealed again; look at it, \
                 then `ocpcan check --seal`"
            ),
            Self::Machine(sealed, here) => write!(
                f,
                "the file was sealed for computer {sealed} and this is {here}: is it this vehicle's? If so, `ocpcan check --seal`"
            ),
            Self::Unreadable(why) => {
                write!(f, "its seal cannot be read ({why}); `ocpcan check --seal` makes a new one")
            }
        }
    }
}

/// Where the seal of a file is.
pub(super) fn path(config: &Path) -> PathBuf {
    let mut name = config.as_os_str().to_owned();
    name.push(".seal");
    PathBuf::from(name)
}

/// The number of this computer; "unknown" where it has none.
fn machine(sys: &Path) -> String {
    let word = |path: &Path| {
        let text = fs::read_to_string(path).ok()?;
        let word: String = text.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
        (!word.is_empty()).then_some(word)
    };
    word(&sys.join(SERIAL)).or_else(|| word(Path::new(MACHINE_ID))).unwrap_or_else(|| "unknown".to_owned())
}

/// Seals a file: the seal is whole and on the disk, or the old one stays.
pub(super) fn write(config: &Path, digest: &str, sys: &Path) -> io::Result<()> {
    let place = path(config);
    let draft = place.with_extension("seal.new");
    let mut file = File::create(&draft)?;
    // The service's user reads it, whatever umask the person has who seals.
    file.set_permissions(Permissions::from_mode(0o644))?;
    writeln!(file, "{digest} {}", machine(sys))?;
    file.sync_all()?;
    // What was sealed must be on the disk too: a power cut in the next minute is what this is for.
    File::open(config)?.sync_all()?;
    fs::rename(&draft, &place)?;
    let folder =
        place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    File::open(folder)?.sync_all()
}

/// Whether a file that was read, with this digest, is the one that was sealed. False where there is no seal.
pub(super) fn check(config: &Path, digest: &str, sys: &Path) -> Result<bool, Broken> {
    let bytes = match fs::read(path(config)) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(Broken::Unreadable(error.to_string())),
    };
    let text =
        String::from_utf8_lossy(bytes.get(..bytes.len().min(SEAL_BYTES)).unwrap_or_default()).into_owned();
    let words: Vec<&str> = text.split_whitespace().collect();
    let [sealed, there] = words[..] else { return Err(Broken::Unreadable("cut off, or no seal".to_owned())) };
    if sealed != digest {
        return Err(Broken::Digest(sealed.escape_debug().to_string(), digest.to_owned()));
    }
    let here = machine(sys);
    if there != here {
        return Err(Broken::Machine(there.escape_debug().to_string(), here));
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_103_and_105_a_seal_holds_for_one_file_on_one_computer() {
        let folder = std::env::temp_dir().join(format!("ocpcan-seal-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let board = |name: &str, number: &str| {
            let sys = folder.join(name);
            let file = sys.join(SERIAL);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            // As the device tree has it: ended by a zero byte.
            fs::write(file, format!("{number}\0")).unwrap();
            sys
        };
        let (here, there) = (board("here", "100000003d1f"), board("there", "10000000aaaa"));
        let config = folder.join("ocpcan.toml");
        fs::write(&config, "x").unwrap();
        assert_eq!(check(&config, "00ff", &here), Ok(false), "no seal");
        write(&config, "00ff", &here).unwrap();
        assert_eq!(check(&config, "00ff", &here), Ok(true));
        assert!(matches!(check(&config, "00fe", &here), Err(Broken::Digest(..))));
        match check(&config, "00ff", &there) {
            Err(Broken::Machine(sealed, found)) => {
                assert_eq!((sealed.as_str(), found.as_str()), ("100000003d1f", "10000000aaaa"));
            }
            other => panic!("{other:?}"),
        }
        let seal = fs::read(path(&config)).unwrap();
        for size in 0..seal.len() - 1 {
            fs::write(path(&config), &seal[..size]).unwrap();
            check(&config, "00ff", &here).unwrap_err();
        }
        write(&config, "00fe", &there).unwrap();
        assert_eq!(check(&config, "00fe", &there), Ok(true), "sealed anew");
        assert!(!path(&config).with_extension("seal.new").exists());
        assert_eq!(
            fs::metadata(path(&config)).unwrap().permissions().mode() & 0o777,
            0o644,
            "the service reads it"
        );
        fs::remove_dir_all(&folder).unwrap();
    }
}
