//! What systemd says of the installed service, and whether the service's user can read what it needs.
//!
//! Owns one call of `systemctl show` and the reading of its answer. Relies on the file system's modes: whoever asks is often
//! root, who may read everything. Never says anything where there is no systemd or no such unit.

use std::ffi::CString;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Group, User, getgrouplist};

use super::super::facts::{ServiceFacts, Unreadable};

/// The unit of the package.
const UNIT: &str = "ocpcan.service";

/// Folders that `ProtectHome=yes` hides.
const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

/// Folders that `PrivateTmp=yes` replaces by empty ones.
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];

/// Asks systemd; none where it does not know the unit. `files` are those that the service reads.
pub(super) fn ask(files: &[PathBuf]) -> Option<ServiceFacts> {
    let properties = "LoadState,ActiveState,SubState,Result,UnitFileState,User,Group,SupplementaryGroups,InaccessiblePaths,\
                      ProtectHome,PrivateTmp";
    let output = Command::new("systemctl").args(["show", "--property", properties, UNIT]).output().ok()?;
    read(&String::from_utf8_lossy(&output.stdout), files)
}

/// Reads `KEY=VALUE` lines.
fn read(text: &str, files: &[PathBuf]) -> Option<ServiceFacts> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    if value("LoadState")? != "loaded" {
        return None;
    }
    // A minus says that the folder need not be there.
    let mut hidden: Vec<PathBuf> = value("InaccessiblePaths")
        .unwrap_or_default()
        .split_whitespace()
        .map(|path| path.trim_start_matches(['-', '+']).into())
        .collect();
    if value("ProtectHome") == Some("yes") {
        hidden.extend(HOMES.map(PathBuf::from));
    }
    if value("PrivateTmp") == Some("yes") {
        hidden.extend(TEMPORARY.map(PathBuf::from));
    }
    let user = value("User").filter(|user| !user.is_empty()).unwrap_or("root").to_owned();
    let named = value("Group").unwrap_or_default().split_whitespace();
    let named = named.chain(value("SupplementaryGroups").unwrap_or_default().split_whitespace());
    let account = User::from_name(&user).ok().flatten().map(|user| Account::of(user, named));
    let unreadable = files
        .iter()
        .filter_map(|file| {
            let file = fs::canonicalize(file).unwrap_or_else(|_| file.clone());
            let why = match hidden.iter().find(|folder| file.starts_with(folder)) {
                Some(folder) => Unreadable::Hidden(folder.clone()),
                None => Unreadable::Refused(refused(&file, account.as_ref()?)?),
            };
            Some((file, why))
        })
        .collect();
    let owned = |key| value(key).unwrap_or_default().to_owned();
    Some(ServiceFacts {
        active: owned("ActiveState"),
        step: owned("SubState"),
        result: owned("Result"),
        enabled: owned("UnitFileState"),
        user,
        unreadable,
    })
}

/// Who the service is to the file system.
struct Account {
    user: User,
    groups: Vec<Gid>,
}

impl Account {
    /// With the groups of the user and those that the unit names.
    fn of<'a>(user: User, named: impl Iterator<Item = &'a str>) -> Self {
        let name = CString::new(user.name.as_str()).unwrap_or_default();
        let mut groups = getgrouplist(&name, user.gid).unwrap_or_else(|_| vec![user.gid]);
        // systemd takes names and numbers, and shows them as they were written.
        let number = |name: &str| name.parse().ok().map(Gid::from_raw);
        groups.extend(
            named.filter_map(|name| number(name).or_else(|| Some(Group::from_name(name).ok()??.gid))),
        );
        Self { user, groups }
    }
}

/// What on the way to the file, or the file itself, this account may not pass; none where nothing is in the way, or nothing
/// there. Access control lists are not looked at.
fn refused(file: &Path, account: &Account) -> Option<PathBuf> {
    const READ: u32 = 0o4;
    const PASS: u32 = 0o1;
    let wanted = |path: &Path| if path == file { READ } else { PASS };
    let is_refused =
        |path: &&Path| fs::metadata(path).is_ok_and(|meta| !allows(&meta, account, wanted(path)));
    // From the root on, as the kernel goes.
    let way: Vec<&Path> = file.ancestors().collect();
    way.into_iter().rev().find(is_refused).map(Path::to_path_buf)
}

/// Whether the mode gives this account these bits (read 4, pass 1).
fn allows(meta: &Metadata, account: &Account, bits: u32) -> bool {
    let uid = account.user.uid;
    let shift = if uid.is_root() {
        return true;
    } else if meta.uid() == uid.as_raw() {
        6
    } else if account.groups.contains(&Gid::from_raw(meta.gid())) {
        3
    } else {
        0
    };
    (meta.mode() >> shift) & bits == bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    const LOADED: &str = "LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nUnitFileState=enabled\n\
                          User=nobody\nInaccessiblePaths=-/opt -/srv\nProtectHome=yes\n";

    #[test]
    fn a_unit_that_is_not_there_says_nothing() {
        assert_eq!(read("", &[]), None);
        assert_eq!(read("LoadState=not-found\nActiveState=inactive\n", &[]), None);
    }

    #[test]
    fn a_file_that_the_service_cannot_see_or_read_is_found() {
        let folder = std::env::temp_dir().join(format!("ocpcan-service-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mode = |path: &Path, bits| fs::set_permissions(path, fs::Permissions::from_mode(bits)).unwrap();
        mode(&folder, 0o755);
        let file = folder.join("example.dbc");
        fs::write(&file, "").unwrap();
        let found = |file: &Path| read(LOADED, &[file.to_path_buf()]).unwrap().unreadable;
        mode(&file, 0o644);
        assert_eq!(found(&file), []);
        // What `cp` makes under a strict umask.
        mode(&file, 0o640);
        assert_eq!(found(&file), [(file.clone(), Unreadable::Refused(file.clone()))]);
        // A group of the unit's own opens it.
        let gid = fs::metadata(&file).unwrap().gid();
        let name = Group::from_gid(Gid::from_raw(gid)).unwrap().map(|group| group.name);
        for own in [Some(gid.to_string()), name].into_iter().flatten() {
            let text = format!("{LOADED}SupplementaryGroups=nosuchgroup {own}\n");
            assert_eq!(read(&text, std::slice::from_ref(&file)).unwrap().unreadable, [], "{own}");
        }
        mode(&file, 0o644);
        mode(&folder, 0o700);
        assert_eq!(found(&file), [(file.clone(), Unreadable::Refused(folder.clone()))]);
        mode(&folder, 0o755);
        fs::remove_dir_all(&folder).unwrap();
        for (path, hidden) in [("/opt/x.dbc", "/opt"), ("/home/pi/x.dbc", "/home"), ("/tmp/x.dbc", "/tmp")] {
            let path = PathBuf::from(path);
            let text = format!("{LOADED}PrivateTmp=yes\n");
            let found = read(&text, std::slice::from_ref(&path)).unwrap().unreadable;
            assert_eq!(found, [(path, Unreadable::Hidden(hidden.into()))]);
        }
        let facts = read(LOADED, &[]).unwrap();
        assert_eq!(
            (facts.active.as_str(), facts.result.as_str(), facts.user.as_str()),
            ("failed", "exit-code", "nobody")
        );
    }
}
