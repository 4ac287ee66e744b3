//! AlpacaEval as a whole: properties on drawn verdicts, and published results where the shared data are at hand.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use simplemix_eval::alpaca::{
    Annotation, Annotations, Bootstrap, GamedRow, Instruction, LeaderboardOptions, LengthControl, WinRate, compare,
    leaderboard, predict, read_annotations, read_difficulty, read_gamed, read_weights,
};

/// Verdicts about a model, one a row.
fn annotations(verdicts: &[(f64, u64, u64)]) -> Annotations {
    let row = |(row, (preference, len_1, len_2)): (usize, &(f64, u64, u64))| Annotation {
        row,
        instruction: Some(Instruction::Number(row as i64)),
        preference: Some(*preference),
        lengths: Some([*len_1, *len_2]),
        category: Some(["math", "code", "chat"][row % 3].into()),
    };
    Annotations {
        model: "model".into(),
        annotator: None,
        baseline: Some("base".into()),
        rows: verdicts.iter().enumerate().map(row).collect(),
        refused: 0,
    }
}

/// Gamed rows for `count` instructions, by a rule.
fn gamed(count: usize) -> LengthControl {
    let difficulty = |index: usize| (index as f64 * 0.7).sin() * 2.0;
    let row = |i: usize| {
        let (index, is_verbose) = (i % count, i < count);
        let std_delta_len = if is_verbose { -1.0 } else { 1.5 } + (i as f64).cos();
        let preference = Some(0.5 - 0.3 * std_delta_len.tanh());
        GamedRow { preference, index, std_delta_len, instruction_difficulty: difficulty(index) }
    };
    LengthControl::new(&(0..2 * count).map(row).collect::<Vec<_>>(), None)
}

fn verdicts() -> impl Strategy<Value = Vec<(f64, u64, u64)>> {
    let preference = prop_oneof![4 => 1.0..=2.0f64, 1 => Just(1.0), 1 => Just(2.0), 1 => Just(1.5), 1 => Just(0.0)];
    prop::collection::vec((preference, 1..3000u64, 1..3000u64), 12..60)
}

fn swapped(annotations: &Annotations) -> Annotations {
    let mut swapped = annotations.clone();
    for row in &mut swapped.rows {
        row.preference = row.preference.map(|p| if p == 0.0 { 0.0 } else { 3.0 - p });
        row.lengths = row.lengths.map(|[a, b]| [b, a]);
    }
    swapped
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn the_other_sides_win_rate_is_the_rest(verdicts in verdicts()) {
        let ours = annotations(&verdicts);
        let (a, b) = (WinRate::of(&ours), WinRate::of(&swapped(&ours)));
        prop_assert!((a.win_rate + b.win_rate - 100.0).abs() < 1e-9);
        prop_assert!((a.standard_error - b.standard_error).abs() < 1e-9);
        prop_assert_eq!((a.n_wins, a.n_wins_base, a.n_draws), (b.n_wins_base, b.n_wins, b.n_draws));
    }

    #[test]
    fn the_order_of_rows_in_the_file_does_not_matter(verdicts in verdicts(), seed in 0..1000usize) {
        let control = gamed(60);
        let ours = annotations(&verdicts);
        let mut text: Vec<String> = ours.rows.iter().map(|row| {
            let [a, b] = row.lengths.unwrap();
            format!("{},{},{},{}", row.row, row.preference.unwrap(), a, b)
        }).collect();
        let count = text.len();
        text.rotate_left(seed % count);
        text.reverse();
        // Files keep the row as a column; the reader puts rows back.
        let mut shuffled = ours.clone();
        shuffled.rows = text.iter().map(|line| {
            let row: usize = line.split(',').next().unwrap().parse().unwrap();
            ours.rows[row].clone()
        }).collect();
        shuffled.rows.sort_by_key(|row| row.row);
        prop_assert_eq!(control.fit(&shuffled).unwrap(), control.fit(&ours).unwrap());
        shuffled.rows.reverse();
        prop_assert!((WinRate::of(&shuffled).win_rate - WinRate::of(&ours).win_rate).abs() < 1e-9);
        let (a, b) = (control.fit_at(&shuffled, 1.0).unwrap(), control.fit_at(&ours, 1.0).unwrap());
        prop_assert!((a.win_rate - b.win_rate).abs() < 1e-6, "{} {}", a.win_rate, b.win_rate);
    }

    #[test]
    fn the_baseline_is_at_fifty(verdicts in verdicts()) {
        let mut base = annotations(&verdicts);
        base.model = "base".into();
        let found = gamed(60).fit(&base).unwrap();
        prop_assert_eq!((found.win_rate, found.standard_error), (50.0, 0.0));
    }

    #[test]
    fn a_stronger_model_has_a_higher_win_rate_at_equal_lengths(verdicts in verdicts(), lift in 0.05..0.4f64) {
        let ours = annotations(&verdicts);
        let mut better = ours.clone();
        for row in &mut better.rows {
            let outcome = row.outcome().unwrap();
            row.preference = Some(1.0 + outcome + lift * (1.0 - outcome));
        }
        let control = gamed(60);
        let (a, b) = (control.fit_at(&ours, 10.0).unwrap(), control.fit_at(&better, 10.0).unwrap());
        prop_assert!(b.win_rate > a.win_rate - 1e-9);
    }
}

#[test]
fn a_leaderboard_is_sorted_and_says_why_a_figure_is_missing() {
    let verdict = |i: u32| (1.0 + f64::from(i % 4) / 8.0, 900 + u64::from(i), 700 + 9 * u64::from(i));
    let verdicts: Vec<(f64, u64, u64)> = (0..30).map(verdict).collect();
    let good = annotations(&verdicts);
    let mut bad = swapped(&good);
    bad.model = "other".into();
    let mut unmeasured = good.clone();
    unmeasured.model = "third".into();
    unmeasured.rows[7].lengths = None;
    let control = gamed(40);
    let options = LeaderboardOptions {
        length_control: Some(&control),
        bootstrap: Some(Bootstrap { replicates: 200, seed: 1 }),
        by_category: true,
        ..LeaderboardOptions::default()
    };
    let entries = leaderboard(&[bad, good.clone(), unmeasured], &options);
    let third = entries.iter().find(|entry| entry.model == "third").unwrap();
    assert_eq!(
        third.note.as_deref(),
        Some("third: no length-controlled win rate: row 7 has no lengths of both responses")
    );
    assert!(third.length_controlled_winrate.is_none() && third.plain.n_total == 30);
    let entry = entries.iter().find(|entry| entry.model == "model").unwrap();
    let interval = entry.win_rate_interval.unwrap();
    assert!(interval.low < entry.plain.win_rate && entry.plain.win_rate < interval.high);
    // A normal interval from the standard error is as wide, roughly.
    let width = (interval.high - interval.low) / (2.0 * 1.96 * entry.plain.standard_error);
    assert!((0.8..1.2).contains(&width), "{width}");
    let controlled = entry.lc_interval.unwrap();
    let rate = entry.length_controlled_winrate.unwrap();
    assert!(controlled.low < rate && rate < controlled.high && controlled.high - controlled.low < 60.0);
    assert_eq!(entry.categories.iter().map(|c| c.n).sum::<usize>(), 30);
    assert_eq!(leaderboard(&[good], &options)[0], *entry, "the same seed, the same figures");
    let rows: Vec<f64> = entries.iter().map(|e| e.length_controlled_winrate.unwrap_or(e.plain.win_rate)).collect();
    assert!(rows.is_sorted_by(|a, b| a >= b));
}

#[test]
fn rows_beyond_the_known_difficulties_are_an_error() {
    let verdicts = vec![(1.5, 10, 20); 61];
    let error = gamed(60).fit(&annotations(&verdicts)).unwrap_err().to_string();
    assert_eq!(error, "model: no length-controlled win rate: row 60 has no difficulty, expected a row from 0 to 59");
}

#[test]
fn unusual_rows_are_counted() {
    let mut found = annotations(&[(1.5, 1, 1); 8]);
    found.rows[0].preference = None;
    found.rows[1].preference = Some(2.5);
    found.rows[2].instruction = found.rows[3].instruction.clone();
    found.rows[4].instruction = Some(Instruction::Number(805));
    let clauses = found.findings().clauses();
    assert_eq!(clauses.len(), 4, "{clauses:?}");
    assert!(annotations(&[(1.5, 1, 1); 8]).findings().clauses().is_empty());
    assert_eq!(WinRate::of(&found).n_total, 6);
}

/// The folder of shared data, where there is one: `SIMPLEMIX_SHARED_DATA`, or beside the checkout.
fn shared() -> Option<PathBuf> {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("SIMPLEMIX_SHARED_DATA").map_or_else(beside, PathBuf::from).join("alpaca_eval");
    folder.is_dir().then_some(folder)
}

/// Published results of twelve models (tatsu-lab/alpaca_eval at cd543a1): plain figures, the length-controlled win rate
/// from published weights, from a fit at the published C, and from a fit of our own.
#[test]
#[expect(clippy::print_stderr, reason = "a test that is passed over says so")]
fn published_results_are_reproduced() {
    let Some(folder) = shared() else {
        eprintln!("passed over: no shared data; SIMPLEMIX_SHARED_DATA names their folder");
        return;
    };
    let mut models = read_annotations(&folder.join("annotations.parquet")).unwrap();
    models.iter_mut().for_each(|model| model.baseline = Some("gpt4_1106_preview".into()));
    let difficulty = read_difficulty(&folder.join("instruction_difficulty.csv")).unwrap();
    let control = LengthControl::new(&read_gamed(&folder.join("df_gamed.csv")).unwrap(), Some(difficulty.clone()));
    let weights = read_weights(&folder.join("expected.csv")).unwrap();
    let expected = std::fs::read_to_string(folder.join("expected.csv")).unwrap();
    let headings: Vec<&str> = expected.lines().next().unwrap().split(',').collect();
    let mut compared = 0;
    for line in expected.lines().skip(1) {
        let cells: Vec<&str> = line.split(',').collect();
        let cell = |name: &str| cells[headings.iter().position(|h| *h == name).unwrap()].parse::<f64>();
        let model = models.iter().find(|model| model.model == cells[0]).unwrap();
        let plain = serde_json::to_value(WinRate::of(model)).unwrap();
        for name in ["win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "discrete_win_rate"] {
            let (found, expected) = (plain[name].as_f64().unwrap(), cell(name).unwrap());
            assert!((found - expected).abs() < 1e-9, "{}: {name} {found}, published {expected}", cells[0]);
        }
        // The published mean is over all outputs, also those without a verdict.
        assert!((plain["avg_length"].as_f64().unwrap() - cell("avg_length").unwrap()).abs() <= 2.0);
        let published = cell("length_controlled_winrate").unwrap();
        let from_weights = predict(model, weights[&model.model], &difficulty).unwrap();
        assert!((from_weights.win_rate - published).abs() < 1e-6, "{}: {}", cells[0], from_weights.win_rate);
        if let Ok(error) = cell("lc_standard_error") {
            assert!((from_weights.standard_error - error).abs() < 1e-6);
        }
        if let Ok(c) = cell("C_selected") {
            let found = control.fit_at(model, c).unwrap().win_rate;
            assert!((found - published).abs() < 0.02, "{}: {found} at C {c}, published {published}", cells[0]);
        }
        let found = control.fit(model).unwrap().win_rate;
        assert!((found - published).abs() < 0.15, "{}: {found}, published {published}", cells[0]);
        compared += 1;
    }
    assert_eq!(compared, 12);
    let all: Vec<&Annotations> = models.iter().collect();
    assert_eq!(compare(&all, &[], &[]).len(), 66);
}

/// The folds that the published fits had.
#[test]
#[expect(clippy::print_stderr, reason = "a test that is passed over says so")]
fn folds_are_the_published_ones() {
    let Some(folder) = shared() else {
        eprintln!("passed over: no shared data; SIMPLEMIX_SHARED_DATA names their folder");
        return;
    };
    let text = std::fs::read_to_string(folder.join("cv_folds_2415.csv")).unwrap();
    let folds: Vec<usize> = text.lines().skip(1).map(|line| line.split_once(',').unwrap().1.parse().unwrap()).collect();
    assert_eq!(simplemix_eval::alpaca::group_k_fold(2415, 5), folds);
}

/// The official file of one model and our Parquet of the same say the same.
#[test]
#[expect(clippy::print_stderr, reason = "a test that is passed over says so")]
fn official_json_and_parquet_agree() {
    let Some(folder) = shared() else {
        eprintln!("passed over: no shared data; SIMPLEMIX_SHARED_DATA names their folder");
        return;
    };
    let json = read_annotations(&folder.join("annotations_full_claude-2.json.gz")).unwrap().remove(0);
    let parquet = read_annotations(&folder.join("annotations.parquet")).unwrap();
    let parquet = parquet.into_iter().find(|model| model.model == "claude-2").unwrap();
    assert_eq!((json.model.as_str(), json.baseline.as_deref()), ("claude-2", Some("gpt4_1106_preview")));
    assert_eq!(json.rows.len(), parquet.rows.len());
    for (a, b) in json.rows.iter().zip(&parquet.rows) {
        assert_eq!((a.preference, a.lengths), (b.preference, b.lengths), "row {}", a.row);
    }
}

/// The response that the judge saw first, for all 805 instructions of AlpacaEval.
#[test]
#[expect(clippy::print_stderr, reason = "a test that is passed over says so")]
fn the_judges_order_is_the_published_one() {
    let Some(folder) = shared() else {
        eprintln!("passed over: no shared data; SIMPLEMIX_SHARED_DATA names their folder");
        return;
    };
    let text = std::fs::read_to_string(folder.join("instructions.jsonl")).unwrap();
    let rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 805);
    for row in rows {
        let instruction = row["instruction"].as_str().unwrap();
        assert_eq!(
            Some(simplemix_eval::judge::is_switched(instruction, 0)),
            row["is_switched"].as_bool(),
            "{instruction}"
        );
    }
}
