//! `simplemix import-config`: settings of TRL, axolotl or LLaMA-Factory as a file for `simplemix train --config`.

use std::path::PathBuf;

use simplemix_settings::Settings;
use simplemix_train::{Objective, Program, Recipe, TrainConfig, import_recipe};

use crate::claims::claim_files;
use crate::failure::{Fails, Failure, Result, read_text};
use crate::flags::{check_apart, check_new, word};
use crate::lines::{print, print_lines};

/// Convert settings of TRL, the alignment handbook, axolotl or LLaMA-Factory to a file for `simplemix train --config`
///
/// The program is told by the keys. What has no counterpart is printed, and written at the head of the file; nothing is trained.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix import-config zephyr/dpo/config_full.yaml -o zephyr.toml\n  \
  simplemix import-config axolotl-dpo.yml --devices 8 -o run.toml\n  \
  simplemix import-config qwen3_lora_dpo.yaml -o run.toml\n  \
  simplemix import-config reward.yaml --objective reward\n\n\
  The file is for simplemix train --config run.toml. A batch of other programs is that of one device; --devices multiplies it, \
  as their launchers do.")]
pub(crate) struct Args {
    /// File of settings in YAML
    file: PathBuf,
    /// File to write, in TOML; without it, the settings are printed
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Overwrite the output if it exists
    #[arg(long)]
    overwrite: bool,
    /// Devices that the recipe is run on, whose pairs make up a batch
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    devices: u64,
    /// Training objective, for TRL, whose files do not name it: preference, sft or reward [default: that of the file, or preference]
    #[arg(long, value_name = "WHAT", value_parser = word::<Objective>)]
    objective: Option<Objective>,
}

pub(crate) fn run(args: &Args) -> Result {
    let text = read_text(&args.file)?;
    let recipe = import_recipe(&text, &args.file, args.objective, args.devices).input()?;
    let refused = |error| Failure::input(format!("{}: {error}", args.file.display()));
    TrainConfig::from_table(recipe.settings.clone()).and_then(|config| config.check_ranges()).map_err(refused)?;
    let written = format!("{}{}", head(args, &recipe), toml::to_string(&recipe.settings).input()?);
    let Some(output) = &args.output else {
        print_lines(written.trim_end());
        return Ok(());
    };
    let _claims = claim_files(&[("output", output)])?;
    check_new(output, args.overwrite)?;
    check_apart(output, std::slice::from_ref(&args.file))?;
    simplemix_files::write(output, written).run()?;
    print(&format!("{}: settings of {}", output.display(), from(recipe.program)));
    for (heading, lines) in parts(&recipe) {
        print(heading);
        lines.iter().for_each(|line| print(&format!("  {line}")));
    }
    Ok(())
}

fn from(program: Program) -> String {
    match program {
        Program::Trl => "TRL, or of the alignment handbook".to_owned(),
        other => other.to_string(),
    }
}

/// Lines under headings: keys without a counterpart, remarks, keys without effect.
fn parts(recipe: &Recipe) -> Vec<(&'static str, Vec<String>)> {
    let ignored = if recipe.ignored.is_empty() { Vec::new() } else { vec![recipe.ignored.join(", ")] };
    let parts = [
        ("without a counterpart:", recipe.unfollowed.clone()),
        ("to be known:", recipe.remarks.clone()),
        ("without effect on the result:", ignored),
    ];
    parts.into_iter().filter(|(_, lines)| !lines.is_empty()).collect()
}

/// Comments at the head of the file.
fn head(args: &Args, recipe: &Recipe) -> String {
    let mut head = format!(
        "# Settings of {}, from {}, for simplemix train --config.\n",
        from(recipe.program),
        args.file.display()
    );
    for (heading, lines) in parts(recipe) {
        head += &format!("# {heading}\n");
        for line in lines {
            head += &format!("#   {}\n", line.replace(['\n', '\r'], " "));
        }
    }
    head + "\n"
}
