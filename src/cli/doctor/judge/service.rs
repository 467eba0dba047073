//! Verdicts on the installed service: whether it runs, starts at boot, and can read its files.
//!
//! Owns the words. Relies on the facts alone.

use super::Report;
use crate::cli::doctor::facts::{ServiceFacts, Unreadable};

/// The service of the package.
pub(super) fn service(report: &mut Report, facts: &ServiceFacts) {
    let ServiceFacts { active, step, result, enabled, user, unreadable } = facts;
    let log = "journalctl --unit ocpcan says why; then systemctl restart ocpcan";
    match (active.as_str(), step.as_str()) {
        ("active", _) => report.ok("ocpcan.service runs"),
        ("failed", _) => report.problem(
            format!("ocpcan.service has failed ({result}): nothing drives, and nothing is tried again"),
            log,
        ),
        (_, "auto-restart") => report.problem(format!("ocpcan.service ends again and again ({result})"), log),
        (state, _) => {
            report.warning(format!("ocpcan.service does not run ({state})"), "systemctl start ocpcan")
        }
    }
    if enabled == "enabled" {
        report.ok("it starts at boot");
    } else {
        report.warning(format!("it does not start at boot ({enabled})"), "systemctl enable ocpcan");
    }
    for (file, why) in unreadable {
        match why {
            Unreadable::Refused(place) => report.problem(
                format!("{}: the service's user {user} may not read it", file.display()),
                format!("ls -ld {}; a file needs chmod o+r, a folder o+x", place.display()),
            ),
            Unreadable::Hidden(folder) => report.problem(
                format!("{}: the service does not see {}", file.display(), folder.display()),
                "put it under /etc/ocpcan",
            ),
        }
    }
}
