//! The data of the comparison: prompts with checkable answers, open-ended pairs by others, and what is held out.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use serde_json::{Value, json};
use simplemix::data::{
    Finding, Message, Pair, PairTokenizer, PairWriter, Policy, ReadOptions, Text, TokenizeOptions, Validator,
    WriteOptions, read_pairs,
};
use simplemix::eval::mean;
use simplemix::files;
use simplemix::rollout::Prompt;

use crate::problems::{Problem, problems};

/// Tasks of the comparison, as they stand in the column `task`.
pub(crate) const REASONING: &str = "reasoning";
pub(crate) const OPEN_ENDED: &str = "open-ended";

/// Estimated similarity from which on a prompt counts as one that is held out.
const SIMILAR: f64 = 0.8;

/// How much of everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sizes {
    seed: u64,
    /// Generated problems to train on, and held out.
    problems: usize,
    held_out_problems: usize,
    /// GSM8K questions among them, where the data folder is given.
    gsm8k: usize,
    held_out_gsm8k: usize,
    /// Open-ended prompts to train on, and held out.
    open_ended: usize,
    held_out_open_ended: usize,
    /// Further pairs on which the reward models are measured.
    reward_test: usize,
    /// Most tokens of a real prompt, its template included.
    prompt_tokens: usize,
    /// Tokens of prompt and response that reward models see.
    seen_tokens: usize,
}

/// Writes all files of the comparison to `folder`; `given` is the folder with GSM8K's and further open-ended pairs.
pub(crate) fn prepare(sizes: &Sizes, model: &Path, pairs: &Path, given: Option<&Path>, folder: &Path) -> Result<()> {
    files::create_dir_all(folder)?;
    let mut rng = ChaCha8Rng::seed_from_u64(sizes.seed);
    let tokenizer = PairTokenizer::from_dir(model, TokenizeOptions::default())?;
    let is_short = |prompt: &Text| Ok(tokenizer.encode_prompt(prompt)?.len() <= sizes.prompt_tokens);
    let mut split = generated(sizes, &mut rng);
    if let Some(given) = given {
        split.add(gsm8k(given, sizes, &is_short, &mut rng)?);
    }
    let OpenEnded { split: open, mut reward, test } = open_ended(sizes, pairs, given, &is_short, &mut rng)?;
    split.add(open);
    let Split { mut train, mut held_out } = split;

    // Nothing that is held out may be near to anything that is trained on.
    let is_leak = leak_check(&held_out);
    let all = train.len() + reward.len();
    train.retain(|(_, pair)| !is_leak(pair));
    reward.retain(|pair| !is_leak(pair));
    let leaks = all - train.len() - reward.len();
    // Both tasks in any first part of the prompts.
    train.shuffle(&mut rng);
    held_out.shuffle(&mut rng);
    let (prompts, off): (Vec<Prompt>, Vec<Pair>) = train.into_iter().unzip();
    let scorer: Vec<Pair> = reward.iter().step_by(2).cloned().collect();
    let judge: Vec<Pair> = reward.iter().skip(1).step_by(2).cloned().collect();

    write_prompts(&folder.join("prompts.jsonl"), &prompts)?;
    write_prompts(&folder.join("held-out.jsonl"), &held_out)?;
    for (name, pairs) in
        [("off-policy", &off), ("reward-scorer", &scorer), ("reward-judge", &judge), ("reward-test", &test)]
    {
        let mut writer = PairWriter::create(folder.join(format!("{name}.parquet")), &WriteOptions::default())?;
        writer.write_pairs(pairs)?;
        writer.finish()?;
    }
    let count = |prompts: &[Prompt], task: &str| prompts.iter().filter(|p| p.task.as_deref() == Some(task)).count();
    let seen = PairTokenizer::from_dir(
        model,
        TokenizeOptions { max_length: sizes.seen_tokens, ..TokenizeOptions::default() },
    )?;
    let counts = json!({
        "data_folder_given": given.is_some(),
        "prompts": { REASONING: count(&prompts, REASONING), OPEN_ENDED: count(&prompts, OPEN_ENDED) },
        "held_out": { REASONING: count(&held_out, REASONING), OPEN_ENDED: count(&held_out, OPEN_ENDED) },
        "reward_pairs": { "scorer": scorer.len(), "judge": judge.len(), "test": test.len() },
        "reward_test_longer": longer(&test, &tokenizer)?,
        "reward_test_longer_as_seen": longer(&test, &seen)?,
        "left_out_as_leaks": leaks,
    });
    println!("data: {counts}");
    Ok(files::write(folder.join("counts.json"), format!("{counts:#}\n"))?)
}

/// Whether a prompt is short enough.
type IsShort<'a> = dyn Fn(&Text) -> Result<bool> + 'a;

/// Prompts to train on with a pair by others each, and prompts that are held out.
#[derive(Default)]
struct Split {
    train: Vec<(Prompt, Pair)>,
    held_out: Vec<Prompt>,
}

impl Split {
    fn add(&mut self, mut other: Self) {
        self.train.append(&mut other.train);
        self.held_out.append(&mut other.held_out);
    }
}

/// Problems from a seed. The others' answers are written by a program: the sum that is asked for and its value, or a
/// value with a slip.
fn generated(sizes: &Sizes, rng: &mut ChaCha8Rng) -> Split {
    let mut split = Split::default();
    for (place, problem) in problems(sizes.seed, sizes.problems + sizes.held_out_problems).into_iter().enumerate() {
        let id = format!("{}-{place:04}", problem.task);
        let asked = prompt(id, REASONING, user(&problem.question)).with_answer(problem.answer.as_str());
        if place < sizes.problems {
            let worked = |answer: &str| format!("{} = {answer}", problem.expression);
            let pair = pair(&asked, &worked(&problem.answer), &worked(&slip(&problem, rng)));
            split.train.push((asked, pair));
        } else {
            split.held_out.push(asked);
        }
    }
    split
}

/// A wrong answer as people give them: one or two off, ten off, or another operation's.
fn slip(problem: &Problem, rng: &mut ChaCha8Rng) -> String {
    let answer: i64 = problem.answer.parse().unwrap_or_default();
    let terms: Vec<i64> = problem.expression.split(' ').filter_map(|term| term.parse().ok()).collect();
    let mut wrong = vec![answer - 2, answer - 1, answer + 1, answer + 2, answer - 10, answer + 10];
    if let [a, b] = terms[..] {
        wrong.extend([a + b, a - b, a * b]);
    }
    wrong.retain(|value| *value >= 0 && *value != answer);
    let at = rng.random_range(0..wrong.len());
    wrong[at].to_string()
}

/// GSM8K: pairs by people and models to train on, other questions held out.
fn gsm8k(given: &Path, sizes: &Sizes, is_short: &IsShort<'_>, rng: &mut ChaCha8Rng) -> Result<Split> {
    let mut split = Split::default();
    let mut lines = json_lines(&given.join("preferences/gsm8k_pairs.jsonl"))?;
    lines.shuffle(rng);
    let mut seen = std::collections::HashSet::new();
    for row in lines.iter().filter(|row| text(&row["id"]).ends_with("-human")) {
        let question = text(&row["prompt"][0]["content"]);
        let (chosen, rejected) = (text(&row["chosen"][0]["content"]), text(&row["rejected"][0]["content"]));
        let answer = chosen.rsplit("A: ").next().unwrap_or_default().trim();
        if split.train.len() == sizes.gsm8k {
            break;
        }
        let asked = prompt(text(&row["id"]), REASONING, user(question)).with_answer(answer);
        if answer.is_empty() || !is_short(&asked.prompt)? || !seen.insert(question.to_owned()) {
            continue;
        }
        let pair = pair(&asked, chosen, rejected);
        split.train.push((asked, pair));
    }
    let mut lines = json_lines(&given.join("preferences/gsm8k_prompts.jsonl"))?;
    lines.shuffle(rng);
    for row in lines.iter().filter(|row| text(&row["split"]) == "train") {
        let question = user(text(&row["prompt"][0]["content"]));
        if split.held_out.len() < sizes.held_out_gsm8k && is_short(&question)? {
            split.held_out.push(prompt(text(&row["id"]), REASONING, question).with_answer(text(&row["answer"])));
        }
    }
    Ok(split)
}

/// Open-ended pairs by what they are for.
#[derive(Default)]
struct OpenEnded {
    split: Split,
    /// To train reward models on.
    reward: Vec<Pair>,
    /// To measure them on: pairs of held-out prompts, and more.
    test: Vec<Pair>,
}

/// Shares the pairs' prompts out, so that every prompt is in one place only.
fn open_ended(
    sizes: &Sizes,
    pairs: &Path,
    given: Option<&Path>,
    is_short: &IsShort<'_>,
    rng: &mut ChaCha8Rng,
) -> Result<OpenEnded> {
    let mut files = vec![pairs.to_path_buf()];
    for name in ["alpacaeval_pairs", "oasst_pairs"] {
        files.extend(given.map(|given| given.join(format!("preferences/{name}.parquet"))));
    }
    let mut by_prompt: BTreeMap<String, Vec<Pair>> = BTreeMap::new();
    for file in &files {
        let options = ReadOptions::default().with_source("off").with_policy(Policy::Off);
        for mut pair in read_pairs(file, &options)? {
            if is_short(&pair.prompt)? {
                pair.task = Some(OPEN_ENDED.to_owned());
                by_prompt.entry(serde_json::to_string(&pair.prompt)?).or_default().push(pair);
            }
        }
    }
    let mut groups: Vec<Vec<Pair>> = by_prompt.into_values().collect();
    let asked_for = sizes.open_ended + sizes.reward_test.max(sizes.held_out_open_ended) + 2;
    ensure!(
        groups.len() >= asked_for,
        "{}: {} prompts of pairs are of at most {} tokens, expected {asked_for} and more, most of them for reward models; \
         --pairs names a larger file, such as UltraFeedback's, --data a folder with several",
        pairs.display(),
        groups.len(),
        sizes.prompt_tokens
    );
    groups.shuffle(rng);
    let mut open = OpenEnded::default();
    for (place, mut group) in groups.into_iter().enumerate() {
        let asked = prompt(format!("open-{place:04}"), OPEN_ENDED, group[0].prompt.clone());
        if open.split.held_out.len() < sizes.held_out_open_ended {
            open.split.held_out.push(asked);
            open.test.append(&mut group);
        } else if open.split.train.len() < sizes.open_ended {
            open.split.train.push((asked, group.swap_remove(0)));
        } else if open.test.len() < sizes.reward_test {
            open.test.append(&mut group);
        } else {
            open.reward.append(&mut group);
        }
    }
    Ok(open)
}

/// Returns a test whether the prompt of a pair is held out, or nearly equal to such a prompt; `simplemix inspect
/// --held-out` does the same.
fn leak_check(held_out: &[Prompt]) -> impl Fn(&Pair) -> bool + use<> {
    let mut known = Validator::default().with_similar_prompts(SIMILAR);
    known.file();
    for asked in held_out {
        known.see_prompt(&asked.prompt);
    }
    move |pair| {
        let mut validator = known.clone();
        validator.file();
        validator.see(pair);
        let found = &validator.finish()[1];
        [Finding::SharedPrompt, Finding::SimilarPrompt].iter().any(|finding| found.contains_key(finding))
    }
}

/// How often the longer response, as `tokenizer` cuts it, is the chosen one (a tie is half): what a reward model has to beat.
fn longer(pairs: &[Pair], tokenizer: &PairTokenizer) -> Result<f64> {
    let encoded = tokenizer.encode_all(pairs)?.pairs;
    let longer = encoded.iter().map(|(_, pair)| match pair.chosen.len().cmp(&pair.rejected.len()) {
        Ordering::Greater => 1.0,
        Ordering::Equal => 0.5,
        Ordering::Less => 0.0,
    });
    Ok(mean(&longer.collect::<Vec<f64>>()))
}

fn prompt(id: impl Into<String>, task: &str, question: Text) -> Prompt {
    Prompt::new(id, question).with_task(task)
}

fn user(text: &str) -> Text {
    Text::Messages(vec![Message::user(text)])
}

fn pair(asked: &Prompt, chosen: &str, rejected: &str) -> Pair {
    let [chosen, rejected] = [chosen, rejected].map(|text| asked.prompt.response(text));
    let mut pair = Pair::new(asked.prompt.clone(), chosen, rejected, "off", Policy::Off);
    pair.task.clone_from(&asked.task);
    pair
}

fn write_prompts(path: &Path, prompts: &[Prompt]) -> Result<()> {
    let lines = prompts.iter().map(|prompt| Ok(serde_json::to_string(prompt)? + "\n")).collect::<Result<String>>()?;
    Ok(files::write(path, lines)?)
}

fn json_lines(path: &PathBuf) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).with_context(|| format!("{}: cannot read", path.display()))?;
    let line = |(number, line): (usize, &str)| {
        serde_json::from_str(line).with_context(|| format!("{}: line {}", path.display(), number + 1))
    };
    text.lines().enumerate().map(line).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
