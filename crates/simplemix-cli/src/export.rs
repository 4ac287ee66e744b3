//! `simplemix export-gguf`: converts a Hugging Face model folder to a GGUF file.

use std::path::PathBuf;

use simplemix_model::gguf::GgufType;

use crate::claims::claim_files;
use crate::failure::Result;
use crate::flags::word;
use crate::lines::print;
use crate::progress::bar;

/// Convert a Hugging Face model folder to a GGUF file for llama.cpp and Ollama, with tokenizer and chat template
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  simplemix export-gguf runs/dpo/model dpo.gguf --type q8_0\n\n\
                        Writes Llama, Mistral without a window, Qwen 2 and 3, Gemma 2 and 3, OLMo 2, SmolLM3, Granite and Arcee. The file \
                        is read again before it gets its name: a setting or a tokenizer that GGUF cannot say is refused.")]
pub(crate) struct Args {
    /// Model folder to read
    input: PathBuf,
    /// GGUF file to write; must not exist
    output: PathBuf,
    /// Type of the matrices; auto is that of the model's files. Norms and biases are f32
    #[arg(long = "type", value_name = "auto|f32|f16|bf16|q8_0|q4_0", default_value = "auto", value_parser = word::<GgufType>)]
    kind: GgufType,
}

pub(crate) fn run(args: &Args) -> Result {
    let _claims = claim_files(&[("output", &args.output)])?;
    let bar = bar("exporting", 1);
    let report = simplemix_model::gguf::export_gguf(&args.input, &args.output, args.kind, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    print(&format!("{}: {report}", args.output.display()));
    Ok(())
}
