//! Memory that rows cost: one test, alone in its process, since it looks at what the process holds.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use simplemix_data::{Form, Pair, Policy, RowStore, Validator, schema};

/// Kilobytes in memory, mapped files included.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn pair(i: usize, response: &str) -> Pair {
    let text = |text: String| text.as_str().into();
    Pair::new(text(format!("{i}?")), text(format!("yes {i} {response}")), text(format!("no {i}")), "off", Policy::Off)
}

#[test]
fn rows_on_disk_cost_four_bytes_and_checked_pairs_twenty() {
    // 100 MB of rows, of which 1 MB may be in memory.
    let long = "x".repeat(1000);
    let pairs: Vec<Pair> = (0..1000).map(|i| pair(i, &long)).collect();
    let batch = schema::batch_from_pairs(&pairs, Form::Plain).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let before = resident();
    let store = RowStore::collect((0..100).map(|_| Ok(batch.clone())), 1 << 20, folder.path()).unwrap();
    assert_eq!(store.rows(), 100_000);
    let mut most = resident();
    let stores = [store];
    for part in 0..20 {
        let rows: Vec<(usize, u64)> = (0..4096).map(|i| (0, (i * 37 + part) * 7919 % 100_000)).collect();
        let taken = RowStore::gather(&stores, &rows).unwrap();
        assert_eq!(taken.num_rows(), 4096);
        most = most.max(resident());
    }
    assert!(most < before + 40_000, "{} kB for 100 MB on disk", most - before);
    drop(stores);

    // 120,000 pairs in two files: 2.4 MB, and as much again while they are compared.
    let before = resident();
    let mut validator = Validator::default();
    for file in 0..2 {
        validator.file();
        (0..60_000).for_each(|i| validator.see(&pair(file * 59_999 + i, "")));
    }
    let held = resident();
    let found = validator.finish();
    assert_eq!(found[1].values().map(|rows| rows.count).sum::<u64>(), 2, "a shared prompt and a duplicate: {found:?}");
    let most = held.max(resident());
    assert!(most < before + 9_000, "{} kB for 120,000 pairs", most - before);
}
