//! GPUs of the machine: those that libtorch can use, and signs of those that it cannot.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::device;

/// Oldest driver for CUDA 13, with which libtorch 2.11 is built.
const OLDEST_DRIVER: u32 = 580;

/// Folders of libraries where an NVIDIA driver puts `libcuda.so.1`, beside those of `LD_LIBRARY_PATH`.
const LIBRARIES: [&str; 6] = [
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/lib",
    "usr/lib/wsl/lib",
    "usr/local/nvidia/lib64",
];

/// Facts about the GPUs of a machine, from which [`DeviceChoice`](crate::DeviceChoice) follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gpus {
    /// Number of GPUs that libtorch can use.
    pub usable: usize,
    /// Sign of an NVIDIA GPU or of its driver, such as `/dev/nvidia0`.
    pub sign: Option<PathBuf>,
    /// Whether a device file of a GPU is there, which a container has only if it was started with one.
    pub has_device_file: bool,
    /// Version of the NVIDIA driver, such as `580.65.06`, where the system tells it.
    pub driver: Option<String>,
    /// Whether the CUDA part of libtorch is in this process.
    pub has_cuda_part: bool,
    /// Value of `CUDA_VISIBLE_DEVICES`, if it is set.
    pub visible: Option<String>,
}

impl Gpus {
    /// Facts about this machine and process.
    pub fn here() -> Self {
        let found = Self::below(Path::new("/"), std::env::var_os("LD_LIBRARY_PATH").as_deref());
        Self {
            usable: device::count(),
            has_cuda_part: std::fs::read_to_string("/proc/self/maps").is_ok_and(|maps| maps.contains("/libtorch_cuda")),
            visible: std::env::var("CUDA_VISIBLE_DEVICES").ok(),
            ..found
        }
    }

    /// Signs of NVIDIA GPUs in the file system below `root`; `library_path` is a list of further folders of libraries.
    pub fn below(root: &Path, library_path: Option<&OsStr>) -> Self {
        let device_file = device_file(&root.join("dev"));
        let version = root.join("proc/driver/nvidia/version");
        let driver = std::fs::read_to_string(&version).ok();
        let folders = LIBRARIES.iter().map(|folder| root.join(folder));
        let library = std::env::split_paths(library_path.unwrap_or_default())
            .chain(folders)
            .map(|folder| folder.join("libcuda.so.1"))
            .find(|file| file.exists());
        Self {
            has_device_file: device_file.is_some(),
            sign: device_file.or(driver.is_some().then_some(version)).or(library),
            driver: driver.as_deref().and_then(driver_version).map(str::to_owned),
            ..Self::default()
        }
    }

    /// Whether the user has hidden all GPUs from CUDA.
    pub(crate) fn are_hidden(&self) -> bool {
        self.visible.as_deref().is_some_and(|visible| ["", "-1", "NoDevFiles"].contains(&visible.trim()))
    }

    /// The reason why libtorch uses no GPU, and what to do about it.
    pub(crate) fn why_none(&self) -> (String, &'static str) {
        if self.are_hidden() {
            let visible = self.visible.as_deref().unwrap_or_default();
            return (
                format!("CUDA_VISIBLE_DEVICES is `{visible}`, which hides all GPUs"),
                "unset CUDA_VISIBLE_DEVICES",
            );
        }
        if !self.has_cuda_part {
            let found = "this program has the CPU part of libtorch only".to_owned();
            return (found, "run `cargo xtask setup --cuda` and build it again; docs/gpu.md says how to link CUDA");
        }
        let Some(sign) = &self.sign else {
            return ("the machine has no NVIDIA GPU".to_owned(), "use a machine with one");
        };
        if let Some(driver) = self.driver.as_deref().filter(|driver| is_too_old(driver)) {
            let found =
                format!("the NVIDIA driver {driver} is too old for CUDA 13, which needs {OLDEST_DRIVER} or later");
            return (found, "update the driver");
        }
        if self.driver.is_some() && !self.has_device_file {
            let found = "the NVIDIA driver is loaded, but there is no /dev/nvidia0".to_owned();
            return (found, "start the container with its GPUs, as in `docker run --gpus all`");
        }
        let found = format!("{} is there, but CUDA finds no GPU", sign.display());
        (found, "see what `nvidia-smi` says, and that the driver is 580 or later")
    }
}

/// The file of the first GPU in `dev`.
fn device_file(dev: &Path) -> Option<PathBuf> {
    let is_gpu = |path: &PathBuf| {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        name.strip_prefix("nvidia").is_some_and(|number| number.parse::<u32>().is_ok())
    };
    std::fs::read_dir(dev).ok()?.filter_map(|entry| Some(entry.ok()?.path())).filter(is_gpu).min()
}

/// The driver's version in the text of /proc/driver/nvidia/version: the first word of numbers and points.
fn driver_version(text: &str) -> Option<&str> {
    let is_version = |word: &&str| {
        word.contains('.') && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit()))
    };
    text.lines().next()?.split_whitespace().find(is_version)
}

fn is_too_old(driver: &str) -> bool {
    driver.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major < OLDEST_DRIVER)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with these files and contents.
    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    /// First lines of /proc/driver/nvidia/version of the closed and of the open kernel module.
    const CLOSED: &str = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\n";
    const OPEN: &str =
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (dvs-builder)\n";

    #[test]
    fn files_of_the_driver_are_signs_of_a_gpu() {
        let root = machine(&[("dev/nvidiactl", ""), ("dev/null", "")]);
        assert_eq!(Gpus::below(root.path(), None), Gpus::default());
        let root = machine(&[("dev/nvidia1", ""), ("dev/nvidia0", ""), ("proc/driver/nvidia/version", OPEN)]);
        let found = Gpus::below(root.path(), None);
        assert_eq!(found.sign.unwrap(), root.path().join("dev/nvidia0"));
        assert_eq!((found.driver.unwrap().as_str(), found.has_device_file), ("580.65.06", true));
        let root = machine(&[("proc/driver/nvidia/version", CLOSED)]);
        let found = Gpus::below(root.path(), None);
        assert_eq!((found.driver.as_deref(), found.has_device_file), (Some("550.54.14"), false));
        assert!(found.sign.unwrap().ends_with("proc/driver/nvidia/version"));
        let root = machine(&[("usr/lib/wsl/lib/libcuda.so.1", ""), ("opt/libcuda.so.1", "")]);
        assert!(Gpus::below(root.path(), None).sign.unwrap().ends_with("wsl/lib/libcuda.so.1"));
        let given = root.path().join("opt");
        let found = Gpus::below(&root.path().join("none"), Some(given.as_os_str()));
        assert_eq!(found.sign, Some(given.join("libcuda.so.1")));
    }

    #[test]
    fn the_reason_is_the_one_that_the_user_can_mend() {
        let reason = |gpus: &Gpus| gpus.why_none().0;
        let plain = Gpus { sign: Some("/dev/nvidia0".into()), has_device_file: true, ..Gpus::default() };
        assert!(reason(&plain).contains("the CPU part of libtorch only"));
        let linked = Gpus { has_cuda_part: true, ..plain.clone() };
        assert!(reason(&linked).starts_with("/dev/nvidia0 is there, but CUDA finds no GPU"));
        let old = Gpus { driver: Some("550.54.14".to_owned()), ..linked.clone() };
        let expected = "the NVIDIA driver 550.54.14 is too old for CUDA 13, which needs 580 or later";
        assert_eq!(reason(&old), expected);
        let new = Gpus { driver: Some("580.65.06".to_owned()), has_device_file: false, ..linked.clone() };
        assert!(reason(&new).ends_with("no /dev/nvidia0") && new.why_none().1.contains("--gpus all"));
        let hidden = Gpus { visible: Some("-1".to_owned()), ..linked.clone() };
        assert!(reason(&hidden).contains("hides all GPUs"));
        assert_eq!(reason(&Gpus { sign: None, ..linked }), "the machine has no NVIDIA GPU");
    }
}
