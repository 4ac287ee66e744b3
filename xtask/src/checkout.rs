//! Results of the set-up in the checkout: a link to libtorch, and the settings that name the link.
//!
//! The link is the same for every libtorch, so that cargo's settings, and with them everything that
//! is built, stay the same when libtorch is found elsewhere.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::libtorch::Kind;

/// The folder of this workspace.
pub(crate) struct Checkout {
    root: PathBuf,
}

impl Checkout {
    /// The checkout that this program was built in.
    pub(crate) fn find() -> Self {
        // Cargo sets the variable when it runs xtask; the built-in path serves a direct call.
        let xtask =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = xtask.parent().map_or_else(|| xtask.clone(), Path::to_path_buf);
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The link to libtorch.
    pub(crate) fn link(&self) -> PathBuf {
        self.root.join(".libtorch")
    }

    fn settings(&self) -> PathBuf {
        self.root.join(".cargo").join("libtorch.toml")
    }

    /// The settings of cargo that hold here beside those of this checkout, as far as they can be read.
    fn configs(&self) -> Vec<toml::Table> {
        let above = self.root.ancestors().skip(1).map(|folder| folder.join(".cargo"));
        cargo_home()
            .into_iter()
            .chain(above)
            .filter_map(|folder| fs::read_to_string(folder.join("config.toml")).ok()?.parse().ok())
            .collect()
    }

    /// The libtorch that the settings here name, and which cargo therefore shows to xtask as
    /// `$LIBTORCH` although the user has set none.
    pub(crate) fn libtorch_in_settings(&self) -> Option<PathBuf> {
        let text = fs::read_to_string(self.settings()).ok()?;
        let table: toml::Table = text.parse().ok()?;
        Some(PathBuf::from(table.get("env")?.get("LIBTORCH")?.as_str()?))
    }

    /// Points the link at `libtorch` and writes the settings, each only where it differs.
    pub(crate) fn point_at(&self, libtorch: &Path, kind: Kind) -> Result<()> {
        let link = self.link();
        match fs::read_link(&link) {
            Ok(target) if target == libtorch => {}
            Ok(_) => replace_link(libtorch, &link)?,
            Err(error) if error.kind() == ErrorKind::NotFound => replace_link(libtorch, &link)?,
            Err(_) => bail!("{} should be a link to libtorch, but is a file or folder; move it away", link.display()),
        }
        self.write_settings(kind)
    }

    /// Writes the settings for the link as it is, if they differ.
    pub(crate) fn write_settings(&self, kind: Kind) -> Result<()> {
        let path = self.settings();
        let text = settings_text(&self.link(), kind, table_for(&self.configs()))?;
        if fs::read_to_string(&path).is_ok_and(|found| found == text) {
            return Ok(());
        }
        let sibling = path.with_extension(format!("toml.{}", std::process::id()));
        fs::write(&sibling, text)
            .and_then(|()| fs::rename(&sibling, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Where cargo keeps its settings and the sources of dependencies.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(env::home_dir()?.join(".cargo")))
}

/// The table that holds the flags of rustc.
///
/// Cargo takes them from one place only, and a `[target.*]` comes before `[build]`. Where the user
/// has flags there, such as for another linker, ours must stand there too, and cargo joins them.
fn table_for(configs: &[toml::Table]) -> &'static str {
    let of_target = configs
        .iter()
        .filter_map(|config| config.get("target")?.as_table())
        .any(|targets| targets.iter().any(|(_, target)| target.get("rustflags").is_some()));
    if of_target { "target.'cfg(all())'" } else { "build" }
}

/// Cargo's settings for a libtorch at `link`.
fn settings_text(link: &Path, kind: Kind, table: &str) -> Result<String> {
    let link = link.to_str().context("the path of this checkout is not UTF-8")?;
    if link.contains([',', '\n']) {
        bail!("{link}: a linker option cannot hold a comma or a line break; move the checkout");
    }
    let libtorch = toml::Value::from(link);
    let flag = toml::Value::from(format!("link-arg=-Wl,-rpath,{link}/lib"));
    // torch-sys looks for libtorch_cuda once, when its build script runs. A variable that the script
    // watches and that differs between the two kinds makes it look again.
    let watched = match kind {
        Kind::Cpu => String::new(),
        Kind::Cuda => format!("LIBTORCH_LIB = {libtorch}\n"),
    };
    // Flags of rustdoc cannot stand in a `[target.'cfg(..)']`.
    let build = if table == "build" { "" } else { "\n[build]\n" };
    Ok(format!(
        "[env]\nLIBTORCH = {libtorch}\n{watched}\n[{table}]\nrustflags = [\"-C\", {flag}]\n\
         {build}rustdocflags = [\"-C\", {flag}]\n"
    ))
}

#[cfg(unix)]
fn replace_link(target: &Path, link: &Path) -> Result<()> {
    let sibling = link.with_extension(std::process::id().to_string());
    std::os::unix::fs::symlink(target, &sibling)
        .and_then(|()| fs::rename(&sibling, link))
        .with_context(|| format!("cannot make the link {}", link.display()))
}

#[cfg(not(unix))]
fn replace_link(_target: &Path, link: &Path) -> Result<()> {
    bail!("cannot make the link {} on this platform", link.display())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{Kind, settings_text, table_for};

    #[test]
    fn settings_name_the_link_and_its_run_path() {
        let text = settings_text(Path::new("/a b/.libtorch"), Kind::Cpu, "build").unwrap();
        let expected = r#"[env]
LIBTORCH = "/a b/.libtorch"

[build]
rustflags = ["-C", "link-arg=-Wl,-rpath,/a b/.libtorch/lib"]
rustdocflags = ["-C", "link-arg=-Wl,-rpath,/a b/.libtorch/lib"]
"#;
        assert_eq!(text, expected);
    }

    #[test]
    fn settings_are_toml_for_any_path() {
        let text = settings_text(Path::new(r#"/a"b\c/.libtorch"#), Kind::Cuda, "build").unwrap();
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["env"]["LIBTORCH"].as_str(), Some(r#"/a"b\c/.libtorch"#));
        assert_eq!(table["env"]["LIBTORCH_LIB"], table["env"]["LIBTORCH"]);
    }

    #[test]
    fn flags_stand_where_they_join_those_of_the_user() {
        let table = |config: &str| table_for(&[config.parse().unwrap()]);
        assert_eq!(table("[build]\nrustflags = ['-Copt-level=1']"), "build");
        assert_eq!(table("[target.x86_64-unknown-linux-gnu]\nlinker = 'clang'"), "build");
        let mold = "[target.x86_64-unknown-linux-gnu]\nrustflags = ['-Clink-arg=-fuse-ld=mold']";
        assert_eq!(table(mold), "target.'cfg(all())'");

        let text = settings_text(Path::new("/l"), Kind::Cpu, table(mold)).unwrap();
        let settings: toml::Table = text.parse().unwrap();
        assert!(settings["target"]["cfg(all())"].get("rustflags").is_some());
        assert!(settings["build"].get("rustdocflags").is_some());
    }

    #[test]
    fn refuses_a_path_that_the_linker_would_split() {
        assert!(settings_text(Path::new("/a,b/.libtorch"), Kind::Cpu, "build").is_err());
    }
}
