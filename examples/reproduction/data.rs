//! The data of the comparison: prompts with checkable answers, open-ended pairs by others, and what is held back.

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

use crate::problems::{Problem, problems};

/// Tasks of the comparison, as they stand in the column `task`.
pub(crate) const REASONING: &str = "reasoning";
pub(crate) const OPEN_ENDED: &str = "open-ended";

/// Estimated similarity from which on a prompt counts as one that is held back.
const SIMILAR: f64 = 0.8;

/// How much of everything.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sizes {
    seed: u64,
    /// Generated problems to train on, and held back.
    problems: usize,
    held_back_problems: usize,
    /// GSM8K questions among them, where the data folder is given.
    gsm8k: usize,
    held_back_gsm8k: usize,
    /// Open-ended prompts to train on, and held back.
    open_ended: usize,
    held_back_open_ended: usize,
    /// Further pairs on which the reward models are measured.
    reward_test: usize,
    /// Most tokens of a real prompt, its template included.
    prompt_tokens: usize,
}

/// A prompt with what is known of it.
struct Asked {
    id: String,
    task: &'static str,
    question: Text,
    answer: Option<String>,
}

/// Writes all files of the comparison to `folder`; `given` is the folder with GSM8K's and further open-ended pairs.
pub(crate) fn prepare(sizes: &Sizes, model: &Path, pairs: &Path, given: Option<&Path>, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut rng = ChaCha8Rng::seed_from_u64(sizes.seed);
    let tokenizer = PairTokenizer::from_dir(model, TokenizeOptions::default())?;
    let is_short = |prompt: &Text| Ok(tokenizer.encode_prompt(prompt)?.len() <= sizes.prompt_tokens);
    let mut reasoning = generated(sizes, &mut rng);
    if let Some(given) = given {
        reasoning.add(gsm8k(given, sizes, &is_short, &mut rng)?);
    }
    let mut open = open_ended(sizes, pairs, given, &is_short, &mut rng)?;
    let mut held_back = reasoning.held_back;
    held_back.append(&mut open.held_back);

    // Nothing that is held back may be near to anything that is trained on.
    let mut train = reasoning.train;
    train.append(&mut open.train);
    let is_leak = leak_check(&held_back);
    let all = train.len() + open.reward.len();
    train.retain(|(_, pair)| !is_leak(pair));
    open.reward.retain(|pair| !is_leak(pair));
    // Both tasks in any first part of the prompts.
    train.shuffle(&mut rng);
    held_back.shuffle(&mut rng);
    let leaks = all - train.len() - open.reward.len();
    let (scorer, judge): (Vec<_>, Vec<_>) = open.reward.into_iter().enumerate().partition(|(place, _)| place % 2 == 0);

    let off: Vec<Pair> = train.iter().map(|(_, pair)| pair.clone()).collect();
    let of = |numbered: Vec<(usize, Pair)>| numbered.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>();
    let (scorer, judge) = (of(scorer), of(judge));
    write_prompts(&folder.join("prompts.jsonl"), train.iter().map(|(asked, _)| asked))?;
    write_prompts(&folder.join("held-back.jsonl"), &held_back)?;
    for (name, pairs) in
        [("off-policy", &off), ("reward-scorer", &scorer), ("reward-judge", &judge), ("reward-test", &open.test)]
    {
        let mut writer = PairWriter::create(folder.join(format!("{name}.parquet")), &WriteOptions::default())?;
        writer.write_pairs(pairs)?;
        writer.finish()?;
    }
    let count = |task: &str, asked: &mut dyn Iterator<Item = &Asked>| asked.filter(|a| a.task == task).count();
    let counts = json!({
        "data_folder_given": given.is_some(),
        "prompts": { REASONING: count(REASONING, &mut train.iter().map(|(a, _)| a)),
                     OPEN_ENDED: count(OPEN_ENDED, &mut train.iter().map(|(a, _)| a)) },
        "held_back": { REASONING: count(REASONING, &mut held_back.iter()),
                       OPEN_ENDED: count(OPEN_ENDED, &mut held_back.iter()) },
        "reward_pairs": { "scorer": scorer.len(), "judge": judge.len(), "test": open.test.len() },
        "reward_test_chosen_longer": chosen_longer(&open.test),
        "left_out_as_leaks": leaks,
    });
    println!("data: {counts}");
    fs::write(folder.join("counts.json"), format!("{counts:#}\n")).context("cannot write counts.json")?;
    Ok(())
}

/// Whether a prompt is short enough.
type IsShort<'a> = dyn Fn(&Text) -> Result<bool> + 'a;

/// Prompts to train on with a pair by others each, and prompts that are held back.
#[derive(Default)]
struct Split {
    train: Vec<(Asked, Pair)>,
    held_back: Vec<Asked>,
}

impl Split {
    fn add(&mut self, mut other: Self) {
        self.train.append(&mut other.train);
        self.held_back.append(&mut other.held_back);
    }
}

/// Problems from a seed. The others' answers are written by a program: the sum that is asked for and its value, or a
/// value with a slip.
fn generated(sizes: &Sizes, rng: &mut ChaCha8Rng) -> Split {
    let mut split = Split::default();
    for (place, problem) in problems(sizes.seed, sizes.problems + sizes.held_back_problems).into_iter().enumerate() {
        let asked = Asked {
            id: format!("{}-{place:04}", problem.task),
            task: REASONING,
            question: Text::Messages(vec![Message::user(problem.question.as_str())]),
            answer: Some(problem.answer.clone()),
        };
        if place < sizes.problems {
            let worked = |answer: &str| answer_of(&format!("{} = {answer}", problem.expression));
            let pair = pair(&asked, worked(&problem.answer), worked(&slip(&problem, rng)));
            split.train.push((asked, pair));
        } else {
            split.held_back.push(asked);
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

/// GSM8K: pairs by people and models to train on, other questions held back.
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
        let asked = Asked {
            id: text(&row["id"]).to_owned(),
            task: REASONING,
            question: Text::Messages(vec![Message::user(question)]),
            answer: Some(answer.to_owned()),
        };
        if answer.is_empty() || !is_short(&asked.question)? || !seen.insert(question.to_owned()) {
            continue;
        }
        let pair = pair(&asked, answer_of(chosen), answer_of(rejected));
        split.train.push((asked, pair));
    }
    let mut lines = json_lines(&given.join("preferences/gsm8k_prompts.jsonl"))?;
    lines.shuffle(rng);
    for row in lines.iter().filter(|row| text(&row["split"]) == "train") {
        let question = Text::Messages(vec![Message::user(text(&row["prompt"][0]["content"]))]);
        if split.held_back.len() < sizes.held_back_gsm8k && is_short(&question)? {
            let answer = Some(text(&row["answer"]).to_owned());
            split.held_back.push(Asked { id: text(&row["id"]).to_owned(), task: REASONING, question, answer });
        }
    }
    Ok(split)
}

/// Open-ended pairs by what they are for.
struct OpenEnded {
    train: Vec<(Asked, Pair)>,
    held_back: Vec<Asked>,
    /// To train reward models on.
    reward: Vec<Pair>,
    /// To measure them on: pairs of held-back prompts, and more.
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
    let asked_for = sizes.open_ended + sizes.reward_test.max(sizes.held_back_open_ended) + 2;
    ensure!(
        groups.len() >= asked_for,
        "{}: {} prompts of pairs are of at most {} tokens, expected {asked_for} and more, most of them for reward models; \
         --pairs names a larger file, such as UltraFeedback's, --data a folder with several",
        pairs.display(),
        groups.len(),
        sizes.prompt_tokens
    );
    groups.shuffle(rng);
    let mut open = OpenEnded { train: Vec::new(), held_back: Vec::new(), reward: Vec::new(), test: Vec::new() };
    for (place, mut group) in groups.into_iter().enumerate() {
        let asked =
            Asked { id: format!("open-{place:04}"), task: OPEN_ENDED, question: group[0].prompt.clone(), answer: None };
        if open.held_back.len() < sizes.held_back_open_ended {
            open.held_back.push(asked);
            open.test.append(&mut group);
        } else if open.train.len() < sizes.open_ended {
            open.train.push((asked, group.swap_remove(0)));
        } else if open.test.len() < sizes.reward_test {
            open.test.append(&mut group);
        } else {
            open.reward.append(&mut group);
        }
    }
    Ok(open)
}

/// Tells of a pair whether its prompt is a held-back one, or nearly; `simplemix inspect --similar` looks for the same.
fn leak_check(held_back: &[Asked]) -> impl Fn(&Pair) -> bool + use<> {
    let mut known = Validator::default().with_similar_prompts(SIMILAR);
    known.file();
    for asked in held_back {
        known.see(&pair(asked, answer_of("a"), answer_of("b")));
    }
    move |pair| {
        let mut validator = known.clone();
        validator.file();
        validator.see(pair);
        let found = &validator.finish()[1];
        [Finding::SharedPrompt, Finding::SimilarPrompt].iter().any(|finding| found.contains_key(finding))
    }
}

/// How often the longer response is the chosen one: what a reward model has to beat.
fn chosen_longer(pairs: &[Pair]) -> f64 {
    let longer = pairs.iter().filter(|pair| pair.chosen.chars() > pair.rejected.chars()).count();
    longer as f64 / pairs.len().max(1) as f64
}

fn pair(asked: &Asked, chosen: Text, rejected: Text) -> Pair {
    let mut pair = Pair::new(asked.question.clone(), chosen, rejected, "off", Policy::Off);
    pair.task = Some(asked.task.to_owned());
    pair
}

fn answer_of(text: &str) -> Text {
    Text::Messages(vec![Message::assistant(text)])
}

fn write_prompts<'a>(path: &Path, asked: impl IntoIterator<Item = &'a Asked>) -> Result<()> {
    let mut lines = String::new();
    for asked in asked {
        let mut line = json!({ "id": asked.id, "prompt": asked.question, "task": asked.task, "answer": asked.answer });
        if asked.answer.is_none() {
            line.as_object_mut().map(|line| line.remove("answer"));
        }
        lines.push_str(&format!("{line}\n"));
    }
    fs::write(path, lines).with_context(|| format!("cannot write {}", path.display()))
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
