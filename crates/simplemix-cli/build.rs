//! Keeps libtorch itself among the libraries that programs load: its CUDA part registers itself when it is loaded, and
//! the linker would leave it out because no symbol of it is named.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
        println!("cargo:rustc-link-arg=-ltorch");
    }
}
