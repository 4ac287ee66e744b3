//! Public recipes: the settings that become of them, and the keys that have no counterpart.
//!
//! The files of `recipes/` have the keys and values of the alignment handbook (commit 925acdf), of axolotl's (067b021) and
//! LLaMA-Factory's examples (ff6d4d1) and of TRL's (f2cd577), with templates and long lists of sets cut short. Numbers of the table are
//! theirs: pairs of a device times passes, learning rate, epochs, warm-up.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use simplemix_model::hub::CAN_PUSH;
use simplemix_settings::Settings;
use simplemix_train::{Program, TrainConfig, import_recipe};

enum Warmup {
    Share(f64),
    Steps(u64),
}

/// Name, program, pairs of a batch on one device, learning rate, epochs, warm-up, keys without a counterpart.
type Row = (&'static str, Program, usize, f64, f64, Warmup, &'static [&'static str]);

const RECIPES: &[Row] = &[
    ("axolotl-dpo", Program::Axolotl, 8, 0.0002, 4.0, Warmup::Share(0.1), &["optimizer"]),
    (
        "axolotl-falcon-e-3b-dpo",
        Program::Axolotl,
        4,
        1e-05,
        3.0,
        Warmup::Steps(128),
        &["plugins", "use_onebitllms", "shuffle_merged_datasets", "eot_tokens"],
    ),
    ("axolotl-instruct-dpo-lora-8b", Program::Axolotl, 8, 0.0002, 4.0, Warmup::Share(0.1), &["optimizer"]),
    (
        "axolotl-lora-1b-deduplicate-dpo",
        Program::Axolotl,
        8,
        0.0002,
        4.0,
        Warmup::Share(0.1),
        &["dataset_exact_deduplication", "optimizer"],
    ),
    (
        "axolotl-mistral-dpo-qlora",
        Program::Axolotl,
        64,
        0.0001,
        6.0,
        Warmup::Share(0.1),
        &["special_tokens.bos_token", "optimizer"],
    ),
    ("axolotl-mistral-qlora-orpo", Program::Axolotl, 8, 0.0002, 1.0, Warmup::Share(0.1), &["optimizer"]),
    (
        "axolotl-phi3-ft",
        Program::Axolotl,
        2,
        5e-06,
        1.0,
        Warmup::Share(0.2),
        &["eval_max_new_tokens", "eval_causal_lm_metrics", "do_causal_lm_eval", "resize_token_embeddings_to_32x"],
    ),
    ("axolotl-reward-model", Program::Axolotl, 8, 0.0002, 4.0, Warmup::Share(0.1), &["optimizer"]),
    (
        "handbook-constitutional-ai-dpo-anthropic",
        Program::Trl,
        2,
        5e-07,
        3.0,
        Warmup::Share(0.1),
        &["optim", "push_to_hub"],
    ),
    ("handbook-constitutional-ai-sft-anthropic", Program::Trl, 32, 2e-05, 1.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-constitutional-ai-sft-grok", Program::Trl, 32, 2e-05, 1.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-pref-align-scan-dpo-openhermes", Program::Trl, 16, 5e-07, 1.0, Warmup::Share(0.1), &[]),
    ("handbook-pref-align-scan-dpo-zephyr", Program::Trl, 16, 5e-07, 1.0, Warmup::Share(0.1), &[]),
    ("handbook-smollm-sft", Program::Trl, 16, 0.001, 1.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-smollm2-dpo-smol", Program::Trl, 16, 1e-06, 2.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-smollm2-dpo", Program::Trl, 16, 1e-06, 3.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-smollm2-sft-smol", Program::Trl, 16, 0.001, 2.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-smollm2-sft", Program::Trl, 16, 0.0003, 2.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-smollm3-dpo-apo", Program::Trl, 2, 1e-06, 1.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-smollm3-sft-mid", Program::Trl, 2, 2e-05, 5.0, Warmup::Share(0.03), &["packing", "push_to_hub"]),
    (
        "handbook-smollm3-sft-sft",
        Program::Trl,
        2,
        2e-05,
        5.0,
        Warmup::Share(0.03),
        &["assistant_only_loss", "packing", "push_to_hub"],
    ),
    ("handbook-starchat2-15b-dpo-v0.1", Program::Trl, 16, 5e-07, 2.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-starchat2-15b-sft-v0.1", Program::Trl, 16, 2e-05, 3.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-zephyr-141b-A35b-orpo-full", Program::Trl, 1, 5e-06, 3.0, Warmup::Steps(100), &["optim", "push_to_hub"]),
    ("handbook-zephyr-7b-beta-dpo-full", Program::Trl, 16, 5e-07, 1.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-zephyr-7b-beta-dpo-qlora", Program::Trl, 16, 5e-06, 1.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-zephyr-7b-beta-sft-full", Program::Trl, 16, 2e-05, 1.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-zephyr-7b-beta-sft-qlora", Program::Trl, 8, 0.0002, 1.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-zephyr-7b-gemma-dpo-full", Program::Trl, 16, 5e-07, 2.0, Warmup::Share(0.1), &["push_to_hub"]),
    ("handbook-zephyr-7b-gemma-sft-full", Program::Trl, 16, 2e-05, 3.0, Warmup::Share(0.1), &["push_to_hub"]),
    (
        "llama-factory-qwen3-full-sft",
        Program::LlamaFactory,
        2,
        1e-05,
        3.0,
        Warmup::Share(0.1),
        &["dataset", "max_samples"],
    ),
    (
        "llama-factory-qwen3-lora-dpo",
        Program::LlamaFactory,
        8,
        5e-06,
        3.0,
        Warmup::Share(0.1),
        &["dataset", "max_samples"],
    ),
    (
        "llama-factory-qwen3-lora-kto",
        Program::LlamaFactory,
        8,
        5e-06,
        3.0,
        Warmup::Share(0.1),
        &["stage", "dataset", "max_samples"],
    ),
    (
        "llama-factory-qwen3-lora-reward",
        Program::LlamaFactory,
        8,
        0.0001,
        3.0,
        Warmup::Share(0.1),
        &["dataset", "max_samples"],
    ),
    (
        "llama-factory-qwen3vl-lora-dpo",
        Program::LlamaFactory,
        8,
        5e-06,
        3.0,
        Warmup::Share(0.1),
        &["image_max_pixels", "video_max_pixels", "dataset", "max_samples"],
    ),
    ("trl-example", Program::Trl, 8, 0.0001, 3.0, Warmup::Share(0.0), &[]),
];

#[test]
fn public_recipes_become_settings_and_what_has_no_counterpart_is_named() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), RECIPES.len());
    for (name, program, batch, rate, epochs, warmup, unfollowed) in RECIPES {
        let path = folder.join(format!("{name}.yaml"));
        let recipe = import_recipe(&std::fs::read_to_string(&path).unwrap(), &path, None, 1).unwrap();
        assert_eq!(recipe.program, *program, "{name}");
        // Complaints begin with the key, after `unknown key` where it is none.
        let keys: Vec<&str> = recipe.unfollowed.iter().filter_map(|text| text.split('`').nth(1)).collect();
        assert_eq!(keys, to_be_edited(unfollowed), "{name}");
        let config = TrainConfig::from_table(recipe.settings).unwrap();
        config.check().unwrap();
        let (optimizer, found) =
            (&config.optimizer, (config.batch.batch_size, config.optimizer.learning_rate, config.epochs));
        assert_eq!(found, (*batch, *rate, *epochs), "{name}");
        match warmup {
            Warmup::Share(share) => {
                assert_eq!((optimizer.warmup_ratio, optimizer.warmup_steps), (*share, None), "{name}")
            }
            Warmup::Steps(steps) => assert_eq!(optimizer.warmup_steps, Some(*steps), "{name}"),
        }
    }
}

/// Keys without a counterpart in this build.
fn to_be_edited<'a>(keys: &[&'a str]) -> Vec<&'a str> {
    keys.iter().copied().filter(|key| *key != "push_to_hub" || !CAN_PUSH).collect()
}

const BEGIN: &str =
    "<!-- recipes: made from tests/recipes.rs; UPDATE_DOCS=1 cargo test -p simplemix-train --test recipes -->\n";
const END: &str = "<!-- end of recipes -->";

/// The rows of the table in docs/recipes.md.
fn table() -> String {
    let mut text = "| recipe | program | to be edited |\n| --- | --- | --- |\n".to_owned();
    for (name, program, .., unfollowed) in RECIPES {
        let name = name.split_once('-').map_or(*name, |(_, rest)| rest);
        // The released program follows it.
        let unfollowed = unfollowed.iter().filter(|key| **key != "push_to_hub");
        let keys = unfollowed.map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ");
        let keys = if keys.is_empty() { "nothing".to_owned() } else { keys };
        text += &format!("| `{name}` | {} | {keys} |\n", of(*program, name));
    }
    text
}

/// Program in words; the handbook's files are TRL's.
fn of(program: Program, name: &str) -> &'static str {
    match program {
        Program::Trl if name == "example" => "TRL",
        Program::Trl => "alignment handbook",
        Program::Axolotl => "axolotl",
        Program::LlamaFactory => "LLaMA-Factory",
    }
}

#[test]
fn the_table_of_recipes_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/recipes.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("docs/recipes.md has the first marker");
    let (found, after) = rest.split_once(END).expect("docs/recipes.md has the second marker");
    let expected = format!("\n{}\n", table());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert!(found == expected, "docs/recipes.md: run UPDATE_DOCS=1 cargo test -p simplemix-train --test recipes");
    }
}
