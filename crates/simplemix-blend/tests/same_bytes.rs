//! A mixture has the same bytes whether all rows of its sources are kept or only those that are drawn, in memory or on disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use simplemix_blend::{MixReport, MixSettings, MixSource, mix, verify};
use simplemix_data::{Message, Pair, PairWriter, Policy, Text, Unwatched, WriteOptions};
use simplemix_mix::{BatchOrder, Exhaustion, RowOrder, Shares, Weight};

/// A file of `count` pairs as TRL has them; `bad` rows have no chosen text.
fn source(folder: &Path, name: &str, count: usize, bad: &[usize]) -> PathBuf {
    let lines = folder.join(format!("{name}.jsonl"));
    let row = |i: usize| {
        let chosen = if bad.contains(&i) { "" } else { "an answer " };
        let row = serde_json::json!({
            "prompt": [{"role": "user", "content": format!("{name} {i}?")}],
            "chosen": [{"role": "assistant", "content": chosen.repeat(i % 40 + 1)}],
            "rejected": [{"role": "assistant", "content": format!("no {i}")}],
            "task": if i.is_multiple_of(2) { "math" } else { "code" },
        });
        row.to_string() + "\n"
    };
    std::fs::write(&lines, (0..count).map(row).collect::<String>()).unwrap();
    let path = folder.join(format!("{name}.parquet"));
    parquet(&lines, &path);
    path
}

/// The rows of a JSON file as Parquet, unusable ones too.
fn parquet(lines: &Path, path: &Path) {
    let file = std::io::BufReader::new(std::fs::File::open(lines).unwrap());
    let (schema, _) = arrow::json::reader::infer_json_schema(file, None).unwrap();
    let file = std::io::BufReader::new(std::fs::File::open(lines).unwrap());
    let batches = arrow::json::ReaderBuilder::new(std::sync::Arc::new(schema)).build(file).unwrap();
    let mut writer = simplemix_data::TableWriter::create(path, &WriteOptions::default()).unwrap();
    batches.for_each(|batch| writer.write_batch(&batch.unwrap()).unwrap());
    writer.finish().unwrap();
}

fn settings(sources: &[(&str, &Path, u64)], output: PathBuf) -> MixSettings {
    let source = |(name, path, weight): &(&str, &Path, u64)| MixSource::new(*name, *path, Weight::whole(*weight));
    MixSettings { sources: sources.iter().map(source).collect(), output: Some(output), ..MixSettings::default() }
}

fn mixed(settings: &MixSettings) -> (Vec<u8>, MixReport) {
    let mut report = mix(settings, &mut Unwatched).unwrap();
    let bytes = std::fs::read(&report.output).unwrap();
    report.output = PathBuf::new();
    (bytes, report)
}

/// A limit that leaves no pair out has all rows of the sources kept.
fn with_all_rows(settings: &MixSettings) -> MixSettings {
    MixSettings { max_length_difference: Some(u64::MAX), ..settings.clone() }
}

#[test]
fn drawn_rows_give_the_bytes_of_all_rows() {
    let dir = tempfile::tempdir().unwrap();
    let off = source(dir.path(), "off", 10_000, &[]);
    let on = source(dir.path(), "on", 3_000, &[]);
    let bad = source(dir.path(), "bad", 5_000, &[0, 3, 4_096, 4_999]);
    let base = |ending: &str, on: &Path| {
        let sources = [("off", &*off, 3), ("on", on, 1)];
        settings(&sources, dir.path().join(format!("out.{ending}")))
    };
    let ways: Vec<(&str, MixSettings)> = vec![
        ("all", base("parquet", &on)),
        ("few", MixSettings { size: Some(100), ..base("parquet", &on) }),
        ("lines", MixSettings { size: Some(3_000), ..base("jsonl", &on) }),
        ("arrow", MixSettings { size: Some(3_000), ..base("arrow", &on) }),
        (
            "repeated",
            MixSettings { size: Some(20_000), exhaustion: Exhaustion::Repeat { epochs: 2 }, ..base("parquet", &on) },
        ),
        ("in file order", MixSettings { rows: RowOrder::File, size: Some(8_500), ..base("parquet", &on) }),
        (
            "by chance",
            MixSettings { shares: Shares::Bernoulli { replace: true }, size: Some(3_000), ..base("parquet", &on) },
        ),
        (
            "in batches",
            MixSettings {
                batch: Some(64),
                order: BatchOrder::BatchShuffled,
                size: Some(2_560),
                ..base("parquet", &on)
            },
        ),
        ("with bad rows", base("parquet", &bad)),
        ("with bad rows, few", MixSettings { size: Some(64), ..base("parquet", &bad) }),
    ];
    for (name, settings) in ways {
        let expected = mixed(&with_all_rows(&settings));
        let memories = if name == "repeated" { vec![0, 1, 256] } else { vec![1] };
        for memory in memories {
            let (bytes, report) = mixed(&MixSettings { memory, ..settings.clone() });
            assert_eq!(report, expected.1, "{name}, {memory} MB");
            assert!(bytes == expected.0, "{name}, {memory} MB: other bytes");
        }
    }
}

#[test]
fn shards_with_bad_rows_are_counted_over_all_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("shards");
    std::fs::create_dir(&folder).unwrap();
    for (name, bad) in [("a", vec![]), ("b", vec![7]), ("c", vec![0, 1])] {
        let made = source(dir.path(), name, 3_000, &bad);
        std::fs::rename(made, folder.join(format!("{name}.parquet"))).unwrap();
    }
    let other = source(dir.path(), "other", 2_000, &[]);
    let mut settings = settings(&[("shards", &folder, 2), ("other", &other, 1)], dir.path().join("out.parquet"));
    settings.report = Some(dir.path().join("receipt.json"));
    let (bytes, report) = mixed(&settings);
    assert_eq!(report.plan[0].available, 8_997);
    let receipt = std::fs::read_to_string(dir.path().join("receipt.json")).unwrap();
    assert!(receipt.contains(r#""refused": {"#) && receipt.contains(r#""empty-chosen": 3"#), "{receipt}");
    let (all, _) = mixed(&with_all_rows(&MixSettings { report: None, ..settings }));
    assert!(bytes == all);
}

#[test]
fn a_source_without_usable_rows_and_a_mixture_that_is_too_large_say_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let good = source(dir.path(), "good", 50, &[]);
    let none = source(dir.path(), "none", 3, &[0, 1, 2]);
    let output = dir.path().join("out.parquet");
    let empty = settings(&[("good", &good, 1), ("none", &none, 1)], output.clone());
    let some = source(dir.path(), "some", 60, &[5]);
    let large = MixSettings { size: Some(500), ..settings(&[("good", &good, 1), ("some", &some, 1)], output.clone()) };
    for (settings, expected) in [
        (empty, "no pair is left of its rows, refused: 3 empty-chosen"),
        (large, "source `good` has 50 rows, but the mixture needs 250; make it smaller, or allow 5 epochs"),
    ] {
        let error = mix(&settings, &mut Unwatched).unwrap_err();
        assert_eq!(error.to_string(), mix(&with_all_rows(&settings), &mut Unwatched).unwrap_err().to_string());
        assert!(error.to_string().ends_with(expected) && error.is_input() && !output.exists(), "{error}");
    }
}

#[test]
fn a_damaged_file_is_an_error_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let good = source(dir.path(), "good", 20_000, &[]);
    let mut bytes = std::fs::read(&good).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xff);
    std::fs::write(dir.path().join("damaged.parquet"), bytes).unwrap();
    let damaged = dir.path().join("damaged.parquet");
    let output = dir.path().join("out.parquet");
    let settings = settings(&[("good", &good, 1), ("damaged", &damaged, 1)], output.clone());
    let error = mix(&settings, &mut Unwatched).unwrap_err().to_string();
    assert!(error.contains("damaged.parquet") && !output.exists(), "{error}");
}

#[test]
fn a_receipt_of_drawn_rows_is_verified() {
    let dir = tempfile::tempdir().unwrap();
    let lines = |name: &str, text: &str| {
        let path = dir.path().join(format!("{name}.parquet"));
        let turn = |text: &str| Text::Messages(vec![Message::user(text)]);
        let answer = |text: String| Text::Messages(vec![Message::assistant(text)]);
        let pair =
            |i: usize| Pair::new(turn(text), answer(format!("{text} {i}")), answer("no".into()), name, Policy::Off);
        let mut writer = PairWriter::create(&path, &WriteOptions::default()).unwrap();
        writer.write_pairs(&(0..500).map(pair).collect::<Vec<_>>()).unwrap();
        writer.finish().unwrap();
        path
    };
    let (a, b) = (lines("a", "one"), lines("b", "two"));
    let mut settings = settings(&[("a", &a, 1), ("b", &b, 2)], dir.path().join("out.parquet"));
    settings.size = Some(300);
    settings.report = Some(dir.path().join("receipt.json"));
    mix(&settings, &mut Unwatched).unwrap();
    let verified = verify(&dir.path().join("receipt.json"), &mut Unwatched).unwrap();
    assert!(verified.is_there && verified.pairs == 300);
    // The receipt of all rows is that of the drawn ones.
    let receipt = std::fs::read_to_string(dir.path().join("receipt.json")).unwrap();
    settings.report = Some(dir.path().join("all.json"));
    mix(&with_all_rows(&settings), &mut Unwatched).unwrap();
    let all = std::fs::read_to_string(dir.path().join("all.json")).unwrap();
    let before = |text: &str| text.split("\"settings\"").next().unwrap().to_owned();
    assert_eq!(before(&receipt), before(&all));
}
