//! Tells the binary which commit it was built from, for `--version`.
//!
//! Owns the variable `OCPCAN_REV`: taken from the environment (packages), else from git, else `unknown`. Never fails
//! a build: a source archive has no git.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=OCPCAN_REV");
    // The log of HEAD grows with every commit and checkout; `src` catches the step from clean to dirty.
    for path in [".git/logs/HEAD", "src", "Cargo.toml"] {
        if std::path::Path::new(path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let given = std::env::var("OCPCAN_REV").ok();
    let rev = given.map(|r| r.trim().to_owned()).filter(|r| !r.is_empty()).or_else(from_git);
    println!("cargo::rustc-env=OCPCAN_REV={}", rev.as_deref().unwrap_or("unknown"));
}

fn from_git() -> Option<String> {
    // A copy of the sources inside somebody else's repository must not claim that repository's commit.
    if !std::path::Path::new(".git").exists() {
        return None;
    }
    let output = Command::new("git").args(["describe", "--always", "--dirty", "--tags"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}
