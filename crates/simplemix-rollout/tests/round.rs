//! New weights for servers: those that take them, and those that go on with old ones in every way.

#![cfg(all(feature = "local", feature = "server"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/models.rs"]
mod models;
mod support;

use std::path::PathBuf;

use models::{FIRST, Fault, ModelServer, Speaks};
use simplemix_data::{Unwatched, Watch};
use simplemix_model::{CausalLm, LoraConfig, tiny};
use simplemix_rollout::{
    Error, Evidence, GenerateSettings, GeneratorSettings, LocalSettings, PromptSettings, RoundModel, RoundSettings,
    SamplingConfig, Served, ServerSettings, WeightsBy, WeightsSettings, YardstickSettings, generate, measure,
    put_weights,
};
use tch::{Device, Kind};

/// A first model, one with an adapter over it that is merged too, and the yardstick of the second.
struct Round {
    dir: tempfile::TempDir,
}

impl Round {
    fn new() -> Self {
        let round = Self { dir: tempfile::tempdir().unwrap() };
        tiny::write_folder(&round.path("first"), 3).unwrap();
        round.train("first", "adapter", "second", 5);
        let rows: Vec<String> = (0..12)
            .map(|i| format!(r#"{{"prompt": [{{"role": "user", "content": "What is {i} + {i}?"}}]}}"#))
            .collect();
        std::fs::write(round.path("prompts.jsonl"), rows.join("\n")).unwrap();
        round
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes an adapter of `model` with numbers of its own, and what it makes of the model.
    fn train(&self, model: &str, adapter: &str, merged: &str, seed: u64) {
        let mut model = CausalLm::load(&self.path(model), Kind::Float, Device::Cpu).unwrap();
        model.add_adapter("a", LoraConfig { rank: 2, alpha: 3.0, ..LoraConfig::default() }, seed).unwrap();
        let model = model.with_adapter(Some("a")).unwrap();
        for (at, (name, tensor)) in model.trainable_parameters().iter().enumerate() {
            if name.contains("lora_B") {
                let waves = tensor.ones_like().cumsum(0, Kind::Float) * (0.7 + at as f64) + seed as f64;
                tch::no_grad(|| tensor.shallow_clone().copy_(&(waves.sin() * 0.2)));
            }
        }
        model.save_adapter("a", &self.path(adapter), None).unwrap();
        model.save_merged(&self.path(merged), Some(&self.path("first"))).unwrap();
    }

    fn prompts(&self) -> PromptSettings {
        PromptSettings { files: vec![self.path("prompts.jsonl")], ..PromptSettings::default() }
    }

    /// The round's model, with its yardstick.
    fn model(&self, folder: &str, adapters: &[&str], before: Option<&str>) -> RoundModel {
        let output = self.path(&format!("own-{folder}.json"));
        let local =
            LocalSettings { device: simplemix_model::DeviceChoice::Cpu, ..LocalSettings::new(self.path(folder)) };
        let settings = YardstickSettings {
            prompts: self.prompts(),
            model: local,
            before: before.map(|name| self.path(name)),
            output: output.clone(),
        };
        measure(&settings, &mut Unwatched).unwrap();
        RoundModel {
            name: format!("{folder}-0a"),
            folder: self.path(folder),
            adapters: adapters.iter().map(|name| self.path(name)).collect(),
            before: before.iter().map(|name| format!("{name}-0a")).collect(),
            yardstick: Some(output),
        }
    }

    fn put(&self, server: &ModelServer, weights: &WeightsSettings, model: &RoundModel) -> Result<Served, Error> {
        put_weights(&settings(server), weights, model, self.dir.path(), &mut Unwatched)
    }
}

fn settings(server: &ModelServer) -> ServerSettings {
    ServerSettings {
        api_key_env: "SIMPLEMIX_TEST_NO_KEY".to_owned(),
        retries: 1,
        max_wait_secs: 0.02,
        ..ServerSettings::new(server.mock.url())
    }
}

fn weights(by: WeightsBy) -> WeightsSettings {
    WeightsSettings { timeout_secs: 20.0, ..WeightsSettings::new(by) }
}

#[test]
fn an_adapter_is_loaded_verified_and_unloaded() {
    let round = Round::new();
    let model = round.model("second", &["adapter"], Some("first"));
    for (speaks, asked, prefix) in [(Speaks::Vllm, "second-0a", "/v1"), (Speaks::Sglang, "first:second-0a", "")] {
        let server = ModelServer::start(&round.path("first"), speaks, Fault::None);
        let served = round.put(&server, &weights(WeightsBy::Lora), &model).unwrap();
        assert_eq!(served.settings.model.as_deref(), Some(asked));
        let report = &served.report;
        assert_eq!((report.evidence, report.by.as_str()), (Evidence::LogProbabilities, "lora"), "{report:?}");
        assert!((report.share.unwrap() - 1.0).abs() < 0.01 && report.difference.unwrap() < 1e-3, "{report:?}");
        assert!(report.difference_to_before.unwrap() > 0.01 && report.compared_tokens > 32, "{report:?}");
        assert_eq!(server.adapters(), ["second-0a"]);
        // A collection that goes on after a kill finds the adapter there.
        let again = round.put(&server, &weights(WeightsBy::Lora), &model).unwrap();
        assert_eq!(again.report.evidence, Evidence::LogProbabilities);
        again.end(&mut Unwatched);
        assert_eq!(server.adapters(), Vec::<String>::new());
        assert!(server.about_weights().contains(&(format!("{prefix}/unload_lora_adapter"), "second-0a".to_owned())));
    }
}

/// The third model is two adapters away from the first, which the server has: they become one.
#[test]
fn adapters_of_several_rounds_are_one_and_older_ones_go() {
    let round = Round::new();
    round.train("second", "later", "third", 11);
    let server = ModelServer::start(&round.path("first"), Speaks::Vllm, Fault::None);
    let logs = round.path("logs");
    std::fs::create_dir(&logs).unwrap();
    // Left by a run that was killed.
    std::mem::forget(
        round.put(&server, &weights(WeightsBy::Lora), &round.model("second", &["adapter"], Some("first"))).unwrap(),
    );
    let model = RoundModel {
        before: vec!["first-0a".into(), "second-0a".into()],
        ..round.model("third", &["adapter", "later"], Some("second"))
    };
    let served = put_weights(&settings(&server), &weights(WeightsBy::Lora), &model, &logs, &mut Unwatched).unwrap();
    assert_eq!(served.report.evidence, Evidence::LogProbabilities, "{:?}", served.report);
    assert!(served.report.difference.unwrap() < 1e-3, "{:?}", served.report);
    assert_eq!(server.adapters(), ["third-0a"]);
    assert_eq!(LoraConfig::from_folder(&logs.join("adapter")).unwrap().rank, 4);
}

#[test]
fn a_server_with_other_weights_is_an_error_with_both_numbers() {
    let round = Round::new();
    let lora = round.model("second", &["adapter"], Some("first"));
    let said = |speaks, fault, by, model: &RoundModel| {
        let server = ModelServer::start(&round.path("first"), speaks, fault);
        let error = round.put(&server, &weights(by), model).unwrap_err();
        assert!(matches!(error, Error::Weights { .. }), "{error:?}");
        error.to_string()
    };
    for (speaks, by) in
        [(Speaks::Vllm, WeightsBy::Lora), (Speaks::Sglang, WeightsBy::Lora), (Speaks::Sglang, WeightsBy::Disk)]
    {
        let old = said(speaks, Fault::KeepsOldWeights, by, &lora);
        assert!(old.contains("responds by old weights: ") && old.contains("expected "), "{old}");
        assert!(old.contains("mean log-probability -") || old.contains("go along with the model before"), "{old}");
    }
    let name = said(Speaks::Vllm, Fault::RespondsUnderOldName, WeightsBy::Lora, &lora);
    assert!(
        name.contains("responses are those of the model `first`, expected the model that was asked for, `second-0a`"),
        "{name}"
    );
    let none = said(Speaks::Vllm, Fault::HasNoSuchRequest, WeightsBy::Lora, &lora);
    assert!(
        none.contains("has no request `load_lora_adapter`") && none.contains("VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
        "{none}"
    );
    let refused = said(Speaks::Sglang, Fault::RefusesTheAdapter, WeightsBy::Lora, &lora);
    assert!(
        refused.contains("refuses `load_lora_adapter`: status 400") && refused.contains("--enable-lora"),
        "{refused}"
    );
    // The server has a model of other weights altogether.
    tiny::write_folder(&round.path("stranger"), 77).unwrap();
    let server = ModelServer::start(&round.path("stranger"), Speaks::Sglang, Fault::KeepsOldWeights);
    let stranger = round.put(&server, &weights(WeightsBy::Disk), &lora).unwrap_err().to_string();
    assert!(
        stranger.contains("tokens of its likeliest responses are the model's") || stranger.contains("other weights"),
        "{stranger}"
    );
}

#[test]
fn a_server_that_dies_or_takes_too_long_is_told() {
    let round = Round::new();
    let model = round.model("second", &["adapter"], Some("first"));
    let server = ModelServer::start(&round.path("first"), Speaks::Vllm, Fault::DiesOfNewWeights);
    let dead = round.put(&server, &weights(WeightsBy::Lora), &model).unwrap_err();
    assert!(matches!(dead, Error::Server { status: None, .. }), "{dead:?}");
    let slow = ModelServer::start(&round.path("first"), Speaks::Vllm, Fault::IsSlow(400));
    assert!(round.put(&slow, &weights(WeightsBy::Lora), &model).is_ok());
    let slow = ModelServer::start(&round.path("first"), Speaks::Vllm, Fault::IsSlow(1500));
    let short = WeightsSettings { timeout_secs: 0.3, ..weights(WeightsBy::Lora) };
    let late = round.put(&slow, &short, &model).unwrap_err().to_string();
    assert!(late.contains("`load_lora_adapter` failed: no whole reply within 0.3 s"), "{late}");
}

#[test]
fn whole_models_are_read_from_disk_by_sglang_alone() {
    let round = Round::new();
    let model = round.model("second", &[], Some("first"));
    let server = ModelServer::start(&round.path("first"), Speaks::Sglang, Fault::None);
    let served = round.put(&server, &weights(WeightsBy::Disk), &model).unwrap();
    assert_eq!((served.report.evidence, served.settings.model.as_deref()), (Evidence::LogProbabilities, Some(FIRST)));
    let server = ModelServer::start(&round.path("first"), Speaks::Vllm, Fault::None);
    let error = round.put(&server, &weights(WeightsBy::Disk), &model).unwrap_err();
    assert!(
        error.is_input() && error.to_string().contains("which has no request that reads a model from a folder"),
        "{error}"
    );
    let unknown = ModelServer::start(&round.path("first"), Speaks::Plain, Fault::None);
    let error = round.put(&unknown, &weights(WeightsBy::Disk), &model).unwrap_err().to_string();
    assert!(error.contains("does not say what software it is") && error.contains("`weights.software`"), "{error}");
}

/// The command is what takes the model to the server; here it copies the folder over the one that the server reads.
#[test]
fn a_command_takes_the_model_to_the_server() {
    let round = Round::new();
    let model = round.model("second", &[], Some("first"));
    std::fs::create_dir(round.path("there")).unwrap();
    let copy = |from: &str| {
        for entry in std::fs::read_dir(round.path(from)).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), round.path("there").join(entry.file_name())).unwrap();
        }
    };
    copy("first");
    let server = ModelServer::start(&round.path("there"), Speaks::Plain, Fault::None);
    let by = |command: &str| WeightsSettings {
        command: Some(command.to_owned()),
        timeout_secs: 5.0,
        ..weights(WeightsBy::Command)
    };
    let line = format!("echo {{name}} $SIMPLEMIX_NAME; cp {{model}}/* {}", round.path("there").display());
    let served = round.put(&server, &by(&line), &model).unwrap();
    // This server tells no log-probabilities.
    assert_eq!(served.report.evidence, Evidence::Texts, "{:?}", served.report);
    assert_eq!(std::fs::read_to_string(round.path("weights.log")).unwrap(), "second-0a second-0a\n");
    copy("first");
    let nothing = round.put(&server, &by("true {model}"), &model).unwrap_err().to_string();
    assert!(
        nothing.contains("responds by old weights: its likeliest responses go along with the model before"),
        "{nothing}"
    );
    let failed = round.put(&server, &by("echo no such host >&2; test -z {model}"), &model).unwrap_err();
    let text = failed.to_string();
    assert!(
        matches!(failed, Error::ServerProcess { .. }) && text.contains("exit code 1") && text.contains("no such host"),
        "{text}"
    );
    let short = WeightsSettings { timeout_secs: 0.3, ..by("sleep 30; echo {model}") };
    let late = round.put(&server, &short, &model).unwrap_err().to_string();
    assert!(late.contains("has not ended after 0.3 s"), "{late}");
    let unverified = WeightsSettings { verify: false, ..by("true {model}") };
    let report = round.put(&server, &unverified, &model).unwrap().report;
    assert_eq!(report.evidence, Evidence::NotVerified);
    assert!(report.notices[0].contains("not verified"), "{:?}", report.notices);
}

#[test]
fn a_server_that_does_not_start_is_told_with_its_last_words() {
    let round = Round::new();
    let model = round.model("first", &[], None);
    let serve = |command: &str, timeout_secs| {
        let weights = WeightsSettings { command: Some(command.to_owned()), timeout_secs, ..weights(WeightsBy::Serve) };
        put_weights(&ServerSettings::new(""), &weights, &model, round.dir.path(), &mut Unwatched)
            .unwrap_err()
            .to_string()
    };
    let ended = serve("echo out of memory on $CUDA_VISIBLE_DEVICES {port}; exit 7 # {model}", 20.0);
    assert!(ended.contains("has ended with exit code 7") && ended.contains("out of memory on"), "{ended}");
    let late = serve("echo loading; sleep 60 # {model} {port}", 0.6);
    assert!(
        late.contains("is not ready after 0.6 s, the limit `weights.timeout_secs`") && late.contains("loading"),
        "{late}"
    );
}

/// Responses are those of the round, and a server at another address goes on with what is kept.
#[test]
fn a_collection_goes_on_at_another_address() {
    let round = Round::new();
    let model = round.model("second", &["adapter"], Some("first"));
    let generate_by = |server: &ModelServer, output: &str, watch: &mut dyn Watch| {
        let settings =
            RoundSettings { server: settings(server).into(), weights: weights(WeightsBy::Lora), model: model.clone() };
        let by = GeneratorSettings::Round(Box::new(settings));
        let settings = GenerateSettings {
            prompts: round.prompts(),
            sampling: SamplingConfig { samples: 2, max_new_tokens: 4, ..SamplingConfig::simplemix() },
            output: round.path(output),
            overwrite: false,
            share: None,
        };
        let mut generator = by.open_for(&settings.output)?;
        generate(&settings, generator.as_mut(), watch)
    };
    let server = || ModelServer::start(&round.path("first"), Speaks::Vllm, Fault::None);
    generate_by(&server(), "whole.parquet", &mut Unwatched).unwrap();
    /// Stops when a few responses are there.
    #[derive(Default)]
    struct Stops(u64);
    impl Watch for Stops {
        fn progress(&mut self, stage: &str, done: u64, _: u64) {
            self.0 = if stage == "generate" { done } else { 0 };
        }
        fn is_interrupted(&self) -> bool {
            self.0 >= 5
        }
    }
    let stopped = generate_by(&server(), "cut.parquet", &mut Stops::default());
    assert!(matches!(stopped, Err(Error::Interrupted)), "{stopped:?}");
    let second = server();
    generate_by(&second, "cut.parquet", &mut Unwatched).unwrap();
    let sampled = second.mock.seen().iter().filter(|seen| seen.body["seed"].is_u64()).count();
    assert!(sampled < 24, "{sampled} of 24 samples again");
    let bytes = |name: &str| std::fs::read(round.path(name)).unwrap();
    assert!(bytes("whole.parquet") == bytes("cut.parquet"));
}
