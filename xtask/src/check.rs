//! The checks that CI runs, cheapest first.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use clap::ValueEnum;

use crate::checkout::Checkout;
use crate::features::{self, Beside};
use crate::libtorch::{self, Kind};
use crate::{api, cargo, layers, licences, links, now, package, say, wheel, words, workspace};

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    /// cargo fmt --check (needs no set-up)
    Fmt,
    /// Layers, libtorch, `unsafe` and printing against the table in docs/ARCHITECTURE.md (needs no set-up)
    Layers,
    /// Licences of all dependencies against deny.toml (needs no set-up)
    Licences,
    /// First words of comments (needs no set-up)
    Words,
    /// Links between pages: every file and heading is there (needs no set-up)
    Links,
    /// clippy of all targets, of the Python package's crate and of the fuzz targets, warnings denied
    Clippy,
    /// clippy of each crate with no, default and all features, on the dependencies as built for all
    Features,
    /// clippy of each crate with only the features of dependencies that it asks for (minutes; not among
    /// the default checks)
    Alone,
    /// Packages as they would be published: metadata, files, sources that compile once unpacked
    Package,
    /// rustdoc, warnings denied
    Doc,
    /// Public items of each library against docs/api
    Api,
    /// All tests and doctests, with all features
    Test,
    /// The example of the main job, on a small random model
    Demo,
    /// The Python packages: wheels of the library and of the program are built, installed in empty environments, and tested there
    Wheel,
    /// The checks of a GPU (examples/gpu_check), on the CPU
    Device,
}

impl Step {
    fn needs_libtorch(self) -> bool {
        !matches!(self, Self::Fmt | Self::Layers | Self::Licences | Self::Words | Self::Links)
    }

    /// Whether the step runs when none is named.
    fn is_default(self) -> bool {
        self != Self::Alone
    }

    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn passes(self, checkout: &Checkout) -> Result<bool> {
        let mut command = cargo::cargo(checkout);
        match self {
            Self::Layers => return layers::check(checkout),
            Self::Licences => return licences::check(checkout),
            Self::Words => return words::check(checkout),
            Self::Links => return links::check(checkout),
            Self::Features => return features::check(checkout, Beside::SameFeatures),
            Self::Package => return package::check(checkout),
            Self::Wheel => return wheel::check(checkout),
            Self::Api => return api::check(checkout),
            Self::Alone => return features::check(checkout, Beside::Nothing),
            Self::Fmt => return format(checkout),
            Self::Clippy => return clippy(checkout),
            Self::Doc => command
                .args(["doc", "--workspace", "--no-deps", "--all-features", "--locked"])
                .env("RUSTDOCFLAGS", "-D warnings"),
            Self::Test => command.args(["test", "--workspace", "--all-features", "--locked"]),
            Self::Demo => return runs_example(checkout, "mix_dpo", &["--fast"]),
            Self::Device => return runs_example(checkout, "gpu_check", &["--device", "cpu"]),
        };
        Ok(cargo::status(&mut command)?.success())
    }
}

/// Whether all sources are formatted.
fn format(checkout: &Checkout) -> Result<bool> {
    let mut all_good = cargo::status(cargo::cargo(checkout).args(["fmt", "--all", "--check"]))?.success();
    for manifest in workspace::OUTSIDE {
        let mut command = cargo::cargo(checkout);
        all_good &= cargo::status(command.args(["fmt", "--check", "--manifest-path", manifest]))?.success();
    }
    Ok(all_good)
}

/// Whether clippy has nothing to say of the workspace, the Python package's crate and the fuzz targets.
fn clippy(checkout: &Checkout) -> Result<bool> {
    const DENIED: [&str; 4] = ["--locked", "--", "-D", "warnings"];
    let mut all = cargo::cargo(checkout);
    all.args(["clippy", "--workspace", "--all-targets", "--all-features"]).args(DENIED);
    let mut python = cargo::cargo(checkout);
    python.args(["clippy", "--manifest-path", "python/Cargo.toml", "--target-dir", "target/outside"]).args(DENIED);
    // The crate is for any Python, so none is asked, and none is linked.
    python.env("PYO3_NO_PYTHON", "1").env("PYO3_BUILD_EXTENSION_MODULE", "1");
    // Nothing is linked: neither the fuzzer's runtime nor libtorch is needed, and neither's C++ is compiled.
    let mut fuzz = cargo::cargo(checkout);
    fuzz.args(["clippy", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/outside", "--bins"]);
    fuzz.args(["--features", "model,tch/doc-only"]).args(DENIED);
    fuzz.env("CARGO_ENCODED_RUSTFLAGS", "--cfg=fuzzing")
        .env("CUSTOM_LIBFUZZER_PATH", checkout.root().join("target/outside/libnone.a"));
    let mut all_good = true;
    for command in [&mut all, &mut python, &mut fuzz] {
        all_good &= cargo::status(command)?.success();
    }
    Ok(all_good)
}

/// Runs an example as the tests have built it: another selection of packages would have other features, and compile much again.
fn runs_example(checkout: &Checkout, name: &str, arguments: &[&str]) -> Result<bool> {
    let mut build = cargo::cargo(checkout);
    build.args(["build", "--workspace", "--all-features", "--locked", "--example", name]);
    if !cargo::status(&mut build)?.success() {
        return Ok(false);
    }
    let mut example = Command::new(workspace::target_dir(checkout)?.join("debug/examples").join(name));
    // Threads that wait leave the cores to whatever else a machine of CI does.
    example.args(arguments).env("OMP_WAIT_POLICY", "PASSIVE").current_dir(checkout.root());
    Ok(cargo::status(&mut example)?.success())
}

/// Runs the steps, or the default ones if none is named, and prints a summary. All steps run, even
/// after one has failed.
///
/// # Errors
/// The set-up failed, or a check could not be run at all.
pub(crate) fn run(checkout: &Checkout, named: &[Step], set_up: bool) -> Result<ExitCode> {
    let default = Step::value_variants().iter().copied().filter(|step| step.is_default());
    let steps = if named.is_empty() { default.collect() } else { named.to_vec() };
    if set_up && steps.iter().any(|step| step.needs_libtorch()) {
        libtorch::set_up(checkout, Kind::Cpu)?;
    }
    let mut results = Vec::new();
    for step in &steps {
        say(format_args!("\n=== {}", step.name()));
        let start = now();
        let passed = step.passes(checkout)?;
        results.push((*step, passed, start.elapsed()));
    }
    say("");
    for (step, passed, elapsed) in &results {
        say(summary_line(&step.name(), *passed, *elapsed));
    }
    let all_passed = results.iter().all(|(_, passed, _)| *passed);
    Ok(if all_passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn summary_line(name: &str, passed: bool, elapsed: Duration) -> String {
    let verdict = if passed { "ok" } else { "FAILED" };
    format!("{name:<10} {verdict:<6} {:>7.1} s", elapsed.as_secs_f64())
}

/// Looks the dependencies up in the advisory database, with the tool that is installed, or in a snapshot of it.
///
/// # Errors
/// The tool is not installed, or the snapshot is not a folder.
pub(crate) fn audit(checkout: &Checkout, snapshot: Option<&Path>) -> Result<ExitCode> {
    let is_there =
        |program: &str| Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    let snapshot = snapshot.map(std::path::absolute).transpose()?;
    let with_deny = match &snapshot {
        Some(folder) => {
            ensure!(is_there("cargo-audit"), "cargo-audit is not installed (cargo install cargo-audit)");
            ensure!(folder.join("crates").is_dir(), "{} is not a checkout of advisory-db", folder.display());
            false
        }
        None if is_there("cargo-deny") => true,
        None if is_there("cargo-audit") => false,
        None => bail!(
            "neither cargo-deny nor cargo-audit is installed. Install one (cargo install cargo-deny); it fetches the \
             advisory database, so the network must reach it, or name a snapshot with --db"
        ),
    };
    let mut all_good = true;
    for manifest in ["Cargo.toml"].into_iter().chain(workspace::OUTSIDE) {
        let mut command = cargo::cargo(checkout);
        if with_deny {
            command.args(["deny", "--manifest-path", manifest, "check", "--config"]);
            command.arg(checkout.root().join("deny.toml")).arg("advisories");
        } else {
            command.arg("audit");
            if let Some(folder) = &snapshot {
                command.args(["--no-fetch", "--stale", "--db"]).arg(folder);
            }
            command.arg("--file").arg(Path::new(manifest).with_file_name("Cargo.lock"));
        }
        all_good &= cargo::status(&mut command)?.success();
    }
    if all_good {
        return Ok(ExitCode::SUCCESS);
    }
    say("Advisories were found, or the database could not be read: see above.");
    Ok(ExitCode::FAILURE)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Step, summary_line};

    #[test]
    fn only_checks_of_text_go_without_libtorch() {
        assert!(!Step::Fmt.needs_libtorch() && !Step::Links.needs_libtorch());
        assert!(Step::Clippy.needs_libtorch());
    }

    #[test]
    fn summary_names_what_failed() {
        let line = summary_line(&Step::Licences.name(), false, Duration::from_millis(1250));
        assert_eq!(line, "licences   FAILED     1.2 s");
    }
}
