//! Where libtorch comes from, first that fits: `$LIBTORCH`, a Python with torch, the user's cache.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::checkout::Checkout;
use crate::compiler::Compiler;
use crate::install;
use crate::python::Python;
use crate::say;

/// tch 0.24 calls this version and no other.
pub(crate) const VERSION: &str = "2.11.0";

/// Advice for machines where the set-up cannot help.
pub(crate) const BY_HAND: &str = "By hand: get libtorch 2.11.0 (the C++ package of PyTorch, or the \
    `torch` folder that `pip install torch==2.11.0` makes) and run this again with \
    LIBTORCH=/path/to/it, the folder that holds include/ and lib/.";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Cpu,
    Cuda,
}

impl Kind {
    fn fits(self, wanted: Self) -> bool {
        wanted == Self::Cpu || self == Self::Cuda
    }
}

/// A folder with include/ and lib/ of the right version.
pub(crate) struct Libtorch {
    pub(crate) path: PathBuf,
    pub(crate) kind: Kind,
}

/// Points the checkout at a libtorch of the wanted kind, and fetches one if there is none.
///
/// # Errors
/// Everything that can keep a machine from having libtorch, each with what to do about it.
pub(crate) fn set_up(checkout: &Checkout, wanted: Kind) -> Result<()> {
    let asked = asked_for(checkout, env::var_os("LIBTORCH").map(PathBuf::from));
    let libtorch = match in_place(checkout, wanted, asked.as_deref()) {
        Some(libtorch) => {
            checkout.write_settings(libtorch.kind)?;
            libtorch
        }
        None => {
            let libtorch = find(wanted, asked.as_deref())?;
            checkout.point_at(&libtorch.path, libtorch.kind)?;
            libtorch
        }
    };
    if env::var_os("RUSTFLAGS").is_some_and(|flags| !flags.is_empty()) {
        say("note: RUSTFLAGS is left out here, and a plain cargo command that has it set builds programs that \
             do not find libtorch; put the flags into [build] of ~/.cargo/config.toml instead");
    }
    let kind = match libtorch.kind {
        Kind::Cpu => "CPU",
        Kind::Cuda => "CUDA",
    };
    say(format_args!("libtorch {VERSION} ({kind}): {}", libtorch.path.display()));
    if wanted == Kind::Cuda {
        say(gpus(Compiler::find()?.test_link(&libtorch.path, VERSION)?));
    }
    Ok(())
}

/// The line about the GPUs that libtorch can use.
fn gpus(count: usize) -> String {
    match count {
        0 => {
            "libtorch can use no GPU: see that `nvidia-smi` shows one, with a driver of R580 or later, and docs/gpu.md"
                .to_owned()
        }
        1 => "libtorch can use 1 GPU".to_owned(),
        count => format!("libtorch can use {count} GPUs"),
    }
}

/// The user's `$LIBTORCH`, told from the one that cargo sets after a set-up.
fn asked_for(checkout: &Checkout, variable: Option<PathBuf>) -> Option<PathBuf> {
    let variable = variable.filter(|path| !path.as_os_str().is_empty())?;
    let ours = [Some(checkout.link()), checkout.libtorch_in_settings()];
    (!ours.contains(&Some(variable.clone()))).then_some(variable)
}

fn in_place(checkout: &Checkout, wanted: Kind, asked: Option<&Path>) -> Option<Libtorch> {
    let path = fs::canonicalize(checkout.link()).ok()?;
    if let Some(asked) = asked
        && fs::canonicalize(asked).ok()? != path
    {
        return None;
    }
    let libtorch = inspect(&path).ok()?;
    libtorch.kind.fits(wanted).then_some(libtorch)
}

fn find(wanted: Kind, asked: Option<&Path>) -> Result<Libtorch> {
    let compiler = Compiler::find()?;
    if let Some(path) = asked {
        return from_variable(&compiler, path, wanted).map_err(|error| {
            anyhow!(
                "LIBTORCH={}: {error:#}\nSet it to the folder that holds include/ and lib/ of libtorch \
                 {VERSION}, or unset it to have libtorch found or fetched.",
                path.display()
            )
        });
    }
    if let Some(libtorch) = from_python(&compiler, wanted) {
        return Ok(libtorch);
    }
    install::from_cache(&compiler, wanted).map_err(|error| anyhow!("{error:#}\n{BY_HAND}"))
}

fn from_variable(compiler: &Compiler, path: &Path, wanted: Kind) -> Result<Libtorch> {
    let path = fs::canonicalize(path).with_context(|| format!("cannot open {}", path.display()))?;
    let libtorch = inspect(&path)?;
    ensure!(libtorch.kind.fits(wanted), "it is a CPU build, and --cuda was asked for");
    compiler.test_link(&path, VERSION)?;
    Ok(libtorch)
}

/// A Python's torch is a convenience: if it does not fit, that is said, and the search goes on.
fn from_python(compiler: &Compiler, wanted: Kind) -> Option<Libtorch> {
    let path = Python::find()?.torch?;
    let tried = inspect(&path).and_then(|libtorch| {
        ensure!(libtorch.kind.fits(wanted), "{} is a CPU build", path.display());
        compiler.test_link(&path, VERSION)?;
        Ok(libtorch)
    });
    tried.inspect_err(|error| say(format_args!("python's torch is not used: {error:#}"))).ok()
}

/// Checks that a folder is a complete libtorch of the right version.
///
/// # Errors
/// A file that is missing or empty, or another version.
pub(crate) fn inspect(path: &Path) -> Result<Libtorch> {
    let lib = |name: &str| path.join("lib").join(format!("lib{name}{}", env::consts::DLL_SUFFIX));
    let needed = [
        path.join("include/torch/csrc/api/include/torch/torch.h"),
        path.join("include/ATen/ATen.h"),
        lib("torch_cpu"),
        lib("torch"),
        lib("c10"),
    ];
    for file in needed {
        let size = fs::metadata(&file).map(|found| found.len());
        match size {
            Ok(0) => bail!("{} is empty", file.display()),
            Ok(_) => {}
            Err(_) => bail!("{} is missing", file.display()),
        }
    }
    let version = version_of(path)?;
    ensure!(version == VERSION, "{} holds version {version}, not {VERSION}", path.display());
    install::check_manifest(path)?;
    let kind = if lib("torch_cuda").exists() { Kind::Cuda } else { Kind::Cpu };
    Ok(Libtorch { path: path.to_owned(), kind })
}

fn version_of(path: &Path) -> Result<String> {
    type Parse = fn(&str) -> Option<String>;
    let sources: [(&str, Parse); 4] = [
        ("build-version", version_in_text),
        ("version.py", version_in_python),
        ("include/torch/headeronly/version.h", version_in_header),
        ("include/torch/csrc/api/include/torch/version.h", version_in_header),
    ];
    sources
        .iter()
        .find_map(|(file, parse)| parse(&fs::read_to_string(path.join(file)).ok()?))
        .with_context(|| format!("{} does not tell its version", path.display()))
}

/// `2.11.0+cu130`, without what follows the plus.
fn version_in_text(text: &str) -> Option<String> {
    let version = text.trim().split('+').next()?;
    (!version.is_empty()).then(|| version.to_owned())
}

/// `__version__ = '2.11.0+cu130'`
fn version_in_python(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("__version__"))?;
    version_in_text(line.split(['\'', '"']).nth(1)?)
}

/// `#define TORCH_VERSION_MAJOR 2`, and so on.
fn version_in_header(text: &str) -> Option<String> {
    let part = |name: &str| {
        text.lines().find_map(|line| {
            let mut words = line.split_whitespace();
            (words.next() == Some("#define") && words.next() == Some(name)).then_some(())?;
            words.next()?.parse::<u32>().ok()
        })
    };
    let major = part("TORCH_VERSION_MAJOR")?;
    let minor = part("TORCH_VERSION_MINOR")?;
    let patch = part("TORCH_VERSION_PATCH")?;
    Some(format!("{major}.{minor}.{patch}"))
}

#[cfg(test)]
mod tests {
    use super::{BY_HAND, Kind, VERSION, version_in_header, version_in_python, version_in_text};

    #[test]
    fn reads_the_version_wherever_it_stands() {
        assert_eq!(version_in_text("2.11.0+cpu\n").as_deref(), Some("2.11.0"));
        assert_eq!(version_in_text("2.11.0").as_deref(), Some("2.11.0"));
        assert_eq!(version_in_text("\n"), None);
        let python = "from typing import Optional\n\n__version__ = '2.11.0+cu130'\ndebug = False\n";
        assert_eq!(version_in_python(python).as_deref(), Some("2.11.0"));
        let header = "#pragma once\n#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 9\n\
                      #define TORCH_VERSION_PATCH 1\n#define TORCH_VERSION_ABI_TAG 0\n";
        assert_eq!(version_in_header(header).as_deref(), Some("2.9.1"));
        assert_eq!(version_in_header("#include <torch/headeronly/version.h>\n"), None);
    }

    #[test]
    fn a_cuda_build_serves_the_cpu_too() {
        assert!(Kind::Cuda.fits(Kind::Cpu));
        assert!(!Kind::Cpu.fits(Kind::Cuda));
    }

    #[test]
    fn help_names_the_version() {
        assert!(BY_HAND.contains(VERSION));
    }
}
