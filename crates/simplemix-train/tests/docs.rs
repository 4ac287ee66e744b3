//! The tables of settings in docs/training.md are those of the declarations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use simplemix_settings::{Settings, markdown, toml_template};
use simplemix_train::TrainConfig;

const BEGIN: &str =
    "<!-- settings: made from the declarations; UPDATE_DOCS=1 cargo test -p simplemix-train --test docs -->\n";
const END: &str = "<!-- end of settings -->";

#[test]
fn the_tables_of_settings_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/training.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("docs/training.md has the first marker");
    let (tables, after) = rest.split_once(END).expect("docs/training.md has the second marker");
    let expected = format!("\n{}\n", markdown(TrainConfig::SECTIONS));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert!(tables == expected, "docs/training.md: run UPDATE_DOCS=1 cargo test -p simplemix-train --test docs");
    }
}

/// As `simplemix train --settings` prints it.
#[test]
fn the_file_of_all_settings_holds_the_defaults() {
    let text = toml_template(TrainConfig::SECTIONS);
    assert_eq!(TrainConfig::from_toml(&text, Path::new("run.toml")).unwrap(), TrainConfig::default());
    let settings = text.lines().filter(|line| line.contains(" =") && !line.starts_with("# A")).count();
    assert!(settings >= 60, "{settings} settings");
}

/// A model of a public `config.json`, by the facts on which its memory depends.
struct Public {
    name: &'static str,
    model_type: &'static str,
    /// Vocabulary, width, width of the feed-forward layer, layers, heads, key heads.
    shape: [u64; 6],
}

const PUBLIC: [Public; 3] = [
    Public { name: "Qwen2.5-7B", model_type: "qwen2", shape: [152_064, 3584, 18_944, 28, 28, 4] },
    Public { name: "Llama-3.1-8B", model_type: "llama", shape: [128_256, 4096, 14_336, 32, 32, 8] },
    Public { name: "Llama-3.1-70B", model_type: "llama", shape: [128_256, 8192, 28_672, 80, 64, 8] },
];

impl Public {
    fn config(&self) -> String {
        let [vocabulary, width, inner, layers, heads, keys] = self.shape;
        serde_json::json!({
            "model_type": self.model_type, "hidden_act": "silu", "rms_norm_eps": 1e-5, "rope_theta": 500_000.0,
            "max_position_embeddings": 32_768, "tie_word_embeddings": false, "vocab_size": vocabulary,
            "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": keys, "torch_dtype": "bfloat16",
        })
        .to_string()
    }
}

/// Peak of a process in GB; those that an 80 GB device does not have are in brackets.
fn planned(folder: &Path, processes: usize, shard: &str, lora: bool) -> String {
    let text = format!(
        "model = '{}'\ndevice = 'cuda'\nparallel = {{ processes = {processes}, shard = '{shard}' }}\n\
         memory = {{ device_gb = 80, activation_checkpointing = true }}\ntokens.max_length = 2048\nbatch.batch_size = 64\n{}",
        folder.display(),
        if lora { "lora.rank = 16" } else { "" }
    );
    let config = TrainConfig::from_toml(&text, Path::new("run.toml")).unwrap();
    let peak = config.memory_plan().unwrap().total() as f64 / 1e9;
    if peak > 80.0 { format!("({peak:.0})") } else { format!("{peak:.0}") }
}

const MEMORY_BEGIN: &str =
    "<!-- memory: made from estimates; UPDATE_DOCS=1 cargo test -p simplemix-train --test docs -->\n";
const MEMORY_END: &str = "<!-- end of memory -->";

#[test]
fn the_table_of_memory_is_that_of_dry_runs() {
    let mut table =
        "\n| model | training | devices | `none` | `optimizer` | `all` |\n| --- | --- | ---: | ---: | ---: | ---: |\n"
            .to_owned();
    for model in &PUBLIC {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), model.config()).unwrap();
        for (training, lora) in [("all weights", false), ("LoRA, rank 16", true)] {
            for processes in [1, 8, 16] {
                let of = |shard: &str| planned(folder.path(), processes, shard, lora);
                let [none, optimizer, all] = ["none", "optimizer", "all"].map(|shard| match processes {
                    1 if shard != "none" => "-".to_owned(),
                    _ => of(shard),
                });
                table += &format!("| {} | {training} | {processes} | {none} | {optimizer} | {all} |\n", model.name);
            }
        }
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/distributed.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(MEMORY_BEGIN).expect("docs/distributed.md has the first marker");
    let (found, after) = rest.split_once(MEMORY_END).expect("docs/distributed.md has the second marker");
    let expected = format!("{table}\n");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{MEMORY_BEGIN}{expected}{MEMORY_END}{after}")).unwrap();
    } else {
        assert!(found == expected, "docs/distributed.md: run UPDATE_DOCS=1 cargo test -p simplemix-train --test docs");
    }
}
