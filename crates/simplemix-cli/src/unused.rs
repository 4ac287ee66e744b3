//! Flags that are given in vain, which are refused: those of a server without one, and those of `simplemix run` that the
//! resolved settings have no use for.

use clap::ArgMatches;
use clap::parser::ValueSource;
use simplemix_pipeline::PipelineSettings;
use simplemix_rollout::Select;

use crate::failure::{Failure, Result};

const NO_ON_POLICY: &str = "no response is sampled: mix.on is 0";
const ONLY_FILES: &str = "the responses of all models of the pool are in files";
const NO_POLICY: &str = "the policy takes no part in the pool: no number of collect.pool.take names it";
const NO_SCORES: &str = "pairs are chosen by the models that wrote the responses, not by scores";
const BY_QUOTAS: &str = "collect.pool.take says how many responses each prompt has";
const NO_OFF_POLICY: &str = "no off-policy pair is taken: mix.off is 0";

/// Refuses flags that were given in vain. `sets` are the assignments of --set.
pub(crate) fn refuse(settings: &PipelineSettings, given: &[(&str, bool)], sets: &[String]) -> Result {
    let collects = !settings.mix.on.is_zero();
    let evaluates = settings.evaluate.prompts.is_some();
    let pool = settings.collect.pool.as_ref().filter(|_| collects);
    let by_names = collects && settings.collect.select.select == Select::Delta;
    let reason = |flag: &str| match flag {
        "--prompts" | "--server" | "--pool" if !collects => Some(NO_ON_POLICY),
        "--prompts" if pool.is_some_and(|pool| !pool.samples()) => Some(ONLY_FILES),
        "--server" if pool.is_some_and(|pool| !pool.has_policy()) => Some(NO_POLICY),
        // Scorers of collecting also score the evaluation's responses.
        "--scorer" if !collects && !evaluates => Some(NO_ON_POLICY),
        "--scorer" if by_names && !evaluates => Some(NO_SCORES),
        "--off-policy" if settings.mix.off.is_zero() => Some(NO_OFF_POLICY),
        _ => None,
    };
    let of_set = |text: &str| match text.trim_start().split('=').next().unwrap_or_default().trim_end() {
        key if key.starts_with("collect.") && !collects && !evaluates => Some(NO_ON_POLICY),
        "collect.sampling.samples" if pool.is_some_and(|pool| !pool.take.is_empty()) => Some(BY_QUOTAS),
        _ => None,
    };
    let flags = given.iter().filter(|(_, is_given)| *is_given).map(|(flag, _)| ((*flag).to_owned(), reason(flag)));
    let sets = sets.iter().map(|text| (format!("--set {text}"), of_set(text)));
    match flags.chain(sets).find_map(|(flag, reason)| Some((flag, reason?))) {
        Some((flag, reason)) => Err(Failure::input(format!("{flag} has no use: {reason}"))),
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
        let flags = ["--prompts", "--scorer", "--off-policy", "--server", "--size"].map(|known| (known, known == flag));
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
        assert_eq!(of("delta", "--prompts"), None);
        assert!(of("delta", "--scorer").unwrap().contains("not by scores"));
        assert!(of("delta-judged", "--server").unwrap().contains("the policy takes no part"));
        let set = refused("delta-judged", "", "collect.sampling.samples=8").unwrap();
        assert_eq!(set, format!("--set collect.sampling.samples=8 has no use: {BY_QUOTAS}"));
    }
}
