#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod append;
mod atomic_file;
mod atomic_folder;
mod cache;
mod checksums;
mod claim;
mod error;
#[cfg(all(feature = "faults", debug_assertions))]
pub mod faults;
mod foreign;
mod guard;
mod hash;
mod input;
mod leftovers;
mod lock;
mod own;
mod same;
pub mod secret;
mod system;
mod temporary;

pub use append::AppendFile;
pub use atomic_file::{AtomicFile, write};
pub use atomic_folder::{AtomicFolder, FolderFile, remove_folder, rename_folder};
pub use cache::{cache_dir, cache_dir_for, open_dir};
pub use checksums::check_folder;
pub use claim::Claim;
pub use error::{Error, Result, failed_to};
pub use foreign::{is_lfs_pointer, python_number};
pub use guard::{guarded, is_guarded};
pub use hash::{hash_file, hash_files, hash_model_folder};
pub use input::{open, read, read_to_string};
pub use leftovers::{Leftover, leftovers};
pub use lock::{Holder, Lock};
pub use own::remove_temporaries;
pub use same::is_same_file;
pub use system::{create_dir_all, remove_file};
pub use temporary::remove_leftovers;
