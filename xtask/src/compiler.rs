//! The C++ compiler: needed by torch-sys, and here for the stub library and the link test.

use std::env;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// The compiler that torch-sys will use too: `$CXX`, else `c++`.
pub(crate) struct Compiler {
    words: Vec<String>,
}

impl Compiler {
    pub(crate) fn find() -> Result<Self> {
        let cxx = env::var("CXX").ok().filter(|cxx| !cxx.trim().is_empty());
        let name = cxx.as_deref().unwrap_or("c++");
        let compiler = Self { words: name.split_whitespace().map(str::to_owned).collect() };
        let runs = compiler.command().arg("--version").output().is_ok_and(|out| out.status.success());
        if !runs {
            bail!(
                "no C++ compiler: `{name}` does not run. Install one (Debian, Ubuntu: apt install g++; \
                 Fedora: dnf install gcc-c++; macOS: xcode-select --install) or set CXX"
            );
        }
        Ok(compiler)
    }

    fn command(&self) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map_or("c++", String::as_str));
        command.args(words);
        command
    }

    /// Makes an empty shared library that carries the name `soname`.
    pub(crate) fn empty_library(&self, path: &Path, soname: &str) -> Result<()> {
        let mut command = self.command();
        command.args(["-x", "c++", "-shared", "-fPIC", "/dev/null", "-o"]).arg(path);
        command.arg(format!("-Wl,-soname,{soname}"));
        run(command, "make the stub library").map(drop)
    }

    /// Compiles C++ that needs no header but those of the compiler; the source stays beside the result.
    pub(crate) fn object(&self, text: &str, path: &Path) -> Result<()> {
        let source = path.with_extension("cpp");
        fs::write(&source, text).with_context(|| format!("cannot write {}", source.display()))?;
        let mut command = self.command();
        command.args(["-O2", "-fno-math-errno", "-fPIC", "-c"]).arg(&source).arg("-o").arg(path);
        run(command, "compile a file of C++").map(drop)
    }

    /// Compiles against the headers of `libtorch`, links its libraries, and starts the result, which
    /// makes the system load them all. Returns the number of GPUs that libtorch can use.
    pub(crate) fn test_link(&self, libtorch: &Path, version: &str) -> Result<usize> {
        let folder = env::temp_dir().join(format!("simplemix-link-test-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let tested = self.test_link_in(&folder, libtorch, version);
        // A leftover of a few kB in the system's temporary folder is no reason to fail.
        let _ = fs::remove_dir_all(&folder);
        tested.with_context(|| format!("{} cannot be linked", libtorch.display()))
    }

    fn test_link_in(&self, folder: &Path, libtorch: &Path, version: &str) -> Result<usize> {
        let source = folder.join("main.cpp");
        let program = folder.join("main");
        let [major, minor, patch] = version.split('.').collect::<Vec<_>>()[..] else {
            bail!("{version} is not a version of three numbers");
        };
        let text = format!(
            "#include <cstdio>\n#include <torch/cuda.h>\n#include <torch/version.h>\n\
             static_assert(TORCH_VERSION_MAJOR == {major} && TORCH_VERSION_MINOR == {minor} \
             && TORCH_VERSION_PATCH == {patch}, \"headers of another version\");\n\
             int main() {{ std::printf(\"%zu\\n\", torch::cuda::device_count()); }}\n"
        );
        fs::write(&source, text).with_context(|| format!("cannot write {}", source.display()))?;

        let include = libtorch.join("include");
        let lib = libtorch.join("lib");
        let mut command = self.command();
        command.arg("-std=c++17").arg("-I").arg(&include);
        command.arg("-I").arg(include.join("torch/csrc/api/include")).arg(&source);
        command.arg("-o").arg(&program).arg("-L").arg(&lib);
        if cfg!(target_os = "linux") {
            command.arg("-Wl,--no-as-needed");
        }
        command.args(["-ltorch_cpu", "-ltorch", "-lc10"]);
        command.arg(format!("-Wl,-rpath,{}", lib.display()));
        run(command, "compile and link a program of one line")?;
        let count = run(Command::new(&program), "start a program linked against it")?;
        count.trim().parse().with_context(|| format!("the test program printed `{}`, not a number", count.trim()))
    }
}

/// Runs a command and returns what it printed.
fn run(mut command: Command, purpose: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot {purpose}: {} does not start", command.get_program().display()))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot {purpose} ({}):\n{}", output.status, errors.trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_tells_the_gpus_that_libtorch_can_use_and_another_version_is_refused() {
        // Set by cargo after a set-up.
        let Some(libtorch) = env::var_os("LIBTORCH") else { return };
        let test = |version: &str| Compiler::find().unwrap().test_link(Path::new(&libtorch), version);
        let count = test(crate::libtorch::VERSION).unwrap();
        assert!(Path::new("/dev/nvidia0").exists() || count == 0, "{count} GPUs on a machine without one");
        let error = format!("{:#}", test("2.12.0").unwrap_err());
        assert!(error.contains("headers of another version"), "{error}");
    }
}
