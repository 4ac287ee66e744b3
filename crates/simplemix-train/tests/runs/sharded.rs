//! Weights, gradients and the optimiser's state divided among processes change no number.

use super::together::{check, furthest_by_norm, together};
use super::*;

/// Settings over `parallel.shard = 'all'`.
fn divided(name: &str, settings: &str, sizes: &[usize]) {
    check(name, &format!("parallel.shard = 'all'\n{settings}"), sizes);
}

#[test]
fn divided_weights_learn_what_whole_ones_learn() {
    divided("DPO", "eval.eval_every_steps = 5", &[2, 3, 4]);
    // Micro-batches of a pair or two, so that processes have different numbers of them.
    let narrow = "batch.micro_batch_tokens = 40\neval.eval_every_steps = 5";
    divided("a reference in memory", &format!("{narrow}\nreference.source = 'on-the-fly'"), &[3]);
    divided("frozen weights", "optimizer.freeze = ['*.layers.0.*', '*norm.weight']", &[2]);
    // Updates of 7 pairs leave two of nine processes without one.
    divided("more processes than pairs", narrow, &[9]);
}

#[test]
fn divided_weights_learn_other_objectives() {
    divided("SFT", "objective = 'sft'\neval.eval_every_steps = 6\nbatch.micro_batch_tokens = 30", &[3]);
    divided("a reward model", "objective = 'reward'\neval.eval_every_steps = 6\nbatch.micro_batch_tokens = 60", &[2]);
    divided("LoRA of a reward model", "objective = 'reward'\nlora = { rank = 4 }", &[2]);
    divided("HyPO", "hypo = { lambda = 0.01, max_new_tokens = 6, prompts = 5 }\nbatch.micro_batch_tokens = 40", &[3]);
}

#[test]
fn adapters_learn_over_a_divided_base() {
    let narrow = "batch.micro_batch_tokens = 40";
    divided("LoRA with dropout", &format!("lora = {{ rank = 4, dropout = 0.2 }}\n{narrow}"), &[3]);
    let parts = "targets = ['embed_tokens', 'q_proj', 'down_proj']";
    divided("DoRA of the embedding too", &format!("lora = {{ rank = 4, dora = true, {parts} }}"), &[2]);
    divided("LoRA with a trained head", "lora = { rank = 4, modules_to_save = ['lm_head'] }", &[2]);
}

#[test]
fn a_divided_reference_moves() {
    let moving = "reference = { source = 'on-the-fly', sync_every = 3 }\ncheckpoint.save_every_steps = 4";
    divided("a moving reference", moving, &[2]);
    let freeze = "optimizer.freeze = ['*.layers.0.*']";
    divided("a moving reference of frozen weights", &format!("{moving}\n{freeze}"), &[3]);
}

#[test]
fn a_run_goes_on_with_other_parts_divided() {
    let dir = Dir::new();
    let settings = "max_steps = 11\nbatch.batch_size = 7\noptimizer.learning_rate = 1e-4\n\
                    reference = { source = 'on-the-fly', sync_every = 2 }";
    let whole = train(dir.with("whole", settings));
    let parts = dir.with("parts", settings);
    let all = over(parts.clone(), "parallel.shard = 'all'");
    let stopped = |config: &TrainConfig, size, resume, stop_at| {
        let found = together(config, size, resume, stop_at);
        assert!(found.iter().all(|finished| finished.outcome == Outcome::Stopped));
    };
    stopped(&all, 3, false, 3);
    stopped(&parts, 2, true, 5);
    stopped(&all, 4, true, 7);
    stopped(&over(parts.clone(), "parallel.shard = 'optimizer'"), 2, true, 9);
    let last = together(&all, 2, true, u64::MAX);
    assert!(last.iter().all(|finished| finished.outcome == Outcome::Finished && finished.model.is_none()));
    let lines = |finished: &Finished| std::fs::read_to_string(finished.folder.metrics_file()).unwrap().lines().count();
    assert_eq!(lines(&last[0]), lines(&whole));
    let difference = furthest_by_norm(&dir.path("whole"), &dir.path("parts"));
    assert!(difference < 1e-6, "{difference}");
}
