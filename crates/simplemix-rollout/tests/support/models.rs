//! Mock of vLLM and SGLang that has real, tiny models: it responds by their weights, takes adapters and whole models by the requests
//! of either server, and can go on with old weights in several ways.

#![allow(dead_code, reason = "each test file uses a part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use simplemix_data::{Message, PairTokenizer, Text, TokenizeOptions};
use simplemix_model::{CausalLm, GenerateOptions, Request, Sampling};

use crate::support::{Does, Mock, Seen};

/// Server whose requests are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Vllm,
    Sglang,
    /// No request about weights, and no log-probabilities: as `transformers serve`.
    Plain,
}

/// Way in which a server goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// New weights are accepted, and the first ones respond.
    KeepsOldWeights,
    /// New weights respond, under the name of the first ones.
    RespondsUnderOldName,
    /// Requests about weights do not exist.
    HasNoSuchRequest,
    /// The adapter's folder cannot be read.
    RefusesTheAdapter,
    /// Loading takes this many milliseconds.
    IsSlow(u64),
    /// Every request after one about weights finds nobody.
    DiesOfNewWeights,
}

/// Models by the names under which they are asked for; the first one is `first`.
#[derive(Debug)]
struct State {
    whole: PathBuf,
    adapters: BTreeMap<String, PathBuf>,
    is_dead: bool,
}

/// A response: token ids of the prompt, of itself, and log-probabilities.
type Response = (Vec<u32>, Vec<u32>, Vec<f32>);

/// Responses so far, by everything that they depend on: several tests and servers ask for the same ones.
static RESPONSES: Mutex<BTreeMap<String, Response>> = Mutex::new(BTreeMap::new());

/// The response of a folder's model, with an adapter over it, to the request.
fn response(whole: &Path, adapter: Option<&Path>, body: &Value) -> Response {
    let files = adapter.iter().map(|folder| folder.join("adapter_model.safetensors"));
    let weights = (
        simplemix_files::hash_model_folder(whole).unwrap(),
        simplemix_files::hash_files(files.collect::<Vec<_>>()).unwrap(),
    );
    let asked = ["messages", "max_tokens", "temperature", "seed"].map(|key| body[key].to_string());
    let key = format!("{weights:?} {asked:?}");
    if let Some(known) = RESPONSES.lock().unwrap().get(&key) {
        return known.clone();
    }
    let mut model = CausalLm::load(whole, tch::Kind::Float, tch::Device::Cpu).unwrap();
    if let Some(adapter) = adapter {
        model.load_adapter("a", adapter).unwrap();
        model = model.with_adapter(Some("a")).unwrap();
    }
    let tokenizer = PairTokenizer::from_dir(whole, TokenizeOptions::default()).unwrap();
    let turns: Vec<Message> = serde_json::from_value(body["messages"].clone()).unwrap();
    let prompt = tokenizer.encode_prompt(&Text::Messages(turns)).unwrap();
    let options = GenerateOptions {
        max_new_tokens: body["max_tokens"].as_u64().unwrap() as usize,
        stop_tokens: tokenizer.eos_ids().to_vec(),
        sampling: Sampling {
            temperature: body["temperature"].as_f64().unwrap(),
            seed: body["seed"].as_u64().unwrap_or_default(),
            ..Sampling::default()
        },
        ..GenerateOptions::default()
    };
    let request = Request { prompt: prompt.clone(), stream: 0 };
    let response = model.generate(&[request], &options, &mut |_, _| {}).unwrap().remove(0).remove(0);
    let response = (prompt, response.tokens, response.logps);
    RESPONSES.lock().unwrap().insert(key, response.clone());
    response
}

/// A server of tiny models.
pub(crate) struct ModelServer {
    pub(crate) mock: Mock,
    state: Arc<Mutex<State>>,
}

/// Name of the first model.
pub(crate) const FIRST: &str = "first";

impl ModelServer {
    pub(crate) fn start(folder: &Path, speaks: Speaks, fault: Fault) -> Self {
        Self::start_at(0, folder, speaks, fault)
    }

    pub(crate) fn start_at(port: u16, folder: &Path, speaks: Speaks, fault: Fault) -> Self {
        let state = State { whole: folder.to_owned(), adapters: BTreeMap::new(), is_dead: false };
        let state = Arc::new(Mutex::new(state));
        let shared = state.clone();
        let mock = Mock::start_at(port, move |seen| respond(seen, &shared, speaks, fault));
        Self { mock, state }
    }

    /// Names of the adapters that it has.
    pub(crate) fn adapters(&self) -> Vec<String> {
        self.state.lock().unwrap().adapters.keys().cloned().collect()
    }

    /// Paths of the requests about weights so far, each with the name or the last part of the folder that it is about.
    pub(crate) fn about_weights(&self) -> Vec<(String, String)> {
        let about = |seen: Seen| {
            let body = &seen.body;
            let subject = body["lora_name"].as_str().or(body["model_path"].as_str())?.to_owned();
            Some((seen.path, subject))
        };
        self.mock.seen().into_iter().filter_map(about).collect()
    }
}

fn sends(status: u16, body: &Value) -> Does {
    Does::Sends(status, vec![("content-type", "application/json".to_owned())], body.to_string())
}

fn respond(seen: &Seen, state: &Mutex<State>, speaks: Speaks, fault: Fault) -> Does {
    let path = seen.path.split('?').next().unwrap_or_default();
    if state.lock().unwrap().is_dead {
        return Does::HangsUp;
    }
    let of_vllm = speaks == Speaks::Vllm && path.starts_with("/v1/");
    let of_sglang = speaks == Speaks::Sglang && !path.starts_with("/v1/");
    let is_about_adapters = path.ends_with("load_lora_adapter") && (of_vllm || of_sglang);
    let is_about_disk = path == "/update_weights_from_disk" && of_sglang;
    match path {
        "/v1/models" => models(&state.lock().unwrap(), speaks),
        "/health" => sends(200, &json!({})),
        "/version" if speaks == Speaks::Vllm => sends(200, &json!({ "version": "0.17.0" })),
        "/v1/chat/completions" => chat(seen, state, speaks, fault),
        _ if is_about_adapters || is_about_disk => match fault {
            Fault::HasNoSuchRequest => sends(404, &json!({ "detail": "Not Found" })),
            Fault::IsSlow(wait) => {
                Does::Waits(Duration::from_millis(wait), Box::new(new_weights(seen, state, speaks, path, fault)))
            }
            _ => new_weights(seen, state, speaks, path, fault),
        },
        _ => sends(404, &json!({ "detail": "Not Found" })),
    }
}

fn models(state: &State, speaks: Speaks) -> Does {
    let owner = match speaks {
        Speaks::Vllm => "vllm",
        Speaks::Sglang => "sglang",
        Speaks::Plain => "someone",
    };
    let mut all = vec![json!({ "id": FIRST, "owned_by": owner, "parent": null })];
    if speaks == Speaks::Vllm {
        all.extend(state.adapters.keys().map(|name| json!({ "id": name, "owned_by": owner, "parent": FIRST })));
    }
    sends(200, &json!({ "object": "list", "data": all }))
}

/// vLLM replies in words, SGLang by `success`.
fn new_weights(seen: &Seen, state: &Mutex<State>, speaks: Speaks, path: &str, fault: Fault) -> Does {
    let mut state = state.lock().unwrap();
    state.is_dead = fault == Fault::DiesOfNewWeights;
    let text = |key: &str| seen.body[key].as_str().unwrap_or_default().to_owned();
    let fails = |status: u16, words: &str| match speaks {
        Speaks::Vllm => sends(status, &json!({ "error": { "message": words, "code": status } })),
        _ => sends(400, &json!({ "success": false, "error_message": words })),
    };
    let succeeds = || match speaks {
        Speaks::Vllm => Does::Sends(200, vec![], "Success: done.".to_owned()),
        _ => sends(200, &json!({ "success": true, "message": "Succeeded." })),
    };
    let name = text("lora_name");
    if path == "/update_weights_from_disk" {
        if fault != Fault::KeepsOldWeights {
            state.whole = PathBuf::from(text("model_path"));
        }
        return succeeds();
    }
    if path.ends_with("unload_lora_adapter") {
        return match state.adapters.remove(&name) {
            Some(_) => succeeds(),
            None => fails(404, &format!("The lora adapter '{name}' cannot be found.")),
        };
    }
    let folder = PathBuf::from(text("lora_path"));
    if fault == Fault::RefusesTheAdapter || !folder.join("adapter_config.json").is_file() {
        return fails(404, &format!("No adapter found for {name}"));
    }
    match state.adapters.insert(name.clone(), folder) {
        Some(_) => fails(400, &format!("The lora adapter '{name}' has already been loaded.")),
        None => succeeds(),
    }
}

/// A response by the weights that are asked for: token by token, with log-probabilities.
fn chat(seen: &Seen, state: &Mutex<State>, speaks: Speaks, fault: Fault) -> Does {
    let asked = seen.body["model"].as_str().unwrap_or_default();
    let (whole, adapter) = {
        let state = state.lock().unwrap();
        let name = if speaks == Speaks::Sglang { asked.rsplit(':').next().unwrap_or_default() } else { asked };
        let adapter = state.adapters.get(name).cloned();
        if adapter.is_none() && speaks == Speaks::Vllm && name != FIRST {
            return sends(404, &json!({ "error": { "message": format!("The model `{name}` does not exist.") } }));
        }
        (state.whole.clone(), adapter.filter(|_| fault != Fault::KeepsOldWeights))
    };
    let (prompt, tokens, logps) = response(&whole, adapter.as_deref(), &seen.body);
    let tokenizer = PairTokenizer::from_dir(&whole, TokenizeOptions::default()).unwrap();
    let text_of = |id: u32| tokenizer.inner().decode(&[id], false).unwrap();
    let token = |(&id, &logp): (&u32, &f32)| json!({ "token": text_of(id), "logprob": logp, "top_logprobs": [] });
    let content: Vec<Value> = tokens.iter().zip(&logps).map(token).collect();
    let name = if fault == Fault::RespondsUnderOldName { FIRST } else { asked };
    let mut body = json!({
        "id": format!("r{}", seen.number), "model": name,
        "choices": [{
            "index": 0, "finish_reason": "stop",
            "message": { "role": "assistant", "content": tokenizer.decode(&tokens).unwrap() },
        }],
        "usage": { "prompt_tokens": prompt.len(), "completion_tokens": tokens.len() },
    });
    if speaks != Speaks::Plain {
        body["choices"][0]["logprobs"] = json!({ "content": content });
    }
    if speaks == Speaks::Vllm && seen.body["return_token_ids"] == true {
        body["prompt_token_ids"] = json!(prompt);
        body["choices"][0]["token_ids"] = json!(tokens);
    }
    sends(200, &body)
}
