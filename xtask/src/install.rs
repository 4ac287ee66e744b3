//! libtorch from the PyPI wheel, unpacked into the user's cache.
//!
//! The wheels for Linux are CUDA builds. For the CPU a part of them is enough; what that part still
//! names of CUDA is two small libraries, and `libtorch.so`, which would load the rest and has no
//! symbol of its own, is replaced by an empty one. The wheel for macOS is taken whole.
//!
//! A set lies in the cache as in site-packages, since the libraries look for each other so:
//! `torch/{include,lib}`, `nvidia/`, `torch.libs/`, and a manifest.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::cache::{self, Cache, Partial};
use crate::compiler::Compiler;
use crate::libtorch::{self, Kind, Libtorch, VERSION};
use crate::python::Python;
use crate::say;

const MANIFEST: &str = "manifest.json";

/// Libraries of CUDA that libtorch_cpu of the CUDA build names; for 2.11.0 those of CUDA 13.0.
const CUDA_FOR_CPU: [(&str, &str); 2] =
    [("nvidia-cuda-runtime==13.0.*", "libcudart.so.13"), ("nvidia-cuda-cupti==13.0.*", "libcupti.so.13")];

/// Files of the torch wheel that are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The CPU part of a CUDA build, which is what the wheels for Linux are.
    Cpu,
    /// All headers and libraries.
    Whole,
}

/// The set in the cache, fetched if it is not there.
///
/// # Errors
/// No way to fetch it, with the reason.
pub(crate) fn from_cache(compiler: &Compiler, wanted: Kind) -> Result<Libtorch> {
    let name = match wanted {
        Kind::Cpu => format!("libtorch-{VERSION}-cpu"),
        Kind::Cuda => format!("libtorch-{VERSION}-cuda"),
    };
    let torch = cache::folder()?.join(&name).join("torch");
    if let Ok(libtorch) = libtorch::inspect(&torch) {
        return Ok(libtorch);
    }
    check_platform(env::consts::OS, env::consts::ARCH, cfg!(target_env = "musl"), wanted)?;
    let python = Python::with_pip()?;
    let cache = Cache::open()?;
    // Another set-up may have done it while this one waited.
    if let Ok(libtorch) = libtorch::inspect(&torch) {
        return Ok(libtorch);
    }
    let partial = cache.partial(&name)?;
    let set = partial.folder("set")?;
    fill(&python, compiler, &partial, &set, wanted)?;
    cache::publish(&set, &cache.root().join(&name))?;
    libtorch::inspect(&torch)
}

/// PyPI has wheels of this version for these platforms.
fn check_platform(os: &str, arch: &str, musl: bool, wanted: Kind) -> Result<()> {
    ensure!(!musl, "PyTorch has no build for musl; use a Rust toolchain for glibc");
    match (os, arch) {
        ("linux", "x86_64" | "aarch64") => Ok(()),
        ("macos", "aarch64") if wanted == Kind::Cuda => bail!("there is no CUDA on macOS"),
        ("macos", "aarch64") => Ok(()),
        _ => bail!("PyTorch {VERSION} has no build for {os} on {arch}"),
    }
}

fn fill(python: &Python, compiler: &Compiler, partial: &Partial, set: &Path, wanted: Kind) -> Result<()> {
    say(format_args!("fetching libtorch {VERSION}, once, into {}", cache::folder()?.display()));
    let wheel = only(python.wheels(partial, &[&format!("torch=={VERSION}")])?)?;
    let members = python.list(&wheel)?;
    let part = part_of(&members, wanted)?;
    python.extract(&wheel, set, &selected(&members, |member| torch_path(member, part)))?;
    let requirements = cuda_requirements(python, &wheel, &members, wanted, partial)?;
    let mut wheels = vec![wheel];
    match part {
        Part::Cpu => wheels.extend(add_cuda_for_cpu(python, compiler, partial, set)?),
        Part::Whole if !requirements.is_empty() => {
            wheels.extend(add_cuda(python, partial, set, &requirements)?);
        }
        Part::Whole => {}
    }
    finish(set, &wheels)?;
    compiler.test_link(&set.join("torch"), VERSION)?;
    write_manifest(set, &wheels)
}

/// A CUDA build is told by what is in it, so that an index of CPU builds serves as well.
fn part_of(members: &[String], wanted: Kind) -> Result<Part> {
    let cuda = members.iter().any(|member| member == "torch/lib/libtorch_cuda.so");
    match (wanted, cuda) {
        (Kind::Cpu, true) => Ok(Part::Cpu),
        (Kind::Cpu, false) | (Kind::Cuda, true) => Ok(Part::Whole),
        (Kind::Cuda, false) => bail!("the torch wheel for this platform, or of this index, is a CPU build"),
    }
}

/// Where a file of the torch wheel goes, if it is needed.
fn torch_path(member: &str, part: Part) -> Option<String> {
    let taken = if let Some(name) = member.strip_prefix("torch/lib/") {
        // The libraries for Python need symbols of the interpreter; folders hold none.
        let of_python = name.starts_with("libtorch_python") || name.starts_with("libtorch_global_deps");
        let of_cuda = ["libtorch.so", "libcaffe2_nvrtc.so", "libtorch_nvshmem.so"].contains(&name)
            || name.starts_with("libtorch_cuda")
            || name.starts_with("libc10_cuda");
        !name.contains('/') && !of_python && (part == Part::Whole || !of_cuda)
    } else {
        ["torch/include/", "torch.libs/", "torch/.dylibs/"].iter().any(|folder| member.starts_with(folder))
    };
    (taken && is_inside(member)).then(|| member.to_owned())
}

/// Where a file of an NVIDIA wheel goes, if it is needed: libraries, in the place that the run path
/// of libtorch names.
fn nvidia_path(member: &str) -> Option<String> {
    let name = member.rsplit('/').next()?;
    let taken = member.starts_with("nvidia/") && member.contains("/lib/") && name.contains(".so");
    (taken && is_inside(member)).then(|| member.to_owned())
}

/// No member may be written outside the set.
fn is_inside(member: &str) -> bool {
    !member.starts_with('/') && !member.split('/').any(|part| part == "..") && !member.contains(['\t', '\n'])
}

fn selected(members: &[String], path: impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    members.iter().filter_map(|member| Some((member.clone(), path(member)?))).collect()
}

fn add_cuda_for_cpu(python: &Python, compiler: &Compiler, partial: &Partial, set: &Path) -> Result<Vec<PathBuf>> {
    let requirements = CUDA_FOR_CPU.map(|(requirement, _)| requirement);
    let wheels = python.wheels(partial, &requirements)?;
    let mut missing: Vec<&str> = CUDA_FOR_CPU.iter().map(|(_, library)| *library).collect();
    for wheel in &wheels {
        let wanted = selected(&python.list(wheel)?, |member| {
            let name = member.rsplit('/').next()?;
            missing.contains(&name).then(|| format!("torch/lib/{name}"))
        });
        missing.retain(|library| !wanted.iter().any(|(_, path)| path.ends_with(library)));
        python.extract(wheel, set, &wanted)?;
    }
    ensure!(missing.is_empty(), "the NVIDIA wheels hold no {}", missing.join(" and no "));
    compiler.empty_library(&set.join("torch/lib/libtorch.so"), "libtorch.so")?;
    Ok(wheels)
}

fn add_cuda(python: &Python, partial: &Partial, set: &Path, requirements: &[String]) -> Result<Vec<PathBuf>> {
    let requirements: Vec<&str> = requirements.iter().map(String::as_str).collect();
    let wheels = python.wheels_with_dependencies(partial, &requirements)?;
    for wheel in &wheels {
        let wanted = selected(&python.list(wheel)?, nvidia_path);
        python.extract(wheel, set, &wanted)?;
    }
    Ok(wheels)
}

/// NVIDIA's libraries that the torch wheel requires.
fn cuda_requirements(
    python: &Python,
    wheel: &Path,
    members: &[String],
    wanted: Kind,
    partial: &Partial,
) -> Result<Vec<String>> {
    if wanted == Kind::Cpu {
        return Ok(Vec::new());
    }
    let metadata = members.iter().find(|member| member.ends_with(".dist-info/METADATA"));
    let metadata = metadata.context("the torch wheel has no METADATA")?;
    python.extract(wheel, partial.path(), &[(metadata.clone(), "METADATA".to_owned())])?;
    Ok(nvidia_requirements(&fs::read_to_string(partial.path().join("METADATA"))?))
}

fn nvidia_requirements(metadata: &str) -> Vec<String> {
    metadata
        .lines()
        .filter_map(|line| line.strip_prefix("Requires-Dist: "))
        .filter(|line| line.starts_with("nvidia-") || line.starts_with("cuda-toolkit"))
        .filter(|line| !line.contains("extra =="))
        .map(str::to_owned)
        .collect()
}

/// Adds what a linker expects beside the libraries.
fn finish(set: &Path, wheels: &[PathBuf]) -> Result<()> {
    let torch = set.join("torch");
    let label = wheels.first().and_then(|wheel| wheel.file_name()).unwrap_or_default();
    say(format_args!("unpacked {}", label.display()));
    fs::write(torch.join("build-version"), format!("{VERSION}\n"))?;
    let lib = torch.join("lib");
    if lib.join("libgomp.so.1").exists() {
        // torch-sys links `gomp`, of which clang without gcc has none.
        fs::copy(lib.join("libgomp.so.1"), lib.join("libgomp.so"))?;
    }
    // The wheels are the larger part of what lies on the disk at this point.
    for wheel in wheels {
        fs::remove_file(wheel).with_context(|| format!("cannot remove {}", wheel.display()))?;
    }
    Ok(())
}

fn write_manifest(set: &Path, wheels: &[PathBuf]) -> Result<()> {
    let mut files = BTreeMap::new();
    for folder in ["torch/lib", "torch.libs", "torch/.dylibs", "nvidia"] {
        sizes(set, Path::new(folder), &mut files)?;
    }
    let wheels: Vec<_> = wheels.iter().filter_map(|wheel| wheel.file_name()?.to_str()).collect();
    let manifest = json!({ "libtorch": VERSION, "wheels": wheels, "files": files });
    let path = set.join(MANIFEST);
    fs::write(&path, format!("{manifest:#}\n")).with_context(|| format!("cannot write {}", path.display()))
}

fn sizes(set: &Path, folder: &Path, files: &mut BTreeMap<String, u64>) -> Result<()> {
    let Ok(entries) = fs::read_dir(set.join(folder)) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            sizes(set, &path, files)?;
        } else {
            ensure!(metadata.len() > 0, "{} is empty", path.display());
            files.insert(path.display().to_string(), metadata.len());
        }
    }
    Ok(())
}

/// Checks a libtorch that this program has unpacked against its manifest; others have none.
///
/// # Errors
/// A file that is missing or has another size.
pub(crate) fn check_manifest(torch: &Path) -> Result<()> {
    let Some(set) = torch.parent() else { return Ok(()) };
    let Ok(text) = fs::read_to_string(set.join(MANIFEST)) else { return Ok(()) };
    let manifest: Value = serde_json::from_str(&text).context("the manifest is damaged")?;
    let files = manifest["files"].as_object().context("the manifest names no files")?;
    for (name, size) in files {
        let found = fs::metadata(set.join(name)).map(|found| found.len()).ok();
        ensure!(found == size.as_u64(), "{}: damaged, {size} bytes expected", set.join(name).display());
    }
    Ok(())
}

fn only(mut files: Vec<PathBuf>) -> Result<PathBuf> {
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => Ok(file),
        _ => bail!("pip was asked for one file and downloaded {}", files.len() + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::{Kind, Part, check_platform, nvidia_path, nvidia_requirements, part_of, torch_path};

    #[test]
    fn the_cpu_part_is_headers_and_what_libtorch_cpu_names() {
        let kept = |member: &str| torch_path(member, Part::Cpu).is_some();
        let needed = ["torch_cpu.so", "c10.so", "shm.so", "gomp.so.1", "arm_compute.so", "nvpl_blas_core.so.0"];
        for name in needed {
            assert!(kept(&format!("torch/lib/lib{name}")), "{name}");
        }
        let left_out = ["torch.so", "torch_cuda.so", "torch_cuda_linalg.so", "c10_cuda.so", "torch_nvshmem.so"];
        for name in left_out {
            assert!(!kept(&format!("torch/lib/lib{name}")), "{name}");
        }
        assert!(kept("torch/include/ATen/ATen.h"));
        assert!(!kept("torch/__init__.py"));
    }

    #[test]
    fn the_whole_leaves_out_python_only() {
        let kept = |member| torch_path(member, Part::Whole).is_some();
        for member in ["torch/lib/libtorch.so", "torch/lib/libomp.dylib", "torch.libs/libopenblas.so.0"] {
            assert!(kept(member), "{member}");
        }
        for member in ["torch/lib/libtorch_python.so", "torch/_C.so", "torch/include/../../x", "torch/lib/../x"] {
            assert!(!kept(member), "{member}");
        }
    }

    #[test]
    fn of_nvidia_only_libraries_are_taken() {
        assert!(nvidia_path("nvidia/cu13/lib/libcudart.so.13").is_some());
        assert!(nvidia_path("nvidia/cu13/include/cuda.h").is_none());
        assert!(nvidia_path("nvidia/cu13/lib/../../../x.so").is_none());
    }

    #[test]
    fn the_wheel_tells_what_is_trimmed() {
        let cuda = ["torch/lib/libtorch_cuda.so".to_owned()];
        assert_eq!(part_of(&cuda, Kind::Cpu).unwrap(), Part::Cpu);
        assert_eq!(part_of(&cuda, Kind::Cuda).unwrap(), Part::Whole);
        assert_eq!(part_of(&[], Kind::Cpu).unwrap(), Part::Whole);
        assert!(part_of(&[], Kind::Cuda).is_err());
    }

    #[test]
    fn knows_the_platforms_that_have_wheels() {
        assert!(check_platform("linux", "x86_64", false, Kind::Cuda).is_ok());
        assert!(check_platform("linux", "aarch64", false, Kind::Cpu).is_ok());
        assert!(check_platform("macos", "aarch64", false, Kind::Cpu).is_ok());
        assert!(check_platform("macos", "aarch64", false, Kind::Cuda).is_err());
        assert!(check_platform("macos", "x86_64", false, Kind::Cpu).is_err());
        assert!(check_platform("linux", "x86_64", true, Kind::Cpu).is_err());
    }

    #[test]
    fn asks_for_the_libraries_that_the_wheel_requires() {
        let metadata = "Name: torch\nRequires-Dist: sympy>=1.13.3\n\
            Requires-Dist: cuda-toolkit[cublas,cudart]==13.0.2; platform_system == \"Linux\"\n\
            Requires-Dist: nvidia-nccl-cu13==2.28.9; platform_system == \"Linux\"\n\
            Requires-Dist: triton==3.6.0; platform_system == \"Linux\"\n";
        let expected = [
            "cuda-toolkit[cublas,cudart]==13.0.2; platform_system == \"Linux\"",
            "nvidia-nccl-cu13==2.28.9; platform_system == \"Linux\"",
        ];
        assert_eq!(nvidia_requirements(metadata), expected);
    }
}
