//! Compiles `src/native.cpp`, `src/group.cpp` and `src/host.cpp` against the libtorch that torch-sys has found.

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    for name in ["LIBTORCH", "LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    for name in ["native.cpp", "group.cpp", "host.cpp", "guarded.h", "gloo"] {
        println!("cargo:rerun-if-changed=src/{name}");
    }
    // torch-sys says nothing where it is built for documentation only.
    let Some(library) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else { return };
    let given = env::var_os("LIBTORCH_INCLUDE").or_else(|| env::var_os("LIBTORCH")).map(PathBuf::from);
    let root = given.or_else(|| library.parent().map(Path::to_path_buf)).unwrap_or_default();
    let include = if root.join("include").is_dir() { root.join("include") } else { root };
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".to_owned());
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .pic(true)
        .warnings(false)
        .std("c++17")
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        // Declarations of Gloo, for where libtorch's folder has none.
        .include("src");
    // Loops over elements are what a training step waits for, in builds for tests as well.
    build.clone().file("src/host.cpp").opt_level(3).flag("-fopenmp-simd").compile("simplemix_host");
    build.file("src/native.cpp").file("src/group.cpp").compile("simplemix_torch");
}
