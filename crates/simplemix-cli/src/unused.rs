//! Flags that are given in vain, which are refused: those of a server without one, and those of `simplemix run` that the
//! resolved settings have no use for.

use clap::ArgMatches;
use clap::parser::ValueSource;
use simplemix_pipeline::PipelineSettings;

use crate::failure::{Failure, Result};

/// A flag, whether it was given, and why its setting is not used, if so.
type Use<'a> = (&'a str, bool, Option<&'static str>);

const NO_ON_POLICY: &str = "no response is sampled: mix.on is 0";
const NO_OFF_POLICY: &str = "no off-policy pair is taken: mix.off is 0";

/// Refuses flags that were given in vain. `sets` are the assignments of --set.
pub(crate) fn refuse(settings: &PipelineSettings, given: &[(&str, bool)], sets: &[String]) -> Result {
    let samples = !settings.mix.on.is_zero();
    let evaluates = settings.evaluate.prompts.is_some();
    let reason = |flag: &str| match flag {
        "--prompts" | "--server" if !samples => Some(NO_ON_POLICY),
        // Scorers of collecting also score the evaluation's responses.
        "--scorer" if !samples && !evaluates => Some(NO_ON_POLICY),
        "--off-policy" if settings.mix.off.is_zero() => Some(NO_OFF_POLICY),
        _ => None,
    };
    let flags = given.iter().map(|(flag, is_given)| (*flag, *is_given, reason(flag)));
    let is_collecting = |text: &&String| text.trim_start().starts_with("collect.");
    let collecting: Option<Use<'_>> = sets
        .iter()
        .find(is_collecting)
        .filter(|_| !samples && !evaluates)
        .map(|text| (text.as_str(), true, Some(NO_ON_POLICY)));
    match flags.chain(collecting).find_map(|(flag, is_given, reason)| Some((flag, reason.filter(|_| is_given)?))) {
        Some((flag, reason)) if flag.starts_with("--") => Err(Failure::input(format!("{flag} has no use: {reason}"))),
        Some((set, reason)) => Err(Failure::input(format!("--set {set} has no use: {reason}"))),
        None => Ok(()),
    }
}

/// Flags that need --server. Clap does not ask for it beside --model, which excludes it.
const OF_A_SERVER: [&str; 10] = [
    "server_model",
    "server_tokenizer",
    "api_key_env",
    "endpoint",
    "concurrency",
    "timeout",
    "retries",
    "on_refused",
    "logps",
    "extra",
];

/// Refuses the flags of a server where there is none.
pub(crate) fn refuse_server_flags(matches: &ArgMatches) -> Result {
    if let Some((_, inner)) = matches.subcommand() {
        return refuse_server_flags(inner);
    }
    if !matches!(matches.try_get_one::<String>("server"), Ok(None)) {
        return Ok(());
    }
    let is_given = |flag: &&str| {
        matches.try_contains_id(flag).unwrap_or(false) && matches.value_source(flag) == Some(ValueSource::CommandLine)
    };
    match OF_A_SERVER.iter().find(|flag| is_given(flag)) {
        Some(flag) => Err(Failure::input(format!("--{} has no use without --server", flag.replace('_', "-")))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn flags_of_a_server_need_one() {
        let refused = |more: &[&str]| {
            let args = ["simplemix", "generate", "--prompts", "p", "-o", "o"];
            let matches = crate::Cli::command().try_get_matches_from([&args[..], more].concat()).unwrap();
            refuse_server_flags(&matches).err().map(|error| error.message().unwrap())
        };
        let model = ["--model", "m"];
        assert_eq!(refused(&model), None);
        for (flag, value) in
            [("--concurrency", "4"), ("--logps", "true"), ("--server-model", "x"), ("--on-refused", "skip")]
        {
            let said = refused(&[&model[..], &[flag, value]].concat());
            assert_eq!(said.unwrap(), format!("{flag} has no use without --server"));
            assert_eq!(refused(&["--server", "http://localhost:1", flag, value]), None);
        }
    }

    fn refused(preset: &str, flag: &str, set: &str) -> Option<String> {
        let settings = PipelineSettings::resolve(Some(preset), None, toml::Table::new()).unwrap();
        let flags = ["--prompts", "--scorer", "--off-policy", "--size"].map(|known| (known, known == flag));
        refuse(&settings, &flags, &[set.to_owned()]).err().map(|error| error.message().unwrap())
    }

    #[test]
    fn flags_that_a_preset_does_not_use_are_refused() {
        let of = |preset, flag| refused(preset, flag, "");
        assert_eq!(of("off-policy", "--prompts").unwrap(), "--prompts has no use: no response is sampled: mix.on is 0");
        assert!(of("hypo", "--scorer").unwrap().starts_with("--scorer has no use"));
        let expected = "--off-policy has no use: no off-policy pair is taken: mix.off is 0";
        assert_eq!(of("on-policy", "--off-policy").unwrap(), expected);
        for (preset, flag) in [("simplemix", "--prompts"), ("simplemix", "--off-policy"), ("off-policy", "--size")] {
            assert_eq!(of(preset, flag), None, "{preset} {flag}");
        }
        let set = refused("off-policy", "", "collect.sampling.samples=8").unwrap();
        assert!(set.starts_with("--set collect.sampling.samples=8 has no use"), "{set}");
    }
}
