//! Whole runs of a tiny model: what must not change a number, and what must.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use simplemix_data::{Message, Metrics, Pair, Policy, Text, Watch};
use simplemix_model::{CausalLm, RewardModel, tiny, weights};
use simplemix_settings::{Settings, merge};
use simplemix_train::{Finished, Outcome, Record, Resume, Run, TrainConfig, Trained};
use tch::{Device, Kind, Tensor};

#[path = "runs/as_asked.rs"]
mod as_asked;
#[cfg(all(feature = "faults", debug_assertions))]
#[path = "runs/faults.rs"]
mod faults;
#[path = "runs/multimodal.rs"]
mod multimodal;

#[path = "runs/quantised.rs"]
mod quantised;
#[path = "runs/sharded.rs"]
mod sharded;
#[path = "runs/states.rs"]
mod states;
#[path = "runs/together.rs"]
mod together;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        tiny::write_folder(&dir.model(), 1).unwrap();
        dir
    }

    fn model(&self) -> PathBuf {
        self.0.path().join("model")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self, output: &str) -> TrainConfig {
        let (model, output) = (Some(self.model()), Some(self.path(output)));
        let config = TrainConfig { model, output, ..TrainConfig::default() };
        over(config, "optimizer.learning_rate = 1e-3\nreference.source = 'computed'")
    }

    /// As [`Dir::config`], with the settings of a TOML text over it.
    fn with(&self, output: &str, text: &str) -> TrainConfig {
        over(self.config(output), text)
    }
}

fn over(config: TrainConfig, text: &str) -> TrainConfig {
    let mut table = toml::Table::try_from(config).unwrap();
    merge(&mut table, text.parse().unwrap());
    TrainConfig::from_table(table).unwrap()
}

fn pairs(count: usize) -> Vec<Pair> {
    let turn = |role: &str, text: String| Text::Messages(vec![Message::new(role, text)]);
    let pair = |i: usize| {
        let source = if i.is_multiple_of(3) { "on" } else { "off" };
        let mut pair = Pair::new(
            turn("user", format!("question {i}{}", " and more".repeat(i % 4))),
            turn("assistant", format!("a good answer {i}{}", ", indeed".repeat(i % 3))),
            turn("assistant", format!("no {i}")),
            source,
            Policy::Off,
        );
        pair.task = Some(if i.is_multiple_of(2) { "math" } else { "chat" }.to_owned());
        pair
    };
    (0..count).map(pair).collect()
}

/// Stops before a given update.
struct StopAt(u64, Cell<u64>);

impl Watch for StopAt {
    fn metrics(&mut self, metrics: &Metrics<'_>) {
        self.1.set(metrics.step);
    }

    fn is_interrupted(&self) -> bool {
        self.1.get() == self.0
    }
}

fn start(config: TrainConfig, resume: bool, stop_at: u64) -> Finished {
    let (model, held_out) = (config.model.clone().unwrap(), pairs(4));
    let run = Run::with_pairs(config, &model, &pairs(24), &held_out).unwrap();
    run.start(resume.into(), &mut StopAt(stop_at, Cell::new(0))).unwrap()
}

fn train(config: TrainConfig) -> Finished {
    start(config, false, u64::MAX)
}

fn weights_of(folder: &Path) -> BTreeMap<String, Tensor> {
    weights::read_all(&folder.join("model").join(weights::WEIGHTS)).unwrap().into_iter().collect()
}

fn furthest(a: &Path, b: &Path) -> f64 {
    let (a, b) = (weights_of(a), weights_of(b));
    assert_eq!(a.len(), b.len());
    a.iter().map(|(name, t)| (t - &b[name]).abs().max().double_value(&[])).fold(0.0, f64::max)
}

/// Largest difference of any metric that is not a speed.
fn metrics_differ(a: &[Record], b: &[Record]) -> f64 {
    assert_eq!(a.len(), b.len());
    let mut most = 0f64;
    for (a, b) in a.iter().zip(b) {
        for (name, value) in &a.values {
            if !["tokens_per_second", "pairs_per_second", "peak_memory_gb"].contains(&name.as_str()) {
                let other = b.get(name).unwrap_or_else(|| panic!("{name}"));
                most = most.max((value - other).abs() / other.abs().max(1.0));
            }
        }
    }
    most
}

#[test]
fn shortcuts_change_no_number() {
    let dir = Dir::new();
    let plain = train(dir.config("plain"));
    let cached = || {
        let mut config = dir.with("", "reference.source = 'cached'");
        config.reference.cache_folder = Some(dir.path("cache"));
        config
    };
    let variants: [(&str, TrainConfig); 6] = [
        ("apart", dir.with("", "memory.share_prompts = false")),
        // Every pair alone: one packed batch of eight, or eight of one.
        ("alone", dir.with("", "batch.micro_batch_tokens = 1")),
        ("one row of logits at a time", dir.with("", "memory.logits_bytes = 1")),
        ("checkpointing", dir.with("", "memory.activation_checkpointing = true")),
        ("on the fly", dir.with("", "reference.source = 'on-the-fly'")),
        ("cached", cached()),
    ];
    for (name, config) in variants {
        let other = train(TrainConfig { output: Some(dir.path(name)), ..config });
        let off = metrics_differ(&plain.records().unwrap(), &other.records().unwrap());
        assert!(off < 2e-4, "{name}: {off}");
        // AdamW's first steps are of one size whatever the gradient's, so rounding shows where gradients vanish.
        let off = furthest(&dir.path("plain"), &dir.path(name));
        assert!(off < 5e-4, "{name}: {off}");
    }
    // The second time the log-probabilities come from the file, and are the same to the bit.
    train(TrainConfig { output: Some(dir.path("again")), ..cached() });
    assert_eq!(furthest(&dir.path("cached"), &dir.path("again")), 0.0);
    assert_eq!(std::fs::read_dir(dir.path("cache")).unwrap().count(), 2, "training and held-out pairs");
}

/// A token's dropout follows from its pair and its place there, not from the micro-batch or from how prompts are fed.
#[test]
fn dropped_inputs_do_not_depend_on_packing() {
    let dir = Dir::new();
    let adapter = |text: &str| dir.with("", &format!("lora = {{ rank = 4, dropout = 0.3 }}\n{text}"));
    let named = |name: &str, config: TrainConfig| TrainConfig { output: Some(dir.path(name)), ..config };
    let plain = train(named("plain", adapter("")));
    let variants = [
        ("apart", "memory.share_prompts = false"),
        ("alone", "batch.micro_batch_tokens = 1"),
        ("checkpointing", "memory.activation_checkpointing = true"),
    ];
    for (name, text) in variants {
        let off = metrics_differ(&plain.records().unwrap(), &train(named(name, adapter(text))).records().unwrap());
        assert!(off < 2e-4, "{name}: {off}");
    }
    let whole = train(named("whole", dir.with("", "lora = { rank = 4 }")));
    assert!(metrics_differ(&plain.records().unwrap(), &whole.records().unwrap()) > 1e-3, "inputs are dropped");
}

fn resumes(name: &str, config: impl Fn(&Dir, &str) -> TrainConfig) {
    let dir = Dir::new();
    let whole = train(config(&dir, "whole"));
    assert_eq!(whole.outcome, Outcome::Finished);
    for stop in 1..3 {
        let cut = format!("cut{stop}");
        assert_eq!(start(config(&dir, &cut), false, stop).outcome, Outcome::Stopped);
        start(config(&dir, &cut), true, u64::MAX);
        assert_eq!(furthest(&dir.path("whole"), &dir.path(&cut)), 0.0, "{name} {stop}");
        let lines = |run: &str| std::fs::read_to_string(dir.path(run).join("metrics.jsonl")).unwrap().lines().count();
        assert_eq!(lines("whole"), lines(&cut));
    }
}

#[test]
fn an_interrupted_run_ends_on_the_same_bits() {
    let with = |text: &'static str| move |dir: &Dir, output: &str| dir.with(output, text);
    resumes("all weights", with("batch.shuffle = 'seed'"));
    resumes("dropped inputs of an adapter", with("lora = { rank = 4, dropout = 0.3 }"));
    let whole = "lora = { rank = 4, dropout = 0.3, dora = true, modules_to_save = ['lm_head'] }";
    resumes("an adapter with a head trained whole", with(whole));
    resumes("an adapter of a reward model", with("objective = 'reward'\nlora = { rank = 4, dropout = 0.3 }"));
    resumes("a moving reference", with("reference = { source = 'on-the-fly', sync_every = 1 }"));
    let adapter = "lora = { rank = 4, dropout = 0.3 }";
    resumes("answers drawn on the way", |dir, output| over(hypo(dir, output), adapter));
    resumes("half precision", with("dtype = 'bfloat16'"));
    resumes("a reward model", with("objective = 'reward'"));
    resumes("responses", with("objective = 'sft'"));
}

#[test]
fn an_adapter_is_trained_and_the_model_is_not() {
    let dir = Dir::new();
    let config = |output: &str| dir.with(output, "lora.rank = 4\noptimizer.learning_rate = 1e-2");
    let run = Run::with_pairs(config("lora"), &dir.model(), &pairs(24), &pairs(4)).unwrap();
    // Two layers, rank 4: inputs and outputs of four projections of attention and three of the feed-forward.
    assert_eq!(run.trained_parameters(), 2 * 4 * (4 * 64 + 192 + 3 * (64 + 160)));
    let finished = run.start(Resume::No, &mut StopAt(u64::MAX, Cell::new(0))).unwrap();
    let margins = |at: usize| finished.records().unwrap()[at].get("rewards/margins").unwrap();
    assert!(margins(2) > margins(0) + 0.01, "{} {}", margins(0), margins(2));

    // peft's files give the same logits as the merged model.
    let mut base = CausalLm::load(&dir.model(), Kind::Float, Device::Cpu).unwrap();
    base.load_adapter("default", &dir.path("lora").join("adapter")).unwrap();
    let merged = CausalLm::load(&finished.folder.model(), Kind::Float, Device::Cpu).unwrap();
    let logits = |model: &CausalLm| {
        let mut packed = simplemix_model::Packed::new();
        packed.push(&[1, 5, 9]).unwrap();
        tch::no_grad(|| model.logits(&model.hidden_states(&packed).unwrap()).unwrap())
    };
    let adapted = logits(&base.with_adapter(Some("default")).unwrap());
    assert!((&adapted - logits(&merged)).abs().max().double_value(&[]) < 1e-4);
    assert!((adapted - logits(&base)).abs().max().double_value(&[]) > 1e-3);

    // Both ways to a reference agree, and training goes on from the adapter's files.
    let fly = train(over(config("fly"), "reference.source = 'on-the-fly'"));
    assert!(metrics_differ(&finished.records().unwrap(), &fly.records().unwrap()) < 2e-4);
    let mut on = over(config("on"), "lora.rank = 0");
    on.lora.adapter = Some(dir.path("lora").join("adapter"));
    let on = train(on);
    assert!(on.records().unwrap()[0].get("rewards/margins").unwrap() > margins(1), "the model is still the reference");
}

/// bf16 is what GPUs train in. ln 2 rounded to bf16 is 0.6914, so scores must be widened before the loss.
#[test]
fn a_reward_model_in_half_precision_starts() {
    let dir = Dir::new();
    let finished = train(dir.with("half", "objective = 'reward'\ndtype = 'bfloat16'\nmax_steps = 2"));
    let loss = finished.records().unwrap()[0].get("loss").unwrap();
    assert!((loss - std::f64::consts::LN_2).abs() < 1e-6, "{loss}");
}

#[test]
fn a_reward_model_learns_and_its_folder_loads() {
    let dir = Dir::new();
    let config = dir.with("reward", "objective = 'reward'\nepochs = 4\noptimizer.learning_rate = 3e-3");
    let finished = train(config);
    let records = finished.records().unwrap();
    let first = &records[0];
    assert!((first.get("loss").unwrap() - std::f64::consts::LN_2).abs() < 1e-6);
    let last = &records[records.len() - 2];
    assert!(last.get("loss").unwrap() < 0.5 && last.get("accuracy").unwrap() > 0.7, "{last:?}");
    assert!(matches!(finished.model, Some(Trained::Reward(_))));
    let loaded = RewardModel::load(&finished.folder.model(), Kind::Float, Device::Cpu).unwrap();
    assert!(loaded.score(&[&[1, 2, 3]]).unwrap()[0].is_finite());
    let text = std::fs::read_to_string(finished.folder.model().join("config.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["architectures"][0], "LlamaForSequenceClassification");
    // It can be trained further: its score is no longer zero.
    let on = TrainConfig { model: Some(finished.folder.model()), ..dir.with("on", "objective = 'reward'") };
    assert!(train(on).records().unwrap()[0].get("loss").unwrap() < 0.6);
}

/// DoRA with modules trained whole and a head of its own: trained, written as peft does, resumed, and priced.
#[test]
fn an_adapter_with_modules_trained_whole() {
    let dir = Dir::new();
    let lora = "lora = { rank = 4, dora = true, targets = ['q_proj', 'down_proj'], modules_to_save = ['lm_head', 'norm'], \
                rank_pattern = { 'q_proj' = 2 }, bias = 'all' }\noptimizer.learning_rate = 1e-2";
    let finished = train(dir.with("whole", lora));
    let records = finished.records().unwrap();
    assert!((records[0].get("loss").unwrap() - std::f64::consts::LN_2).abs() < 1e-5);
    let last = &records[records.len() - 1];
    assert!(last.get("eval_rewards/margins").unwrap() > 0.0, "{last:?}");
    let adapter = weights::read_all(&finished.folder.adapter().join("adapter_model.safetensors")).unwrap();
    let ends = ["lm_head.weight", "model.norm.weight", "q_proj.lora_magnitude_vector", "down_proj.lora_B.weight"];
    for end in ends {
        assert!(adapter.keys().any(|name| name.ends_with(end)), "{end}");
    }
    assert!(adapter.iter().filter(|(name, _)| name.contains("q_proj.lora_A")).all(|(_, a)| a.size()[0] == 2));
    // The model of a tied embedding has got a head of its own.
    let merged = CausalLm::load(&finished.folder.model(), Kind::Float, Device::Cpu).unwrap();
    assert!(!merged.config().tie_word_embeddings);
    let mut base = CausalLm::load(&dir.model(), Kind::Float, Device::Cpu).unwrap();
    base.load_adapter("a", &finished.folder.adapter()).unwrap();
    let adapted = base.with_adapter(Some("a")).unwrap();
    let logits = |model: &CausalLm| {
        let mut packed = simplemix_model::Packed::new();
        packed.push(&[1, 2, 3]).unwrap();
        tch::no_grad(|| model.logits(&model.hidden_states(&packed).unwrap()).unwrap())
    };
    assert!((logits(&merged) - logits(&adapted)).abs().max().double_value(&[]) < 1e-4);
    // A dry run counts a head of its own and its gradient.
    let estimate = |text: &str| {
        let run = Run::with_pairs(dir.with("x", text), &dir.model(), &pairs(8), &[]).unwrap();
        (run.trained_parameters(), run.memory_estimate().unwrap())
    };
    let (plain, whole) =
        (estimate("lora = { rank = 4 }"), estimate("lora = { rank = 4, modules_to_save = ['lm_head'] }"));
    let head = merged.config().vocab_size * merged.config().hidden_size;
    assert_eq!(whole.0 - plain.0, head);
    assert_eq!(whole.1.weights - plain.1.weights, 4 * head as u64);
    assert_eq!(whole.1.gradients - plain.1.gradients, 4 * head as u64);
}

#[test]
fn an_adapter_of_a_reward_model_is_trained() {
    let dir = Dir::new();
    let text = "objective = 'reward'\nepochs = 4\noptimizer.learning_rate = 1e-2\nlora = { rank = 4, dropout = 0.1 }";
    let finished = train(dir.with("reward", text));
    let records = finished.records().unwrap();
    assert!((records[0].get("loss").unwrap() - std::f64::consts::LN_2).abs() < 1e-6);
    assert!(records[records.len() - 2].get("loss").unwrap() < 0.6);
    let text = std::fs::read_to_string(finished.folder.adapter().join("adapter_config.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["task_type"], "SEQ_CLS");
    let merged = RewardModel::load(&finished.folder.model(), Kind::Float, Device::Cpu).unwrap();
    let base = CausalLm::load(&dir.model(), Kind::Float, Device::Cpu).unwrap();
    let mut adapted = RewardModel::on_top_of(base).unwrap();
    adapted.load_adapter(&finished.folder.adapter()).unwrap();
    let score = |model: &RewardModel| model.score(&[&[1, 2, 3]]).unwrap()[0];
    assert!((score(&merged) - score(&adapted)).abs() < 1e-4 && score(&merged) != 0.0);
    // Training goes on from the adapter's files.
    let mut on = dir.with("on", "objective = 'reward'");
    on.lora.adapter = Some(finished.folder.adapter());
    assert!(train(on).records().unwrap()[0].get("loss").unwrap() < 0.6);
    let mut policy = dir.with("policy", "");
    policy.lora.adapter = Some(finished.folder.adapter());
    let error = Run::with_pairs(policy, &dir.model(), &pairs(8), &[]).unwrap_err().to_string();
    assert!(error.contains("`task_type` of an adapter is `SEQ_CLS`, expected `CAUSAL_LM`"), "{error}");
}

#[test]
fn matrices_beside_the_head_are_trained_without_dropout() {
    let dir = Dir::new();
    let lora = |dropout: f64| {
        format!("lora = {{ rank = 4, dropout = {dropout}, targets = ['q_proj', 'lm_head', 'embed_tokens'] }}")
    };
    let records = train(dir.with("head", &format!("{}\noptimizer.learning_rate = 1e-2", lora(0.0)))).records().unwrap();
    assert!(records[records.len() - 1].get("eval_rewards/margins").unwrap() > 0.0);
    let adapter = weights::read_all(&dir.path("head").join("adapter/adapter_model.safetensors")).unwrap();
    let moved = |end: &str| {
        let (_, tensor) = adapter.iter().find(|(name, _)| name.ends_with(end)).unwrap();
        tensor.abs().max().double_value(&[]) > 0.0
    };
    assert!(moved("lm_head.lora_B.weight") && moved("embed_tokens.lora_embedding_A"));
    let error = Run::with_pairs(dir.with("x", &lora(0.1)), &dir.model(), &pairs(8), &[]).unwrap_err().to_string();
    assert!(error.starts_with("`lora.dropout` is 0.1 with an adapter of the output head, expected 0"), "{error}");
}

#[test]
fn responses_are_learnt() {
    let dir = Dir::new();
    let config = |output: &str| dir.with(output, "objective = 'sft'\nepochs = 4");
    let finished = train(config("sft"));
    let records = finished.records().unwrap();
    let (first, last) = (&records[0], &records[records.len() - 1]);
    // A random model is as good as guessing among its tokens.
    let vocabulary = finished.model.as_ref().unwrap().policy().unwrap().config().vocab_size as f64;
    assert!((first.get("loss").unwrap() - vocabulary.ln()).abs() < 0.2);
    assert!(last.get("eval_loss").unwrap() < first.get("loss").unwrap() - 0.5);
    assert!(last.get("eval_mean_token_accuracy").is_some() && last.get("eval_rewards/margins").is_none());
    // Tokens weigh alike, however they are split.
    let alone = train(over(config("alone"), "batch.micro_batch_tokens = 1"));
    assert!((alone.records().unwrap()[0].get("loss").unwrap() - first.get("loss").unwrap()).abs() < 1e-5);
}

#[test]
fn frozen_parameters_and_groups_do_as_they_are_told() {
    let dir = Dir::new();
    let optimizer = "[optimizer]\nfreeze = ['model.embed_tokens.*', 'model.layers.0.*']\n\
                     parameter_groups = [{ names = ['*.mlp.*'], learning_rate_factor = 0 }]";
    train(dir.with("frozen", optimizer));
    let before = weights::read_all(&dir.model().join(weights::WEIGHTS)).unwrap();
    for (name, after) in weights_of(&dir.path("frozen")) {
        let moved = after != before[&name];
        let moves = name == "model.norm.weight" || (name.contains("layers.1") && !name.contains("mlp"));
        assert_eq!(moved, moves, "{name}");
    }
    let config = dir.with("x", "optimizer.freeze = ['model.layer.*']");
    let error = Run::with_pairs(config, &dir.model(), &pairs(8), &[]).unwrap_err();
    assert!(
        error.to_string().starts_with("`optimizer.freeze`: the pattern `model.layer.*` matches none of"),
        "{error}"
    );
}

#[test]
fn losses_without_a_reference_have_none() {
    let dir = Dir::new();
    let finished = train(dir.with("simpo", "loss = { name = 'simpo', beta = 2 }"));
    assert!(finished.records().unwrap()[0].get("rewards/chosen").unwrap() < 0.0);
    assert_eq!(finished.outcome, Outcome::Finished);
}

#[test]
fn metrics_tell_sources_and_tasks_apart() {
    let dir = Dir::new();
    let records = train(dir.config("run")).records().unwrap();
    let of = |name: &str| records[1].get(name).unwrap();
    let whole = of("share@on") * of("rewards/margins@on") + of("share@off") * of("rewards/margins@off");
    assert!((whole - of("rewards/margins")).abs() < 1e-9);
    let tasks = of("rewards/margins@task:math") + of("rewards/margins@task:chat");
    assert!((tasks - 2.0 * of("rewards/margins")).abs() < 1e-9);
    for name in ["entropy", "mean_token_accuracy", "logits/chosen", "lengths/rejected", "num_tokens", "grad_norm"] {
        assert!(of(name).is_finite(), "{name}");
    }
    for file in ["report.html", "environment.json", "config.toml", "plots/margins.svg", "model/README.md"] {
        assert!(dir.path("run").join(file).is_file(), "{file}");
    }
    assert_eq!(std::fs::read_dir(dir.path("run/tensorboard")).unwrap().count(), 1);
}

/// Tokens are measured in updates 2 and 4 and in every evaluation; all other numbers are those of a run that measures always.
#[test]
fn tokens_are_measured_every_so_many_updates() {
    const TOKENS: [&str; 4] = ["entropy", "mean_token_accuracy", "logits/chosen", "logits/rejected"];
    let dir = Dir::new();
    for objective in ["objective = 'preference'", "objective = 'sft'"] {
        let text = format!("{objective}\nepochs = 2\neval.eval_every_steps = 1");
        let name = |every: u64| format!("{} {every}", objective.len());
        let run = |every: u64| train(dir.with(&name(every), &format!("{text}\nlog.token_metrics_every = {every}")));
        let (always, at_times) = (run(1).records().unwrap(), run(2).records().unwrap());
        assert_eq!(always.len(), at_times.len());
        for (always, mut at_times) in always.into_iter().zip(at_times) {
            let is_left_out = always.get("grad_norm").is_some() && !at_times.step.is_multiple_of(2);
            let of_tokens = |name: &str| TOKENS.iter().any(|metric| name.starts_with(metric));
            for (name, value) in always.values.iter().filter(|(name, _)| is_left_out && of_tokens(name)) {
                assert_eq!(at_times.get(name), None, "{name} of update {}", at_times.step);
                at_times.push(name.as_str(), *value);
            }
            assert_eq!(metrics_differ(&[always], &[at_times]), 0.0);
        }
        assert_eq!(furthest(&dir.path(&name(1)), &dir.path(&name(2))), 0.0);
    }
}

#[test]
fn the_best_checkpoint_becomes_the_result() {
    let dir = Dir::new();
    // Training lowers this metric, so that an early evaluation stays the best.
    let settings = "epochs = 4\noptimizer.learning_rate = 1e-2\ncheckpoint = { save_every_steps = 1, keep = 1 }\n\
                    [eval]\neval_every_steps = 1\nbest_metric = 'eval_rewards/rejected'\nearly_stopping_patience = 3";
    let finished = train(dir.with("best", settings));
    let values: Vec<f64> = finished.records().unwrap().iter().filter_map(|r| r.get("eval_rewards/rejected")).collect();
    let best = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b])).unwrap();
    assert_eq!(finished.outcome, Outcome::StoppedEarly, "{values:?}");
    assert_eq!(values.len(), best + 4, "{values:?}");
    let kept = weights::read_all(&finished.folder.checkpoint(best as u64 + 1).join(weights::WEIGHTS)).unwrap();
    for (name, tensor) in weights_of(&dir.path("best")) {
        assert_eq!(tensor, kept[&name], "{name}");
    }
    assert_eq!(finished.folder.checkpoints().unwrap().len(), 2, "the newest and the best");
}

/// HyPO with answers that are short enough for a test.
fn hypo(dir: &Dir, output: &str) -> TrainConfig {
    dir.with(output, "hypo = { lambda = 0.1, max_new_tokens = 8 }")
}

#[test]
fn a_divergence_of_no_weight_changes_no_bit() {
    let dir = Dir::new();
    let plain = train(dir.config("plain"));
    let none = train(over(hypo(&dir, "none"), "hypo = { lambda = 0, samples = 4, prompts = 3 }"));
    assert_eq!(
        (
            metrics_differ(&plain.records().unwrap(), &none.records().unwrap()),
            furthest(&dir.path("plain"), &dir.path("none"))
        ),
        (0.0, 0.0)
    );
    assert_eq!(none.records().unwrap()[0].get("kl"), None);
}

#[test]
fn the_divergence_begins_at_nothing_and_enters_the_update() {
    let dir = Dir::new();
    let (plain, run) = (train(dir.config("plain")), train(hypo(&dir, "hypo")));
    let kl: Vec<f64> = run.records().unwrap().iter().filter_map(|record| record.get("kl")).collect();
    assert_eq!(kl.len(), 3);
    // Before the first update policy and reference are one, and so are the gradients with and without.
    assert!(kl[0].abs() < 1e-4 && kl[2].abs() > 1e-3, "{kl:?}");
    let norms = |run: &Finished| [0, 2].map(|at| run.records().unwrap()[at].get("grad_norm").unwrap());
    let (with, without) = (norms(&run), norms(&plain));
    assert!((with[0] - without[0]).abs() < 1e-3 * without[0] && (with[1] - without[1]).abs() > 1e-4 * without[1]);
    let of = |name: &str| run.records().unwrap()[1].get(name).unwrap();
    assert_eq!(of("completions/tokens"), 16.0 * of("completions/mean_length"));
    assert!((1.0..=8.0).contains(&of("completions/mean_length")));
    assert!((0.0..=1.0).contains(&of("completions/clipped_ratio")));
    assert!(dir.path("hypo/plots/kl.svg").is_file());
}

#[test]
fn every_reference_serves_the_divergence() {
    let dir = Dir::new();
    let other = dir.path("other");
    tiny::write_folder(&other, 2).unwrap();
    let kl = |name: &str, config: TrainConfig| {
        let records = train(TrainConfig { output: Some(dir.path(name)), ..config }).records().unwrap();
        records.iter().filter_map(|record| record.get("kl")).collect::<Vec<_>>()
    };
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3) && a.len() == b.len();
    let config = |prompts: usize| over(hypo(&dir, ""), &format!("hypo.prompts = {prompts}"));
    let computed = kl("computed", config(3));
    assert!(computed.len() == 3 && computed[2] != 0.0);
    let fly = |rank: usize| over(config(3), &format!("reference.source = 'on-the-fly'\nlora.rank = {rank}"));
    assert!(near(&kl("fly", fly(0)), &computed));
    assert!(near(&kl("fly with adapter", fly(4)), &kl("adapter", over(config(3), "lora.rank = 4"))));
    // The policy starts away from another model, and losses without a reference have one here.
    let mut with_other = config(0);
    with_other.reference.model = Some(other);
    assert!(kl("other", with_other)[0].abs() > 1e-3);
    assert!(kl("simpo", over(config(0), "loss = { name = 'simpo', beta = 2 }"))[0].abs() < 1e-4);
}

#[test]
fn a_second_model_and_the_answers_are_in_the_memory_estimate() {
    let dir = Dir::new();
    let estimate = |config| Run::with_pairs(config, &dir.model(), &pairs(8), &[]).unwrap().memory_estimate().unwrap();
    let (plain, with) = (estimate(dir.config("a")), estimate(hypo(&dir, "b")));
    assert_eq!(with.weights, 2 * plain.weights);
    let adapted = estimate(over(hypo(&dir, "c"), "lora.rank = 4"));
    assert!(adapted.weights < with.weights);
    let long = estimate(over(hypo(&dir, "d"), "hypo.max_new_tokens = 2000"));
    // Sixteen rows of more than 2000 tokens, each a key and a value of 32 numbers in two layers.
    assert!(long.phases.passes > 16 * 2000 * 2 * 2 * 32 * 4, "{}", long.phases.passes);
}

/// Pairs whose scores are `margin(i)` apart.
fn scored_pairs(count: usize, margin: impl Fn(usize) -> f64) -> Vec<Pair> {
    let mut pairs = pairs(count);
    for (i, pair) in pairs.iter_mut().enumerate() {
        (pair.score_chosen, pair.score_rejected) = (Some(1.0 + margin(i)), Some(1.0));
    }
    pairs
}

#[test]
fn quantile_rewards_come_from_scores_and_those_of_the_reference() {
    let dir = Dir::new();
    let of_reference = |pairs: Vec<Pair>| -> Vec<Pair> {
        let with = |mut pair: Pair| {
            pair.ref_rewards = vec![0.0, 1.0, 1.5, 2.5];
            pair
        };
        pairs.into_iter().map(with).collect()
    };
    let run = |name: &str, margin: f64| {
        let config = dir.with(name, "loss = { name = 'qrpo', beta = 0.05 }");
        let (train, eval) = (of_reference(scored_pairs(24, |_| margin)), of_reference(scored_pairs(1, |_| margin)));
        let run = Run::with_pairs(config, &dir.model(), &train, &eval).unwrap();
        run.start(Resume::No, &mut StopAt(u64::MAX, Cell::new(0))).unwrap().records().unwrap()
    };
    // Scores 2 and 1 among those of the reference: quantiles 3/4 and 2/4.
    let records = run("better", 1.0);
    let of = |name: &str| records.last().unwrap().get(name).unwrap();
    let calibrated = 0.05 * 0.05f64.ln() + 1.0;
    let side = |quantile: f64, name: &str| (quantile - calibrated - of(name)).powi(2);
    let want = (side(0.75, "eval_rewards/chosen") + side(0.5, "eval_rewards/rejected")) / 2.0;
    assert!((of("eval_loss") - want).abs() < 1e-6, "{} {want}", of("eval_loss"));
    // Where policy and reference are one, the rewards are 0.
    let first = records[0].get("loss").unwrap();
    assert!((first - ((0.75 - calibrated).powi(2) + (0.5 - calibrated).powi(2)) / 2.0).abs() < 1e-6, "{first}");
    // A rejected response that the reference cannot reach is the better one, whatever it is called.
    assert!(run("worse", -10.0)[2].get("rewards/margins").unwrap() < 0.0);

    let refused = |name: &str, pairs: &[Pair]| {
        let config = dir.with(name, "loss.name = 'qrpo'");
        Run::with_pairs(config, &dir.model(), pairs, &[]).unwrap_err().to_string()
    };
    let error = refused("unscored", &of_reference(pairs(8)));
    assert_eq!(error, "row 0: `score_chosen` or `score_rejected` is missing; the loss `qrpo` needs both");
    let mut missing = of_reference(scored_pairs(8, |_| 1.0));
    missing[5].ref_rewards.clear();
    let error = refused("without", &missing);
    let expected = "row 5: `ref_rewards` is missing; the loss `qrpo` needs the scores of the reference's samples for each prompt, as \
                    `simplemix generate`, `score` and `pair` write them";
    assert_eq!(error, expected);
}

#[test]
fn soft_labels_come_from_scores() {
    let dir = Dir::new();
    let run = |name: &str, loss: &str, scale: f64, margin: fn(usize) -> f64| {
        let config = dir.with(name, &format!("loss = {{ name = '{loss}', reward_margin_scale = {scale:?} }}"));
        let run = Run::with_pairs(config, &dir.model(), &scored_pairs(24, margin), &scored_pairs(1, margin)).unwrap();
        run.start(Resume::No, &mut StopAt(u64::MAX, Cell::new(0))).unwrap()
    };
    // Scores that are sure make plain DPO of it, on every pair.
    run("dpo", "sigmoid", 1.0, |_| 50.0);
    run("sure", "soft_label", 2.0, |_| 50.0);
    assert_eq!(furthest(&dir.path("dpo"), &dir.path("sure")), 0.0);
    // A held-out pair's loss is that of its margin and its label, `p softplus(-m) + (1 - p) softplus(m)`.
    let finished = run("soft", "soft_label", 2.0, |i| 0.4 + i as f64 / 100.0);
    let of = |name: &str| finished.records().unwrap().last().unwrap().get(name).unwrap();
    let (margin, p) = (of("eval_rewards/margins"), 1.0 / (1.0 + (-0.8f64).exp()));
    let softplus = |x: f64| x.exp().ln_1p();
    let want = p * softplus(-margin) + (1.0 - p) * softplus(margin);
    assert!(margin.abs() > 1e-3 && (of("eval_loss") - want).abs() < 1e-6, "{margin} {} {want}", of("eval_loss"));
    // Scores that say the label is wrong turn the pair round.
    let wrong = run("wrong", "soft_label", 1.0, |_| -50.0);
    assert!(wrong.records().unwrap()[2].get("rewards/margins").unwrap() < 0.0);
    let config = dir.with("none", "loss.name = 'soft_label'");
    let error = Run::with_pairs(config, &dir.model(), &pairs(8), &[]).unwrap_err().to_string();
    assert_eq!(error, "row 0: `score_chosen` or `score_rejected` is missing; the loss `soft_label` needs both");
}
