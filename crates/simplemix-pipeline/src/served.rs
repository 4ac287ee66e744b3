//! Rounds with a server: settings that fit each other, and the stages around a server that gets new weights.

use serde_json::{Value, json};
use simplemix_model::{LoadIn, LoraBias};
use simplemix_rollout::{
    GeneratorSettings, LocalSettings, PromptSettings, RoundModel, RoundSettings, ServerSettings, Servers, WeightsBy,
    WeightsSettings, YardstickSettings,
};

use crate::error::{Error, Result};
use crate::plan::{Job, Model, Planner, add_reading};
use crate::settings::{CollectSection, PipelineSettings, Sampler};

/// File of the own responses in the folder of a stage `yardstick`.
const YARDSTICK: &str = "own-responses.json";

/// Checks that server, weights and rounds fit each other.
pub(crate) fn check(settings: &PipelineSettings) -> Result<()> {
    let CollectSection { server, weights, sampler, .. } = &settings.collect;
    let has_address = |servers: &&Servers| servers.all().iter().any(|server| !server.url.is_empty());
    server.as_ref().filter(has_address).map_or(Ok(()), Servers::check)?;
    let refuse = |key: &str, found: &str, expected: &str| Err(Error::setting(key, found, expected));
    if *sampler == Sampler::MixP && (server.is_some() || weights.is_some()) {
        let key = if server.is_some() { "collect.server" } else { "collect.weights" };
        return refuse(key, "given", "none with the sampler `mix-p`, which mixes logits");
    }
    let Some(weights) = weights else {
        return match server {
            Some(_) if settings.rounds > 1 => refuse(
                "collect.server",
                "given, with several rounds",
                "`[collect.weights]` beside it, by which the server gets the weights of each round",
            ),
            _ => Ok(()),
        };
    };
    weights.check().map_err(of_collect)?;
    if !settings.collects() {
        return refuse("collect.weights", "given", "none: no response is sampled where `mix.on` is 0");
    }
    if server.as_ref().is_some_and(|servers| servers.all().len() > 1)
        && matches!(weights.by, WeightsBy::Command | WeightsBy::Serve)
    {
        let expected = "one server: the command of `weights` is not told which one it is for";
        return refuse("collect.server", "several servers", expected);
    }
    match (weights.by, server) {
        (WeightsBy::Serve, Some(servers)) if has_address(&servers) => {
            return refuse(
                "collect.server.url",
                "given",
                "none: `weights.by = \"serve\"` chooses the port of the server that it starts",
            );
        }
        (WeightsBy::Serve, _) => {}
        (_, None) => return refuse("collect.weights", "given", "`[collect.server]` with it, or `by = \"serve\"`"),
        (_, Some(_)) => {}
    }
    if weights.by == WeightsBy::Lora { check_lora(settings) } else { Ok(()) }
}

/// Refuses a training whose result is no adapter that servers load.
fn check_lora(settings: &PipelineSettings) -> Result<()> {
    let lora = &settings.train.lora;
    let refuse = |key: &str, found: String, expected: &str| Err(Error::setting(key, found, expected));
    if !lora.is_on() {
        let expected = "a rank above 0, for `collect.weights.by = \"lora\"`";
        return refuse("train.lora.rank", lora.rank.to_string(), expected);
    }
    let expected = "nothing that servers do not load: `collect.weights.by = \"lora\"` sends two matrices a layer";
    if lora.adapter.is_some() {
        return refuse(
            "train.lora.adapter",
            "given".to_owned(),
            "none with `collect.weights.by = \"lora\"`: the first model is the server's",
        );
    }
    if lora.dora {
        return refuse("train.lora.dora", "true".to_owned(), expected);
    }
    if lora.bias != LoraBias::None {
        return refuse("train.lora.bias", format!("`{}`", lora.bias.word()), expected);
    }
    if !lora.modules_to_save.is_empty() {
        return refuse("train.lora.modules_to_save", format!("{:?}", lora.modules_to_save), expected);
    }
    Ok(())
}

/// An error about a key under `collect`.
fn of_collect(error: simplemix_rollout::Error) -> Error {
    match error {
        simplemix_rollout::Error::Setting { key, found, expected } => {
            Error::setting(&format!("collect.{key}"), found, expected)
        }
        error => error.into(),
    }
}

/// The part of a key that stands for a server with the weights of a round. Addresses, limits of time and attempts, and places of
/// files change no response.
pub(crate) fn material(round: &RoundSettings) -> Value {
    let Some(ServerSettings { model, name, endpoint, on_refused, logps, extra, .. }) = round.server.all().first()
    else {
        return Value::Null;
    };
    let WeightsSettings { by, command, verify, .. } = &round.weights;
    json!({
        "round": {
            "model": model,
            "name": name,
            "endpoint": endpoint,
            "on_refused": on_refused,
            "logps": logps,
            "extra": extra,
            "by": by,
            "command": command,
            "verify": verify,
        }
    })
}

impl Planner<'_> {
    /// Sampling from a server that has `policy`: settings, and inputs beside the policy. With `verify` there is a stage before it,
    /// which makes the responses that the server's are compared with.
    pub(crate) fn round(
        &mut self,
        suffix: &str,
        policy: &Model,
        prompts: &PromptSettings,
        weights: &WeightsSettings,
    ) -> Result<(GeneratorSettings, Vec<String>)> {
        let server = self.config.collect.server.clone().unwrap_or_else(|| ServerSettings::new("").into());
        let is_other = |model: &&Model| model.key != policy.key;
        let before: Vec<Model> = self.served.iter().filter(is_other).cloned().collect();
        let mut inputs = Vec::new();
        let mut yardstick = None;
        if weights.verify {
            let stage = self.yardstick(format!("yardstick{suffix}"), policy, before.last(), prompts)?;
            inputs.push(self.key(stage));
            yardstick = Some(self.folder(stage).join(YARDSTICK));
        }
        // The first model is no adapter that a server could forget. With a lag two rounds may sample from one model.
        let trained = before.iter().filter(|model| !model.adapters.is_empty());
        let mut names: Vec<String> = trained.map(|model| self.model_name(model)).collect();
        names.dedup();
        let model = RoundModel {
            name: self.model_name(policy),
            folder: policy.path.clone(),
            adapters: policy.adapters.clone(),
            before: names,
            yardstick,
        };
        self.served.push(policy.clone());
        let server = server.map(|server| {
            let tokenizer = server.tokenizer.clone().or_else(|| Some(policy.path.clone()));
            ServerSettings { tokenizer, ..server }
        });
        Ok((GeneratorSettings::Round(Box::new(RoundSettings { server, weights: weights.clone(), model })), inputs))
    }

    /// Adds the stage that makes own responses of `policy`, with the view of the model that the server had before.
    fn yardstick(
        &mut self,
        name: String,
        policy: &Model,
        before: Option<&Model>,
        prompts: &PromptSettings,
    ) -> Result<usize> {
        // The server's weights are whole.
        let model = LocalSettings { name: None, load_in: LoadIn::None, ..self.local(policy) };
        let mut material = json!({ "prompts": self.prompts(prompts)? });
        add_reading(&mut material, &model);
        let mut inputs = vec![policy.key.as_str()];
        inputs.extend(before.map(|model| model.key.as_str()));
        let prompts = self.resolved(prompts)?;
        let before = before.map(|model| model.path.clone());
        self.add(name, material, &inputs, |folder| {
            let output = folder.join(YARDSTICK);
            Ok(Job::Yardstick(Box::new(YardstickSettings { prompts, model, before, output })))
        })
    }
}
