//! Where the demo's model and off-policy pairs come from.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde_json::json;
use simplemix::data::{Pair, Policy, ReadOptions, read_pairs};
use simplemix::files::{cache_dir_for, write};
use simplemix::model::{gguf, hub, tiny};

use crate::problems::problems;

const GGUF: &str = "smollm2-135m-instruct.q4_1.gguf";
const PAIRS: &str = "dpo_en_demo.json";

/// A model folder and a file of off-policy pairs.
pub(crate) struct Inputs {
    pub(crate) model: PathBuf,
    pub(crate) name: String,
    pub(crate) pairs: PathBuf,
}

/// SmolLM2-135M-Instruct (or another model folder) and 300 real pairs, from the cache that `cargo xtask demo` fills.
pub(crate) fn real(model: Option<&Path>, off_policy: Option<&Path>) -> Result<Inputs> {
    // The folder that `cargo xtask demo` fills.
    let demo = cache_dir_for("demo")?;
    let pairs = off_policy.map_or_else(|| demo.join(PAIRS), Path::to_owned);
    let folder = match model {
        Some(model) => hub::resolve(model)?,
        None => imported(&demo)?,
    };
    if !pairs.is_file() {
        bail!("{}: not there; `cargo xtask fetch` gets it once, or give --off-policy FILE", pairs.display());
    }
    let name = folder.file_name().map_or_else(|| "policy".into(), |n| n.to_string_lossy().into_owned());
    Ok(Inputs { model: folder, name, pairs })
}

/// The cached GGUF file as a model folder, made on first use.
fn imported(demo: &Path) -> Result<PathBuf> {
    let (gguf, folder) = (demo.join(GGUF), demo.join("smollm2-135m-instruct"));
    if !folder.is_dir() {
        if !gguf.is_file() {
            bail!("{}: not there; `cargo xtask fetch` gets it once, or give --model DIR", gguf.display());
        }
        println!("   importing {} into {}, once ...", gguf.display(), folder.display());
        gguf::import_gguf(&gguf, &folder, &mut |_, _| {})?;
    }
    Ok(folder)
}

/// A random model of a few kilobytes, and pairs made up for it in LLaMA-Factory's form.
pub(crate) fn tiny(scratch: &Path) -> Result<Inputs> {
    let model = scratch.join("tiny-random");
    tiny::write_folder(&model, 0)?;
    let turn = |from: &str, value: String| json!({ "from": from, "value": value });
    let rows: Vec<_> = problems(99, 60)
        .into_iter()
        .map(|p| {
            json!({
                "conversations": [turn("human", p.question)],
                "chosen": turn("gpt", format!("The answer is {}.", p.answer)),
                "rejected": turn("gpt", "I would rather talk about something else".to_owned()),
            })
        })
        .collect();
    let pairs = scratch.join(PAIRS);
    write(&pairs, serde_json::to_string(&rows)?)?;
    Ok(Inputs { model, name: "tiny-random".into(), pairs })
}

/// The off-policy pairs of a file.
pub(crate) fn off_policy(path: &Path) -> Result<Vec<Pair>> {
    Ok(read_pairs(path, &ReadOptions::default().with_source("off").with_policy(Policy::Off))?)
}
