//! Peak memory of a mixture, each in a process of its own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

use simplemix_blend::{MixSettings, MixSource, mix};
use simplemix_data::{Message, Pair, PairWriter, Policy, Text, Unwatched, WriteOptions};
use simplemix_mix::Weight;

const CHILD: &str = "SIMPLEMIX_TEST_FOLDER";
const PAIRS: usize = 12_000;

/// A file of 120 MB of text.
fn source(folder: &Path, name: &str) {
    let mut writer = PairWriter::create(folder.join(format!("{name}.parquet")), &WriteOptions::default()).unwrap();
    let long = "ten letters ".repeat(400);
    let turn = |text: String| Text::Messages(vec![Message::assistant(text)]);
    let pair = |i: usize| {
        Pair::new(turn(format!("{i}?")), turn(format!("{i} {long}")), turn(format!("{long} {i}")), name, Policy::Off)
    };
    for start in (0..PAIRS).step_by(1000) {
        writer.write_pairs(&(start..start + 1000).map(pair).collect::<Vec<_>>()).unwrap();
    }
    writer.finish().unwrap();
}

fn settings(folder: &Path, size: u64, memory: u64) -> MixSettings {
    let source = |name: &str| MixSource::new(name, folder.join(format!("{name}.parquet")), Weight::whole(1));
    let sources = vec![source("a"), source("b")];
    let output = Some(folder.join("out.parquet"));
    MixSettings { sources, size: Some(size), memory, output, ..MixSettings::default() }
}

/// Peak memory of a mixture in megabytes.
fn peak(folder: &Path, size: u64, memory: u64) -> u64 {
    let test = "the_rows_in_memory_are_those_of_the_setting";
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test]).env(CHILD, folder).env("RAYON_NUM_THREADS", "2");
    let done = child.env("SIZE", size.to_string()).env("MEMORY", memory.to_string()).output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    std::fs::read_to_string(folder.join("peak")).unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn the_rows_in_memory_are_those_of_the_setting() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let number = |name: &str| std::env::var(name).unwrap().parse().unwrap();
        mix(&settings(Path::new(&folder), number("SIZE"), number("MEMORY")), &mut Unwatched).unwrap();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        return std::fs::write(Path::new(&folder).join("peak"), line.trim().trim_end_matches(" kB")).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    ["a", "b"].iter().for_each(|name| source(folder.path(), name));
    // All rows of 240 MB.
    let all = 2 * PAIRS as u64;
    let (few, bounded, whole) =
        (peak(folder.path(), 100, 512), peak(folder.path(), all, 16), peak(folder.path(), all, 512));
    let found = format!("{few} MB for 100 pairs, {bounded} MB with 16 MB for rows, {whole} MB with 512");
    assert!(few < 120 && bounded < 16 + 300 && whole > 240, "{found}");
    assert!(bounded + 60 < whole, "{found}");
}
