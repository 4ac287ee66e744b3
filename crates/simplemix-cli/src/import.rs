//! `simplemix import-gguf`: converts a GGUF file to a Hugging Face model folder.

use std::path::PathBuf;

use crate::claims::claim_new_folder;
use crate::failure::Result;
use crate::lines::print;
use crate::progress::bar;

/// Convert a GGUF file to a Hugging Face model folder (config, tokenizer, chat template, f32 safetensors)
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  simplemix import-gguf SmolLM2-135M-Instruct.Q4_1.gguf ./smollm2\n\n\
                        Reads Llama, Mistral, Qwen 2 and 3, Gemma 2 and 3, Phi 3, OLMo 2, SmolLM3, Granite and Arcee, with tensors in \
                        F32, F16, BF16, Q2_K to Q6_K, Q4_0 to Q8_0, IQ4_NL, IQ4_XS, MXFP4, TQ1_0 and TQ2_0.")]
pub(crate) struct Args {
    /// GGUF file to read
    input: PathBuf,
    /// Model folder to write; must not exist
    output: PathBuf,
}

pub(crate) fn run(args: &Args) -> Result {
    let _claims = claim_new_folder(&args.output)?;
    let bar = bar("importing", 1);
    let report = simplemix_model::gguf::import_gguf(&args.input, &args.output, &mut |done, total| {
        bar.set_length(total as u64);
        bar.set_position(done as u64);
    })?;
    bar.finish_and_clear();
    print(&format!("{}: {report}", args.output.display()));
    Ok(())
}
