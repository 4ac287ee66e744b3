//! Benchmarks of reading, taking rows by number and tokenising.
//!
//! cargo bench -p simplemix-data
//!
//! benches/data_peers.py compares whole conversions with `datasets` and TRL.

#![allow(missing_docs, clippy::unwrap_used, reason = "a bench")]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use rayon::prelude::*;
use simplemix_data::{
    Message, Pair, PairReader, PairTokenizer, PairWriter, Policy, ReadOptions, RowStore, Text, TokenSet,
    TokenizeOptions, WriteOptions,
};
use tempfile::TempDir;

const ROWS: usize = 100_000;
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/data_tokens");

/// Pairs of a few hundred characters, as in instruction data.
fn pairs(count: usize) -> Vec<Pair> {
    let words =
        ["model", "answer", "question", "number", "sum", "robot", "star", "story", "rain", "because", "is", "it"];
    let text = |seed: usize, length: usize| {
        (0..length).map(|i| words[(seed * 31 + i * i * 7 + i) % words.len()]).collect::<Vec<_>>().join(" ")
    };
    let turn = |role: &str, content: String| Text::Messages(vec![Message::new(role, content)]);
    (0..count)
        .map(|i| {
            let prompt = turn("user", format!("{i} {}", text(i, 30)));
            Pair::new(
                prompt,
                turn("assistant", text(i + 1, 90)),
                turn("assistant", text(i + 2, 80)),
                "made",
                Policy::Off,
            )
        })
        .collect()
}

fn written(dir: &TempDir, name: &str, pairs: &[Pair]) -> std::path::PathBuf {
    let path = dir.path().join(name);
    let mut writer = PairWriter::create(&path, &WriteOptions::default()).unwrap();
    writer.write_pairs(pairs).unwrap();
    writer.finish().unwrap();
    path
}

fn reading(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let pairs = pairs(ROWS);
    let mut group = c.benchmark_group("100,000 pairs of 1.2 kB");
    group.sample_size(10).throughput(Throughput::Elements(ROWS as u64));
    for name in ["p.parquet", "p.arrow", "p.jsonl"] {
        let path = written(&dir, name, &pairs);
        group.bench_function(format!("read and normalise {name}"), |b| {
            b.iter(|| {
                let reader = PairReader::open(&path, &ReadOptions::default()).unwrap();
                reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>()
            });
        });
    }
    let path = dir.path().join("p.parquet");
    group.bench_function("write parquet", |b| b.iter(|| written(&dir, "out.parquet", &pairs)));
    let options = ReadOptions::default().with_source("made");
    let store = [RowStore::collect(PairReader::open(&path, &options).unwrap(), 0, dir.path()).unwrap()];
    let rows: Vec<(usize, u64)> = (0..ROWS as u64).map(|i| (0, i * 7919 % ROWS as u64)).collect();
    group.bench_function("take rows of a file in random order", |b| {
        b.iter(|| rows.chunks(4096).map(|rows| RowStore::gather(&store, rows).unwrap().num_rows()).sum::<usize>());
    });
    group.finish();
    c.bench_function("take 64 rows of a file", |b| b.iter(|| RowStore::gather(&store, &rows[..64]).unwrap()));
}

fn tokens(c: &mut Criterion) {
    let dir = tempfile::tempdir().unwrap();
    let pairs = pairs(2000);
    let tokenizer = PairTokenizer::from_dir(FOLDER, TokenizeOptions::default()).unwrap();
    let mut group = c.benchmark_group("tokenise 2,000 pairs");
    group.sample_size(10).throughput(Throughput::Elements(2000));
    group.bench_function("pairs, checked and cut", |b| b.iter(|| tokenizer.encode_all(&pairs).unwrap()));
    // Baseline: the tokenizer alone, on equal strings.
    let contents = |text: &Text| match text {
        Text::Messages(turns) => turns.iter().map(|turn| turn.content.clone()).collect::<Vec<_>>().join("\n"),
        Text::Plain(text) => text.clone(),
    };
    let strings: Vec<String> = pairs
        .iter()
        .flat_map(|pair| {
            let [prompt, chosen, rejected] = [&pair.prompt, &pair.chosen, &pair.rejected].map(contents);
            let prompt = format!("<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n");
            [format!("{prompt}{chosen}<|im_end|>\n"), format!("{prompt}{rejected}<|im_end|>\n"), prompt]
        })
        .collect();
    group.bench_function("encode_batch_fast alone", |b| {
        b.iter(|| tokenizer.inner().encode_batch_fast(strings.clone(), false).unwrap());
    });
    group.bench_function("encode_fast alone, over rayon", |b| {
        b.iter(|| {
            strings.par_iter().map(|s| tokenizer.inner().encode_fast(s.as_str(), false).unwrap().len()).sum::<usize>()
        });
    });
    group.finish();

    let path = dir.path().join("big.arrow");
    let many: Vec<Pair> = pairs.iter().cycle().take(200_000).cloned().collect();
    tokenizer.encode_all(&many).unwrap().write(&path).unwrap();
    c.bench_function("open 200,000 tokenised pairs and take a batch of 64", |b| {
        b.iter(|| {
            let set = TokenSet::open(&path).unwrap();
            (0..64).map(|i| set.get(i * 3001).chosen.len()).sum::<usize>()
        });
    });
}

criterion_group!(benches, reading, tokens);
criterion_main!(benches);
