//! Python as the downloader: pip knows the user's package index, proxy and certificates, and checks
//! hashes. No code of a downloaded package is run.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::cache::Partial;

const ARCHIVE: &str = include_str!("archive.py");

/// Pythons that torch 2.11.0 has wheels for. The libraries inside are the same for all, so another
/// Python fetches those made for `SUBSTITUTE`.
const WHEELS_FOR: std::ops::RangeInclusive<u32> = 10..=14;
const SUBSTITUTE: &str = "3.12";

/// Pythons under the names of their releases, from the oldest that the wheels are for.
const RELEASES: [&str; 6] = ["python3.10", "python3.11", "python3.12", "python3.13", "python3.14", "python3.15"];

/// Finds torch without importing it, which would take seconds.
const PROBE: &str = "
import importlib.util, os, sys
print(*sys.version_info[:2])
spec = importlib.util.find_spec('torch')
if spec and spec.origin:
    print(os.path.dirname(os.path.realpath(spec.origin)))
";

/// A Python 3 on this machine.
pub(crate) struct Python {
    program: &'static str,
    version: (u32, u32),
    /// The folder of its `torch` package, of whatever version.
    pub(crate) torch: Option<PathBuf>,
}

impl Python {
    /// `python3`, else `python` if that is a Python 3.
    pub(crate) fn find() -> Option<Self> {
        ["python3", "python"].into_iter().find_map(Self::called)
    }

    fn called(program: &'static str) -> Option<Self> {
        // From the root folder, lest `-c` finds a torch in the current one.
        let output = Command::new(program).args(["-c", PROBE]).current_dir("/").output().ok()?;
        let (version, torch) = parse_probe(&String::from_utf8(output.stdout).ok()?)?;
        Some(Self { program, version, torch })
    }

    /// The Python with pip, and one of each other release here that the wheels are for.
    pub(crate) fn all() -> Result<Vec<Self>> {
        let mut all = vec![Self::with_pip()?];
        for other in RELEASES.into_iter().filter_map(Self::called) {
            if all.iter().all(|python| python.version != other.version) {
                all.push(other);
            }
        }
        Ok(all)
    }

    /// As [`Python::find`], where there is no way on without pip.
    pub(crate) fn with_pip() -> Result<Self> {
        let Some(python) = Self::find() else {
            bail!(
                "no python3 found, and pip is the downloader here. Install python3 with pip \
                 (Debian, Ubuntu: apt install python3-pip)"
            );
        };
        let pip = python.command().args(["-m", "pip", "--version"]).output();
        ensure!(
            pip.is_ok_and(|output| output.status.success()),
            "{} has no pip. Install it (Debian, Ubuntu: apt install python3-pip; elsewhere: {} -m ensurepip --user)",
            python.program,
            python.program
        );
        Ok(python)
    }

    /// Version in short, such as 3.12.
    pub(crate) fn version(&self) -> String {
        format!("{}.{}", self.version.0, self.version.1)
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        // Set by users to keep `pip install` off the system; nothing is installed here.
        command.env("PIP_REQUIRE_VIRTUALENV", "0").env("PIP_DISABLE_PIP_VERSION_CHECK", "1");
        command
    }

    /// Downloads wheels without what they depend on; the files, sorted by name.
    pub(crate) fn wheels(&self, partial: &Partial, requirements: &[&str]) -> Result<Vec<PathBuf>> {
        let mut args = vec!["--no-deps", "--only-binary=:all:"];
        if self.version.0 != 3 || !WHEELS_FOR.contains(&self.version.1) {
            args.extend(["--python-version", SUBSTITUTE, "--implementation", "cp"]);
        }
        self.download(partial, &args, &[], requirements)
    }

    /// Downloads wheels with what they depend on.
    pub(crate) fn wheels_with_dependencies(&self, partial: &Partial, requirements: &[&str]) -> Result<Vec<PathBuf>> {
        self.download(partial, &["--only-binary=:all:"], &[], requirements)
    }

    /// Downloads a source archive.
    ///
    /// Pip asks the package's build backend, here `hatchling`, for name and version, and would
    /// install and run it. A backend of the same name that answers just this keeps the package's
    /// own build from running.
    pub(crate) fn source(&self, partial: &Partial, name: &str, version: &str) -> Result<PathBuf> {
        let backend = partial.folder("backend")?;
        let package = partial.folder("backend/hatchling")?;
        fs::write(package.join("__init__.py"), "")?;
        fs::write(package.join("build.py"), backend_text(name, version))?;
        let requirement = format!("{name}=={version}");
        let args = ["--no-deps", "--no-binary=:all:", "--no-build-isolation", "--ignore-requires-python"];
        let files = self.download(partial, &args, &[("PYTHONPATH", &backend)], &[&requirement])?;
        files.into_iter().next().with_context(|| format!("pip downloaded nothing for {requirement}"))
    }

    fn download(
        &self,
        partial: &Partial,
        args: &[&str],
        env: &[(&str, &Path)],
        requirements: &[&str],
    ) -> Result<Vec<PathBuf>> {
        let folder = partial.folder(&format!("download-{}", file_stem(requirements)))?;
        let status = self
            .command()
            .args(["-m", "pip", "download"])
            .args(args)
            .arg("--dest")
            .arg(&folder)
            .args(requirements)
            .envs(env.iter().copied())
            // Pip's own temporaries then go with ours when it is cut off.
            .env("TMPDIR", partial.folder("tmp")?)
            // Pip draws its progress bar on standard output, which belongs to the command run later.
            .stdout(std::io::stderr())
            .status()
            .with_context(|| format!("cannot run {}", self.program))?;
        ensure!(
            status.success(),
            "pip could not download {} (its messages are above). If the network or the package index \
             is at fault, see `{} -m pip config list`, then run the same command again",
            requirements.join(" "),
            self.program
        );
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        Ok(files)
    }

    /// The names of the files in an archive.
    pub(crate) fn list(&self, archive: &Path) -> Result<Vec<String>> {
        let text = self.archive("list", &[archive], "")?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Extracts `(member, path below folder)`.
    pub(crate) fn extract(&self, archive: &Path, folder: &Path, wanted: &[(String, String)]) -> Result<()> {
        let lines: String = wanted.iter().map(|(member, path)| format!("{member}\t{path}\n")).collect();
        self.archive("extract", &[archive, folder], &lines).map(drop)
    }

    /// The SHA-256 of a file, in hex.
    pub(crate) fn sha256(&self, file: &Path) -> Result<String> {
        Ok(self.archive("sha256", &[file], "")?.trim().to_owned())
    }

    fn archive(&self, command: &str, paths: &[&Path], input: &str) -> Result<String> {
        let mut child = self
            .command()
            .args(["-c", ARCHIVE, command])
            .args(paths)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", self.program))?;
        if let Some(mut stdin) = child.stdin.take() {
            // If the child has ended early, its exit status tells why.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output()?;
        let path = paths.first().map(|path| path.display().to_string()).unwrap_or_default();
        ensure!(output.status.success(), "cannot {command} {path} (the reason is above)");
        String::from_utf8(output.stdout).with_context(|| format!("{path}: a name is not UTF-8"))
    }
}

fn file_stem(requirements: &[&str]) -> String {
    let first = requirements.first().copied().unwrap_or_default();
    first.chars().take_while(|c| c.is_alphanumeric() || *c == '-').collect()
}

fn parse_probe(text: &str) -> Option<((u32, u32), Option<PathBuf>)> {
    let mut lines = text.lines();
    let (major, minor) = lines.next()?.split_once(' ')?;
    let version: (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    (version.0 == 3).then(|| (version, lines.next().map(PathBuf::from)))
}

fn backend_text(name: &str, version: &str) -> String {
    format!(
        "import os
def prepare_metadata_for_build_wheel(metadata_directory, config_settings=None):
    info = '{name}-{version}.dist-info'
    os.makedirs(os.path.join(metadata_directory, info))
    with open(os.path.join(metadata_directory, info, 'METADATA'), 'w') as file:
        file.write('Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')
    return info
"
    )
}

#[cfg(test)]
mod tests {
    use super::{file_stem, parse_probe};

    #[test]
    fn reads_what_a_python_says_of_itself() {
        assert_eq!(parse_probe("3 11\n"), Some(((3, 11), None)));
        assert_eq!(parse_probe("3 12\n/site/torch\n"), Some(((3, 12), Some("/site/torch".into()))));
        assert_eq!(parse_probe("2 7\n"), None);
        assert_eq!(parse_probe(""), None);
    }

    #[test]
    fn names_folders_after_the_first_requirement() {
        assert_eq!(file_stem(&["nvidia-cuda-runtime==13.0.*", "x"]), "nvidia-cuda-runtime");
    }
}
