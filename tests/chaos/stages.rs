//! The stages: commands that write files, with their inputs.

use std::fmt::Write;

use super::Bench;

/// Size of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// A fraction of a second, for faults at each operation.
    Small,
    /// Some seconds, for kills at moments of the work.
    Long,
}

/// A command that writes files.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) name: &'static str,
    /// The command's words.
    pub(crate) words: String,
    /// Further words of the second attempt.
    more: &'static str,
    /// Files and folders that it writes.
    pub(crate) outputs: &'static [&'static str],
    /// Files of which all are old or all are new after an error.
    pub(super) together: &'static [&'static str],
    /// Files that are there before, from an earlier run.
    old: &'static [&'static str],
    /// Commands that make inputs.
    first: &'static [&'static str],
    scale: Scale,
}

const SCORE: &str = "score --candidates candidates.jsonl --scorer exact-answer -o";

/// All stages.
pub(crate) fn stages(scale: Scale) -> Vec<Stage> {
    let by = |small: usize, long: usize| if scale == Scale::Small { small } else { long };
    let stage = |name, words: String, outputs| Stage {
        name,
        words,
        more: "",
        outputs,
        together: &[],
        old: &[],
        first: &[],
        scale,
    };
    let resumed = |name, words: String, outputs| Stage { more: "--resume auto", ..stage(name, words, outputs) };
    let sampling = format!("--samples {} --max-new-tokens {} --batch-rows 4", by(2, 4), by(4, 48));
    vec![
        Stage {
            old: &["out.parquet"],
            ..stage("convert", "convert off.jsonl on.jsonl -o out.parquet --overwrite".into(), &["out.parquet"])
        },
        Stage {
            old: &["out.jsonl.gz"],
            ..stage("convert-text", "convert off.jsonl -o out.jsonl.gz --overwrite".into(), &["out.jsonl.gz"])
        },
        stage("convert-arrow", "convert off.jsonl --distinct -o out.arrow --overwrite".into(), &["out.arrow"]),
        Stage {
            old: &["out.arrow"],
            ..stage("tokenize", "tokenize off.jsonl --tokenizer model -o out.arrow".into(), &["out.arrow"])
        },
        Stage {
            together: &["m.parquet", "m.json", "m.svg"],
            old: &["m.parquet", "m.json", "m.svg"],
            ..stage(
                "mix",
                format!(
                    "mix --source off=off.jsonl --source on=on.jsonl --size {} --seed 1 -o m.parquet --report m.json \
                     --plot m.svg --overwrite",
                    by(24, 5_000)
                ),
                &["m.parquet", "m.json", "m.svg"],
            )
        },
        stage(
            "generate",
            format!("generate --model model --prompts prompts.jsonl {sampling} -o out.parquet"),
            &["out.parquet"],
        ),
        stage("score", format!("{SCORE} out.parquet"), &["out.parquet"]),
        Stage {
            first: &["score --candidates candidates.jsonl --scorer exact-answer -o scored.parquet"],
            ..stage("pair", "pair --candidates scored.parquet -o out.parquet".into(), &["out.parquet"])
        },
        stage(
            "collect",
            format!(
                "collect --model model --prompts prompts.jsonl --samples 3 --max-new-tokens {} --batch-rows 6 \
                 --scorer digit-share -o out.parquet",
                by(8, 40)
            ),
            &["out.parquet"],
        ),
        resumed(
            "train",
            format!(
                "train --model model --train off.jsonl --eval held-out.jsonl --batch-size 8 --max-steps {} --learning-rate \
                 1e-3 --save-every-steps {} --set checkpoint.keep={} --output run",
                by(3, 24),
                by(1, 4),
                by(9, 2)
            ),
            if scale == Scale::Small {
                &["run/config.toml", "run/model/model.safetensors", "run/checkpoints/step-2"]
            } else {
                &["run/config.toml", "run/model/model.safetensors", "run/checkpoints/step-20"]
            },
        ),
        resumed(
            "train-lora",
            format!(
                "train --model model --train off.jsonl --max-steps {} --batch-size 8 --save-every-steps {} --lora-rank 2 \
                 --output run",
                by(1, 24),
                by(1, 3)
            ),
            &["run/adapter/adapter_model.safetensors", "run/model/model.safetensors"],
        ),
        Stage {
            old: &["out.parquet"],
            ..stage("logps", "logps --model model --data off.jsonl -o out.parquet".into(), &["out.parquet"])
        },
        stage(
            "eval-judge",
            "eval judge --outputs new.json --baseline base.json --answers right.json -o out.json".into(),
            &["out.json"],
        ),
        stage(
            "eval-preferences",
            "eval preferences --model model --reference model --data held-out.jsonl --plot out.svg".into(),
            &["out.svg"],
        ),
        Stage {
            // Once the output is there, only its replacement goes on.
            more: "--overwrite",
            ..stage(
                "eval-generate",
                format!("eval generate --model model --prompts base.json --max-new-tokens {} -o out.json", by(4, 64)),
                &["out.json"],
            )
        },
        stage("report", "report arm -o out".into(), &["out/report.html", "out/runs.csv"]),
        stage(
            "run",
            format!(
                "run --preset simplemix --model model --prompts prompts.jsonl --off-policy off.jsonl --scorer digit-share \
                 --eval-prompts prompts.jsonl --size {} --set train.batch.batch_size=2 --set \
                 collect.sampling.max_new_tokens={} --set evaluate.max_new_tokens=4 --output all",
                by(4, 8),
                by(8, 16)
            ),
            &["all/model/model.safetensors"],
        ),
        stage("import-gguf", "import-gguf small.gguf imported".into(), &["imported/model.safetensors"]),
    ]
}

impl Stage {
    /// The words of the second attempt.
    pub(crate) fn again(&self) -> String {
        format!("{} {}", self.words, self.more)
    }

    /// Writes the inputs into the bench's folder, which has `model` and `small.gguf` already.
    pub(crate) fn inputs(&self, bench: &Bench) -> Result<(), String> {
        let write = |name: &str, text: &str| {
            let path = bench.folder.join(name);
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
        };
        let by = |small: usize, long: usize| if self.scale == Scale::Small { small } else { long };
        // A model makes more of a row than a copy does.
        let rows = by(30, if self.words.contains("--model") { 100 } else { 4_000 });
        write("off.jsonl", &pairs("off", rows))?;
        write("on.jsonl", &pairs("on", rows * 2 / 3))?;
        write("held-out.jsonl", &pairs("held-out", by(8, 16)))?;
        write("prompts.jsonl", &prompts(by(6, 24)))?;
        write("candidates.jsonl", &candidates(by(12, 12_000)))?;
        write("base.json", &answers("base", by(4, 24)))?;
        write("new.json", &answers("new", by(4, 24)))?;
        write("right.json", &right(by(4, 24)))?;
        std::fs::create_dir_all(bench.folder.join("arm")).map_err(|error| error.to_string())?;
        write("arm/metrics.jsonl", &metrics(by(8, 400)))?;
        write("arm/config.toml", "seed = 1\ntrain = \"off.jsonl\"\noutput = \"arm\"\n")?;
        for name in self.old {
            write(name, "{\"old\":1}\n")?;
        }
        self.first.iter().try_for_each(|words| bench.succeeds(words))
    }
}

fn pairs(kind: &str, count: usize) -> String {
    let mut text = String::new();
    for i in 0..count {
        let turn = |role: &str, content: String| format!(r#"[{{"role":"{role}","content":"{content}"}}]"#);
        let (prompt, chosen) = (turn("user", format!("{kind} question {i}")), format!("a good answer {i}"));
        let (chosen, rejected) = (turn("assistant", chosen), turn("assistant", format!("no {i}")));
        let _ = writeln!(text, r#"{{"prompt":{prompt},"chosen":{chosen},"rejected":{rejected}}}"#);
    }
    text
}

fn prompts(count: usize) -> String {
    let prompt = |i: usize| {
        format!(r#"{{"id":"p{i}","prompt":[{{"role":"user","content":"What is {i} + 1?"}}],"answer":"{}"}}"#, i + 1)
    };
    (0..count).map(prompt).collect::<Vec<_>>().join("\n")
}

fn candidates(count: usize) -> String {
    let candidate = |i: usize| {
        let (asked, found) = (i / 3, i / 3 + i % 3);
        format!(r#"{{"prompt":"What is {asked} + 1?","answer":"{}","response":"It is {found}."}}"#, asked + 1)
    };
    (0..count).map(candidate).collect::<Vec<_>>().join("\n")
}

fn answers(text: &str, count: usize) -> String {
    let row = |i: usize| format!(r#"{{"instruction":"q{i}","output":"{text} {i}","generator":"{text}"}}"#);
    format!("[{}]", (0..count).map(row).collect::<Vec<_>>().join(","))
}

fn right(count: usize) -> String {
    let row = |i: usize| format!(r#"{{"question":"q{i}","answer":"{}"}}"#, i % 2);
    format!("[{}]", (0..count).map(row).collect::<Vec<_>>().join(","))
}

fn metrics(count: usize) -> String {
    let line =
        |step: usize| format!("{{\"step\":{step},\"loss\":{},\"rewards/margins\":0.{step}}}\n", 1.0 / step as f64);
    (1..=count).map(line).collect()
}
