//! Cargo run from within `cargo xtask`, as if the user had typed the same command.

use std::env;
use std::ffi::OsString;
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result};

use crate::checkout::Checkout;

/// A cargo command in the root of the checkout.
///
/// Variables that cargo has set for xtask itself are removed, so that no build script sees one that a plain
/// `cargo build` would not have, and runs again because of it.
pub(crate) fn cargo(checkout: &Checkout) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo")));
    command.current_dir(checkout.root());
    leave_out(&mut command);
    command
}

/// Removes the variables that cargo has set for xtask itself.
pub(crate) fn leave_out(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(is_left_out) {
            command.env_remove(name);
        }
    }
}

/// Variables that cargo sets for the program it runs, and those that would take the place of the
/// settings in `.cargo/libtorch.toml`.
fn is_left_out(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "CARGO_MANIFEST_DIR",
        "CARGO_MANIFEST_PATH",
        "CARGO_CRATE_NAME",
        "CARGO_BIN_NAME",
        "CARGO_PRIMARY_PACKAGE",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_RUSTFLAGS",
        "RUSTFLAGS",
        "LIBTORCH",
    ];
    name.starts_with("CARGO_PKG_") || NAMES.contains(&name)
}

/// Runs a command with this terminal and hands back its exit code.
pub(crate) fn exit_code(command: &mut Command) -> Result<ExitCode> {
    Ok(code(status(command)?))
}

/// The exit code that hands a status on; 1 for a program that a signal ended.
pub(crate) fn code(status: ExitStatus) -> ExitCode {
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Runs a command with this terminal.
pub(crate) fn status(command: &mut Command) -> Result<ExitStatus> {
    command.status().with_context(|| format!("cannot run {}", command.get_program().display()))
}

/// Standard output of a cargo command that must succeed; its errors go to the terminal.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    command.stderr(std::process::Stdio::inherit());
    let output = command.output().context("cannot run cargo")?;
    anyhow::ensure!(output.status.success(), "cargo {}", output.status);
    String::from_utf8(output.stdout).context("cargo's output is not UTF-8")
}

#[cfg(test)]
mod tests {
    use super::is_left_out;

    #[test]
    fn leaves_out_what_would_cause_rebuilds() {
        for name in ["CARGO_PKG_NAME", "CARGO_MANIFEST_DIR", "RUSTFLAGS", "LIBTORCH"] {
            assert!(is_left_out(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_BUILD_JOBS", "CARGO_TERM_COLOR", "PATH"] {
            assert!(!is_left_out(name), "{name}");
        }
    }
}
