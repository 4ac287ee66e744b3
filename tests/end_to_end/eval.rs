//! Evaluation and reports as a user runs them.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::good_runs::succeeds;
use crate::{Dir, exists, stderr, stdout};

/// Annotations of `count` instructions about a model; the better it is, the more it wins.
fn annotations(dir: &Dir, model: &str, count: usize, skill: f64) {
    let row = |i: usize| {
        let spread = (i as f64 * 1.7).sin() * 0.3;
        let dataset = ["koala", "oasst"][i % 2];
        json!({
            "instruction": format!("question {i}"),
            "output_1": "b".repeat(100 + i),
            "output_2": "m".repeat(60 + 3 * i),
            "generator_1": "gpt4_1106_preview",
            "generator_2": model,
            "dataset": dataset,
            "annotator": "weighted_alpaca_eval_gpt4_turbo",
            "preference": 1.0 + (skill + spread).clamp(0.0, 1.0),
        })
    };
    let rows: Vec<Value> = (0..count).map(row).collect();
    dir.write(&format!("{model}.json"), json!(rows).to_string());
}

/// The two constant inputs, for `count` instructions.
fn constants(dir: &Dir, count: usize) {
    let mut gamed = String::from("preference,index,model,std_delta_len,instruction_difficulty,not_gamed_baseline\n");
    let mut difficulty = String::from(",instruction_difficulty\n");
    let hard = |i: usize| (i as f64 * 0.9).cos();
    for (variant, shift) in [("verbose", -1.5), ("concise", 1.5)] {
        for i in 0..count {
            let preference = 0.5 - shift / 5.0;
            writeln!(gamed, "{preference},{i},base_{variant},{},{},False", shift + 0.1 * hard(i), hard(i)).unwrap();
        }
    }
    for i in 0..count {
        writeln!(difficulty, "{i},{}", hard(i)).unwrap();
    }
    dir.write("gamed.csv", gamed);
    dir.write("difficulty.csv", difficulty);
}

#[test]
fn win_rates_come_under_the_leaderboards_names() {
    let dir = Dir::new();
    annotations(&dir, "strong", 40, 0.7);
    annotations(&dir, "weak", 40, 0.2);
    constants(&dir, 40);
    let files = ["eval", "alpaca", "--annotations", "weak.json", "strong.json", "--gamed", "gamed.csv"];
    let rows: Value = serde_json::from_str(&succeeds(&dir, &[&files[..], &["--json"]].concat())).unwrap();
    let columns: Vec<&str> = rows[0].as_object().unwrap().keys().map(String::as_str).collect();
    let official = [
        "model",
        "win_rate",
        "standard_error",
        "n_wins",
        "n_wins_base",
        "n_draws",
        "n_total",
        "discrete_win_rate",
        "avg_length",
        "length_controlled_winrate",
        "lc_standard_error",
    ];
    assert_eq!(columns[..official.len()], official);
    assert_eq!((rows[0]["model"].as_str(), rows[1]["model"].as_str()), (Some("strong"), Some("weak")));
    assert_eq!((rows[0]["n_total"].as_u64(), rows[0]["avg_length"].as_u64()), (Some(40), Some(118)));
    assert!(rows[0]["length_controlled_winrate"].as_f64() > rows[1]["length_controlled_winrate"].as_f64());
    // The gamed rows hold the difficulties too.
    let with_difficulty = [&files[..], &["--difficulty", "difficulty.csv", "--json"]].concat();
    assert_eq!(rows, serde_json::from_str::<Value>(&succeeds(&dir, &with_difficulty)).unwrap());

    let text = succeeds(&dir, &[&files[..], &["--pairwise", "--by-category", "--bootstrap", "50"]].concat());
    for part in ["LC win rate", "strong: koala", "weak: oasst", "strong - weak", " to "] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let more = [&files[..], &["--pairwise", "--by-category", "--bootstrap", "50", "--json"]].concat();
    let rows: Value = serde_json::from_str(&succeeds(&dir, &more)).unwrap();
    assert_eq!(rows[0]["categories"][1]["category"], "oasst");
    assert_eq!(
        (rows[0]["pairwise"][0]["other"].as_str(), rows[0]["pairwise"][0]["n"].as_u64()),
        (Some("weak"), Some(40))
    );
    assert!(rows[0]["win_rate_interval"]["low"].as_f64() < rows[0]["win_rate"].as_f64());
}

#[test]
fn without_the_constants_the_plain_figures_come_and_a_line_says_so() {
    let dir = Dir::new();
    annotations(&dir, "m", 10, 0.5);
    let mut command = dir.command(&["eval", "alpaca", "--annotations", "m.json", "--json"]);
    let output = command.env("HF_HOME", dir.path("no-cache")).env_remove("HF_HUB_CACHE").output().unwrap();
    assert!(output.status.success());
    assert!(stderr(&output).contains("no length-controlled win rates, which need df_gamed.csv"), "{}", stderr(&output));
    let rows: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(rows[0]["win_rate"].is_number() && rows[0]["length_controlled_winrate"].is_null());

    // In the cache of the official package they are found.
    constants(&dir, 10);
    let snapshot = dir.path("cache/hub/datasets--tatsu-lab--alpaca_eval/snapshots/abc");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(dir.path("cache/hub/datasets--tatsu-lab--alpaca_eval/refs")).unwrap();
    dir.write("cache/hub/datasets--tatsu-lab--alpaca_eval/refs/main", "abc");
    std::fs::copy(dir.path("gamed.csv"), snapshot.join("df_gamed.csv")).unwrap();
    let mut command = dir.command(&["eval", "alpaca", "--annotations", "m.json", "--json"]);
    let output = command.env("HF_HOME", dir.path("cache")).env_remove("HF_HUB_CACHE").output().unwrap();
    let rows: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(rows[0]["length_controlled_winrate"].is_number(), "{}", stderr(&output));
}

#[test]
fn malformed_annotations_are_errors_or_counted() {
    let dir = Dir::new();
    constants(&dir, 6);
    let of = |text: &str| {
        dir.write("a.json", text);
        dir.simplemix(&["eval", "alpaca", "--annotations", "a.json", "--gamed", "gamed.csv", "--json"])
    };
    let row = |preference: &str, i: usize| {
        format!(
            r#"{{"instruction":"q{i}","output_1":"one","output_2":"{}","generator_2":"m"{preference}}}"#,
            "x".repeat(i + 1)
        )
    };
    let good = |i| row(r#","preference":1.75"#, i);
    let output = of(&format!("[{},{},{},{}]", good(0), row("", 1), row(r#","preference":NaN"#, 2), good(0)));
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(
        said.contains("m: 4 rows, 2 without a verdict, left out; 1 on an instruction that an earlier row is on"),
        "{said}"
    );
    let rows: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((rows[0]["n_total"].as_u64(), rows[0]["win_rate"].as_f64()), (Some(2), Some(75.0)));

    // More rows than there are difficulties: the plain figures stay.
    let many: Vec<String> = (0..7).map(good).collect();
    let output = of(&format!("[{}]", many.join(",")));
    assert!(stderr(&output).contains("row 6 has no difficulty, expected a row from 0 to 5"), "{}", stderr(&output));
    assert!(output.status.success());

    for (text, expected) in [
        ("[]", "a.json: no annotation in it"),
        ("[{\"preference\":\"2\"}]", "a.json: row 0: `preference` is \"2\", expected a number"),
        ("[{\"preference\":2}", "a.json: "),
        ("PAR1", "a.json: "),
    ] {
        let output = of(text);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}

#[test]
fn verdicts_of_several_judges_and_baselines_are_kept_apart() {
    let dir = Dir::new();
    let row = |judge: &str, base: &str, preference: f64| json!({"instruction": "q", "annotator": judge, "generator_1": base, "generator_2": "m", "preference": preference});
    dir.write("judges.json", json!([row("x", "b", 1.0), row("y", "b", 2.0)]).to_string());
    dir.write("bases.json", json!([row("x", "b", 1.0), row("x", "c", 2.0)]).to_string());
    let rates = |args: &[&str]| {
        let text = succeeds(&dir, &[&["eval", "alpaca", "--json", "--annotations"][..], args].concat());
        let rows: Value = serde_json::from_str(&text).unwrap();
        let rate = |row: &Value| (row["model"].as_str().unwrap().to_owned(), row["win_rate"].as_f64().unwrap());
        rows.as_array().unwrap().iter().map(rate).collect::<Vec<_>>()
    };
    let named = |name: &str, rate: f64| (name.to_owned(), rate);
    assert_eq!(rates(&["judges.json"]), [named("m (judge y)", 100.0), named("m (judge x)", 0.0)]);
    assert_eq!(rates(&["bases.json"]), [named("m (against c)", 100.0), named("m (against b)", 0.0)]);
    let output = dir.simplemix(&["eval", "alpaca", "--annotations", "judges.json", "judges.json"]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("judges.json: given twice"), "{}", stderr(&output));
}

#[test]
fn an_interval_of_one_verdict_is_absent_and_none_at_all_is_a_failure() {
    let dir = Dir::new();
    let args = ["eval", "alpaca", "--annotations", "a.json", "--json", "--bootstrap", "50"];
    dir.write("a.json", r#"[{"generator_2": "m", "preference": 2.0}, {"generator_2": "m", "preference": NaN}]"#);
    let rows: Value = serde_json::from_str(&succeeds(&dir, &args)).unwrap();
    assert_eq!((rows[0]["win_rate"].as_f64(), rows[0].get("win_rate_interval")), (Some(100.0), None));
    assert_eq!(rows[0]["notices"][0], "m: 2 rows, 1 without a verdict, left out");
    dir.write("a.json", r#"[{"generator_2": "m", "preference": null}]"#);
    let output = dir.simplemix(&args);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("error: no verdict on m, expected some"), "{}", stderr(&output));
}

/// A run's folder as `simplemix train` leaves it.
fn run(dir: &Dir, name: &str, settings: &str, slope: f64) {
    let folder = dir.path(name);
    std::fs::create_dir_all(folder.join("eval")).unwrap();
    let mut metrics = String::new();
    for step in 1..=60 {
        let margin = slope * f64::from(step);
        let line = json!({
            "step": step, "loss": (-margin).exp() * 0.7, "rewards/margins": margin, "rewards/margins@on": margin,
            "rewards/margins@off": margin / 2.0, "rewards/accuracies": 0.5 + margin / 8.0,
        });
        writeln!(metrics, "{line}").unwrap();
    }
    writeln!(metrics, "{}", json!({"step": 60, "eval_loss": 0.3, "eval_rewards/accuracies@task:math": 0.75})).unwrap();
    std::fs::write(folder.join("metrics.jsonl"), metrics).unwrap();
    std::fs::write(folder.join("config.toml"), settings).unwrap();
    let category = |name: &str, rate: f64| json!({"category": name, "win_rate": rate});
    let alpaca = json!([{
        "model": name, "win_rate": 20.0 + 100.0 * slope, "avg_length": 1000.0 + 9000.0 * slope,
        "categories": [category("koala", 12.0), category("oasst", 31.0)],
    }]);
    std::fs::write(folder.join("eval/alpaca.json"), alpaca.to_string()).unwrap();
    let answers = json!([{"instruction": "Say <hi>", "output": format!("hi from {name}"), "generator": name}]);
    std::fs::write(folder.join("model_outputs.json"), answers.to_string()).unwrap();
}

#[test]
fn runs_are_compared_on_one_page() {
    let dir = Dir::new();
    for (name, settings, slope) in [
        ("a1", "seed = 1\ntrain = \"d/on.parquet\"\noutput = \"a1\"\n", 0.02),
        ("a2", "seed = 2\ntrain = \"d/on.parquet\"\noutput = \"a2\"\n", 0.021),
        ("b1", "seed = 1\ntrain = \"d/off.parquet\"\noutput = \"b1\"\n", 0.01),
    ] {
        run(&dir, name, settings, slope);
    }
    dir.write("base.json", r#"[{"instruction":"Say <hi>","output":"no"}]"#);
    let said = succeeds(&dir, &["report", "a1", "a2", "b1", "--outputs", "base=base.json", "-o", "out"]);
    assert!(said.contains("3 runs in 2 arms") && said.contains("train on: a1, a2"), "{said}");
    let page = std::fs::read_to_string(dir.path("out/report.html")).unwrap();
    for part in [
        "Learning curves",
        "Margins by source",
        "By category",
        "Length and win rate",
        "Say &lt;hi&gt;",
        "hi from a1",
        "Response of base",
        "aria-label=\"Loss over the updates: train on ends at",
        "Difference from train on",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("<script"), "readable without scripts");
    let addresses = page.matches("http").count();
    assert_eq!(
        addresses,
        page.matches("http://www.w3.org/2000/svg").count(),
        "nothing from elsewhere but the name of SVG"
    );
    assert!(!page.contains("<link"));
    let markdown = std::fs::read_to_string(dir.path("out/report.md")).unwrap();
    assert!(markdown.contains("| `train on` | 2 |") && markdown.contains("(plots/loss.svg)"), "{markdown}");
    let csv = std::fs::read_to_string(dir.path("out/runs.csv")).unwrap();
    assert!(csv.starts_with("run,arm,seed,win_rate,") && csv.contains("\na2,train on,2,"), "{csv}");
    for plot in ["loss", "rewards-margins-off", "categories", "tasks", "length"] {
        assert!(exists(&dir.path(&format!("out/plots/{plot}.svg"))), "{plot}");
    }
    let twice = succeeds(&dir, &["report", "a1", "a2", "b1", "--outputs", "base=base.json", "-o", "again"]);
    assert!(twice.contains("again"));
    assert_eq!(page, std::fs::read_to_string(dir.path("again/report.html")).unwrap(), "the same runs, the same page");

    let named = ["report", "a1", "b1", "--group", "mine=a1,b1", "-o", "named"];
    assert!(succeeds(&dir, &named).contains("2 runs in 1 arms\n  mine: a1, b1"));
    for (args, expected) in [
        (&["report", "a1", "--group", "x=a9"][..], "--group x: `a9` is not one of the runs"),
        (&["report", "nowhere"], "metrics.jsonl"),
        (&["report", "a1", "--outputs", "base"], "NAME="),
    ] {
        let output = dir.simplemix(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
    assert!(!exists(&dir.path("report")));
}

/// Results files of lm-eval: beside a run, of a model alone, and named on the command line.
#[test]
fn benchmarks_are_compared_with_their_errors() {
    let dir = Dir::new();
    run(&dir, "a1", "seed = 1\nbeta = 0.1\n", 0.02);
    run(&dir, "b1", "seed = 1\nbeta = 0.5\n", 0.02);
    let results = |value: f64| {
        let metrics = json!({"alias": "gsm8k", "exact_match,none": value, "exact_match_stderr,none": 0.01});
        json!({"results": {"gsm8k": metrics}, "model_name": "the start"}).to_string()
    };
    std::fs::create_dir_all(dir.path("a1/eval/org__m")).unwrap();
    dir.write("a1/eval/org__m/results_2026-11-30T10-00-00.json", results(0.25));
    dir.write("start.json", results(0.2));
    dir.write("b.json", results(0.375));
    let args = ["report", "a1", "b1", "start.json", "--results", "b1=b.json", "--baseline", "beta 0.5", "-o", "out"];
    let said = succeeds(&dir, &args);
    assert!(said.contains("3 runs in 3 arms") && said.contains("the start: the start"), "{said}");
    let page = std::fs::read_to_string(dir.path("out/report.html")).unwrap();
    // 1.96 standard errors.
    for part in ["gsm8k, exact_match", "<td>0.2500 ± 0.0196</td>", "<td>-0.1250</td>", "Difference from beta 0.5"] {
        assert!(page.contains(part), "{part}");
    }
    for (args, expected) in [
        (&["report", "a1", "--baseline", "c"][..], "--baseline `c`: no such arm, expected one of `all runs`"),
        (&["report", "a1", "--results", "x=a1/config.toml"], "config.toml"),
    ] {
        let output = dir.simplemix(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(expected), "{}", stderr(&output));
    }
}
