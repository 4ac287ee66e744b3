//! Attention routes against each other: hidden states of shared prompts and gradients of all weights.

use std::path::Path;

use anyhow::Result;
use simplemix::model::{AttentionRoute, CausalLm, Packed, Targets};
use simplemix::tch::{Device, Kind, Tensor};
use simplemix::torch::backward;
use simplemix::torch::device::to_device;

use crate::Setting;
use crate::numbers::{norm_off, random};
use crate::report::{Found, Report, timed};
use crate::shapes::{Shape, random_model};

const ROUTES: [(AttentionRoute, &str); 3] =
    [(AttentionRoute::Masked, "masked"), (AttentionRoute::Runs, "runs"), (AttentionRoute::Varlen, "varlen")];
/// Grouped heads, windows, windows of some layers, one head width of their own.
const FAMILIES: [&str; 4] = ["llama_tied", "mistral_window", "qwen2_window", "gemma3"];

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    let (place, families) = (setting.device, setting.golden.join("families"));
    for kind in [Kind::Float, Kind::BFloat16] {
        for name in FAMILIES {
            report.check(&format!("routes of {name}"), "tiny", kind, || agree(&load(&families, name, kind, place)?))?;
        }
        if kind == Kind::BFloat16 && place == Device::Cpu {
            // A CPU without matrix units for bf16 takes seconds, and has no kernel of its own to show.
            continue;
        }
        // Heads as wide as kernels of GPUs are made for.
        let shape = Shape::Small;
        report.check("routes of a random model", &shape.text(), kind, || {
            agree(&random_model(&shape.config()?, kind, place)?)
        })?;
    }
    Ok(())
}

fn load(families: &Path, name: &str, kind: Kind, place: Device) -> Result<CausalLm> {
    Ok(CausalLm::load(&families.join(name), kind, place)?)
}

/// Three prompts, one with three responses.
fn packed(vocabulary: i64) -> Result<(Packed, Targets)> {
    let (mut packed, mut targets) = (Packed::new(), Targets::default());
    let ids = |from: u32, count: u32| -> Vec<u32> {
        (0..count).map(|at| (from + 5 * at) % (vocabulary as u32 - 1) + 1).collect()
    };
    for (at, responses) in [(0, &[12u32, 25, 7][..]), (1, &[1, 30]), (2, &[40, 9])] {
        let prompt = packed.push(&ids(3 * at + 1, 9 + 4 * at))?;
        for &count in responses {
            packed.push_response(prompt, &ids(at + count, count), &mut targets)?;
        }
    }
    Ok((packed, targets))
}

fn agree(model: &CausalLm) -> Result<Found> {
    let is_half = model.kind() == Kind::BFloat16;
    let mut found = Found::told();
    let mut all = Vec::new();
    for (route, name) in ROUTES {
        let mut model = model.with_adapter(None)?;
        model.set_attention_route(route);
        let (results, ms) = timed(model.device(), || pass(&model))?;
        found = found.note(&format!("{name}_ms"), ms);
        all.push(results);
    }
    let errors: Vec<f64> = all[1..]
        .iter()
        .flat_map(|other| other.iter().zip(&all[0]).map(|(other, masked)| norm_off(other, masked)))
        .collect();
    Ok(found.hold(if is_half { 3e-2 } else { 1e-5 }, errors))
}

/// Hidden states of the scored rows, and the gradients of all weights as one vector.
fn pass(model: &CausalLm) -> Result<Vec<Tensor>> {
    model.set_trainable(true);
    for (_, tensor) in model.trainable_parameters() {
        tensor.shallow_clone().zero_grad();
    }
    let (packed, targets) = packed(model.config().vocab_size)?;
    let hidden = model.hidden_states(&packed)?;
    let rows = hidden.index_select(0, &to_device(&Tensor::from_slice(&targets.rows), model.device())?);
    backward(&[&rows], &[&random(&rows.size(), model.kind(), model.device(), 5)])?;
    let gradients: Vec<Tensor> = model
        .named_parameters()
        .iter()
        .map(|(_, tensor)| tensor.grad())
        .filter(Tensor::defined)
        .map(|gradient| gradient.to_kind(Kind::Float).flatten(0, -1))
        .collect();
    Ok(vec![rows.detach(), Tensor::cat(&gradients, 0)])
}
