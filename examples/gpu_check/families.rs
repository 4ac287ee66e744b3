//! Golden files of every model family, of adapters and of reward models: hidden states, logits, gradients, greedy tokens, scores.
//! In f32 they are held to transformers' and peft's numbers, in bf16 to the CPU's in f32 with the same weights.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use simplemix::model::{CausalLm, GenerateOptions, Packed, Request, RewardModel, Sampling, Targets};
use simplemix::tch::{self, Device, Kind, Tensor};
use simplemix::torch::device::to_device;

use crate::Setting;
use crate::goldens::{ids, numbers, read};
use crate::numbers::{norm_off, off, values};
use crate::report::{Found, Report};

/// Bound on differences relative to the largest value, as the tests on a CPU have it.
const FLOAT: f64 = 1e-4;
/// Bounds on norms of differences: hidden states and logits; gradients.
const HALF: [f64; 2] = [8e-2, 1.6e-1];

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    let place = setting.device;
    let families = setting.golden.join("families");
    for name in folders(&families)? {
        let folder = families.join(&name);
        report.check(&format!("family {name}"), "tiny", Kind::Float, || family(&folder, place))?;
        report.check(&format!("family {name}"), "tiny", Kind::BFloat16, || in_half(&folder, place))?;
        if folder.join("reward").is_dir() {
            report.check(&format!("reward model {name}"), "tiny", Kind::Float, || reward(&folder, place))?;
        }
    }
    let adapters = setting.golden.join("lora");
    for name in folders(&adapters)? {
        report.check(&format!("adapter {name}"), "tiny", Kind::Float, || {
            adapter(&adapters.join(&name), &families, place)
        })?;
    }
    Ok(())
}

fn folders(parent: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(parent).with_context(|| format!("cannot read {}", parent.display()))?;
    let mut names: Vec<String> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    ensure!(!names.is_empty(), "{}: no golden files", parent.display());
    names.sort();
    Ok(names)
}

/// Negative log-probability of all tokens after the first, with the gradients of the trained weights.
fn backward(model: &CausalLm, ids: &[u32], is_checkpointed: bool) -> Result<f64> {
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    let first = packed.push(&ids[..1])?;
    packed.push_response(first, &ids[1..], &mut targets)?;
    for (_, tensor) in model.trainable_parameters() {
        tensor.shallow_clone().zero_grad();
    }
    let loss = |hidden: &Tensor| -> Result<Tensor> {
        let place = model.device();
        let rows = hidden.index_select(0, &to_device(&Tensor::from_slice(&targets.rows), place)?);
        let logps = model.logits(&rows)?.log_softmax(-1, Kind::Float);
        let tokens = to_device(&Tensor::from_slice(&targets.tokens), place)?.unsqueeze(1);
        Ok(-logps.gather(1, &tokens, false).sum(Kind::Float))
    };
    if is_checkpointed {
        let pass = model.checkpointed(&packed)?;
        let loss = loss(pass.hidden())?;
        loss.f_backward()?;
        pass.backward()?;
        return Ok(loss.double_value(&[]));
    }
    let loss = loss(&model.hidden_states(&packed)?)?;
    loss.f_backward()?;
    Ok(loss.double_value(&[]))
}

fn whole(ids: &[u32]) -> simplemix::model::Result<Packed> {
    let mut packed = Packed::new();
    packed.push(ids)?;
    Ok(packed)
}

/// Logits after the last token.
fn last_logits(model: &CausalLm, ids: &[u32]) -> Result<Tensor> {
    let hidden = tch::no_grad(|| model.hidden_states(&whole(ids)?))?;
    Ok(tch::no_grad(|| model.logits(&hidden.narrow(0, ids.len() as i64 - 1, 1)))?)
}

fn greedy(model: &CausalLm, ids: &[u32]) -> Result<Vec<f64>> {
    let options =
        GenerateOptions { max_new_tokens: 12, sampling: Sampling::GREEDY, batch_rows: 4, ..GenerateOptions::default() };
    // Beside a longer prompt, so that rows of the cache start in different columns.
    let longer = [ids, &ids[..5]].concat();
    let requests = [Request { prompt: longer, stream: 1 }, Request { prompt: ids.to_vec(), stream: 0 }];
    let answers = tch::no_grad(|| model.generate(&requests, &options, &mut |_, _| {}))?;
    Ok(answers[1][0].tokens.iter().map(|&token| f64::from(token)).collect())
}

/// A gradient's norm, and its product with the golden script's direction.
fn summary(gradient: &Tensor) -> Vec<f64> {
    let count = gradient.numel() as i64;
    let direction = Tensor::arange(count, (Kind::Double, Device::Cpu)).cos();
    let gradient = Tensor::from_slice(&values(gradient));
    vec![gradient.norm().double_value(&[]), gradient.dot(&direction).double_value(&[])]
}

fn family(folder: &Path, place: Device) -> Result<Found> {
    let golden = read(&folder.join("golden.json"))?;
    let ids = ids(&golden["ids"]);
    let model = CausalLm::load(folder, Kind::Float, place)?;
    model.set_trainable(true);
    let mut errors = Vec::new();
    for is_checkpointed in [false, true] {
        let loss = backward(&model, &ids, is_checkpointed)?;
        errors.push(off(&[loss], &numbers(&Value::Array(vec![golden["loss"].clone()]))));
        for (name, tensor) in &model.trainable_parameters() {
            errors.push(off(&summary(&tensor.grad()), &numbers(&golden["gradients"][name])));
        }
    }
    let states = tch::no_grad(|| model.layer_states(&whole(&ids)?))?;
    let layers = golden["layers"].as_array().context("no layers in golden.json")?;
    ensure!(states.len() == layers.len(), "{} hidden states, expected {}", states.len(), layers.len());
    errors.extend(states.iter().zip(layers).map(|(found, wanted)| off(&values(found), &numbers(wanted))));
    errors.push(off(&values(&last_logits(&model, &ids)?), &numbers(&golden["last_logits"])));
    let (found, wanted) = (greedy(&model, &ids)?, numbers(&golden["greedy"]));
    ensure!(found == wanted, "greedy tokens are {found:?}, expected {wanted:?}");
    Ok(Found::within(FLOAT, errors))
}

/// Weights rounded to bf16, on the device in bf16 and on the CPU in f32.
fn in_half(folder: &Path, place: Device) -> Result<Found> {
    let ids = ids(&read(&folder.join("golden.json"))?["ids"]);
    let dir = tempfile::tempdir()?;
    let rounded = dir.path().join("rounded");
    CausalLm::load(folder, Kind::BFloat16, Device::Cpu)?.save(&rounded, None)?;
    let ours = CausalLm::load(&rounded, Kind::BFloat16, place)?;
    let exact = CausalLm::load(&rounded, Kind::Float, Device::Cpu)?;
    for model in [&ours, &exact] {
        model.set_trainable(true);
        backward(model, &ids, false)?;
    }
    let gradients = |model: &CausalLm| {
        let trained = model.trainable_parameters();
        let all = trained.iter().map(|(_, tensor)| Tensor::from_slice(&values(&tensor.grad())));
        Tensor::cat(&all.collect::<Vec<_>>(), 0)
    };
    let logits = norm_off(&last_logits(&ours, &ids)?, &last_logits(&exact, &ids)?);
    let hidden = |model: &CausalLm| tch::no_grad(|| model.hidden_states(&whole(&ids)?));
    let hidden = norm_off(&hidden(&ours)?, &hidden(&exact)?);
    let gradient = norm_off(&gradients(&ours), &gradients(&exact));
    let found = Found::within(HALF[0], [logits, hidden, gradient * HALF[0] / HALF[1]]);
    Ok(found.note("logits", logits).note("hidden", hidden).note("gradients", gradient))
}

fn reward(folder: &Path, place: Device) -> Result<Found> {
    let golden = read(&folder.join("golden.json"))?;
    let model = RewardModel::load(&folder.join("reward"), Kind::Float, place)?;
    let sequences: Vec<Vec<u32>> = golden["rewards"]["ids"].as_array().into_iter().flatten().map(ids).collect();
    let sequences: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
    Ok(Found::within(FLOAT, [off(&model.score(&sequences)?, &numbers(&golden["rewards"]["scores"]))]))
}

/// peft's numbers of a reward model's adapter.
fn reward_adapter(folder: &Path, base: &Path, golden: &Value, place: Device) -> Result<Found> {
    let ids = ids(&golden["ids"]);
    let mut model = RewardModel::on_top_of(CausalLm::load(base, Kind::Float, place)?)?;
    model.load_adapter(folder)?;
    let mut errors = vec![off(&model.score(&[&ids])?, &numbers(&golden["last_logits"]))];
    model.set_trainable(true);
    model.scores(&whole(&ids)?, &[ids.len() as i64 - 1])?.sum(Kind::Float).backward();
    errors.extend(gradients_off(&model.trainable_parameters(), golden)?);
    Ok(Found::within(FLOAT, errors))
}

/// Differences of the gradients' norms.
fn gradients_off(parameters: &[(String, Tensor)], golden: &Value) -> Result<Vec<f64>> {
    let difference = |(name, tensor): &(String, Tensor)| {
        let wanted = golden["gradient_norms"][name].as_f64().with_context(|| format!("no gradient of {name}"))?;
        Ok((tensor.grad().norm().double_value(&[]) - wanted).abs() / wanted.max(1.0))
    };
    parameters.iter().map(difference).collect()
}

/// peft's numbers, merged and not.
fn adapter(folder: &Path, families: &Path, place: Device) -> Result<Found> {
    let golden = read(&folder.join("golden.json"))?;
    let ids = ids(&golden["ids"]);
    let base = families.join(golden["model"].as_str().context("no model in golden.json")?);
    if read(&folder.join("adapter_config.json"))?["task_type"] == "SEQ_CLS" {
        return reward_adapter(folder, &base, &golden, place);
    }
    let mut model = CausalLm::load(&base, Kind::Float, place)?;
    model.load_adapter("default", folder)?;
    let policy = model.with_adapter(Some("default"))?;
    let logits = numbers(&golden["last_logits"]);
    let mut errors = vec![off(&values(&last_logits(&policy, &ids)?), &logits)];
    policy.set_trainable(true);
    let loss = backward(&policy, &ids, true)?;
    errors.push(off(&[loss], &[golden["loss"].as_f64().context("no loss in golden.json")?]));
    errors.extend(gradients_off(&policy.trainable_parameters(), &golden)?);
    errors.push(off(&values(&last_logits(&policy.merged()?, &ids)?), &logits));
    Ok(Found::within(FLOAT, errors))
}
