//! Any text as a configuration of TRL: settings, or an error.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use simplemix_train::{Objective, from_trl};

fuzz_target!(|text: &str| {
    let _ = from_trl(text, Path::new("trl.yaml"), Objective::Preference, 1);
});
