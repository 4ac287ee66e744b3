//! Matrices of an adapter: made, loaded, added to a layer's output, and dropped inputs in training.
//!
//! Letters: r rank, T tokens, I inputs and O outputs of a linear layer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use super::config::LoraConfig;
use super::peft::{ADAPTER_CONFIG, ADAPTER_WEIGHTS, tensor_names};
use crate::config::ModelConfig;
use crate::error::{At, Doing, Result};
use crate::not_a_model;
use crate::random::uniform;
use crate::weights;

/// The two matrices that change one linear layer.
#[derive(Debug)]
pub(crate) struct Lora {
    a: Tensor, // [r, I]
    b: Tensor, // [O, r]
    scale: f64,
    dropout: Option<Dropout>,
}

/// Inputs of a linear layer that are dropped: a function of seed, forward pass and module, so that a layer that is
/// computed twice drops the same.
#[derive(Debug, Clone)]
struct Dropout {
    share: f64,
    seed: u64,
    module: u64,
    pass: Pass,
}

/// Number of a forward pass, shared by all modules of a model.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pass(Arc<AtomicU64>);

impl Pass {
    pub(crate) fn next(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the number and gives the one before.
    pub(crate) fn replace(&self, pass: u64) -> u64 {
        self.0.swap(pass, Ordering::Relaxed)
    }
}

impl Clone for Lora {
    fn clone(&self) -> Self {
        Self { a: self.a.shallow_clone(), b: self.b.shallow_clone(), scale: self.scale, dropout: self.dropout.clone() }
    }
}

/// An adapter of a model.
#[derive(Debug, Clone)]
pub(crate) struct Adapter {
    pub(crate) config: LoraConfig,
    /// By module, in the model's order.
    modules: Vec<(String, Lora)>,
}

impl Lora {
    /// `y + dropout(x) A^T B^T * scale`. Adapters of half-precision weights are f32, as in peft.
    pub(crate) fn add_to(&self, y: Tensor, x: &Tensor) -> Result<Tensor> {
        let added = || {
            let x = x.f_to_kind(self.a.kind())?;
            let x = match &self.dropout {
                Some(dropout) => x.f_mul(&dropout.mask(&x)?)?,
                None => x,
            };
            // Scaled where it is narrow, and added by the product itself: nothing as wide as `y` is written in between.
            let low = x.f_linear(&self.a, None::<&Tensor>)? * self.scale; // [T, r]
            if low.kind() == y.kind() {
                return y.f_addmm(&low, &self.b.tr());
            }
            y.f_add(&low.f_linear(&self.b, None::<&Tensor>)?.f_to_kind(y.kind())?)
        };
        added().doing("an adapter")
    }

    /// `B A * scale`, `[O, I]`.
    pub(crate) fn product(&self) -> Result<Tensor> {
        let product = self.b.to_kind(Kind::Float).f_matmul(&self.a.to_kind(Kind::Float));
        Ok(product.doing("merging an adapter")? * self.scale)
    }
}

impl Dropout {
    /// Zero where an input is dropped, else what keeps the mean.
    fn mask(&self, like: &Tensor) -> Result<Tensor, tch::TchError> {
        let stream = self.pass.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.module;
        let kept = (1.0 / (1.0 - self.share)) as f32;
        let mask: Vec<f32> = (0..like.numel() as u64)
            .into_par_iter()
            .map(|i| if uniform(self.seed, stream, i) < self.share { 0.0 } else { kept })
            .collect();
        Tensor::f_from_slice(&mask)?.f_view(&like.size()[..])?.f_to_device(like.device())?.f_to_kind(like.kind())
    }
}

impl Adapter {
    /// peft's initial values: A uniform within `1 / sqrt(I)`, B zero.
    pub(crate) fn new(config: LoraConfig, model: &ModelConfig, seed: u64, device: Device) -> Result<Self> {
        config.check()?;
        let rank = config.rank;
        let make = |(index, (name, [outputs, inputs])): (usize, (String, [i64; 2]))| {
            let values =
                crate::random::uniforms(seed, index as u64, (rank * inputs) as usize, (inputs as f64).powf(-0.5));
            let a = Tensor::f_from_slice(&values).and_then(|t| t.f_view([rank, inputs])?.f_to_device(device));
            let b = Tensor::f_zeros([outputs, rank], (Kind::Float, device));
            let lora = Lora {
                a: a.doing("making an adapter")?,
                b: b.doing("making an adapter")?,
                scale: config.scale(),
                dropout: None,
            };
            Ok((name, lora))
        };
        let modules = config.modules(model)?.into_iter().enumerate().map(make).collect::<Result<_>>()?;
        Ok(Self { config, modules })
    }

    /// Reads peft's folder.
    pub(crate) fn load(folder: &Path, model: &ModelConfig, device: Device) -> Result<Self> {
        not_a_model::check_adapter(folder)?;
        let path = folder.join(ADAPTER_CONFIG);
        let config = LoraConfig::from_json(&simplemix_files::read_to_string(&path).at(&path, "read")?, &path)?;
        let modules = config.modules(model)?;
        let wanted: Vec<(String, Vec<i64>)> = modules
            .iter()
            .flat_map(|(name, [outputs, inputs])| {
                let [a, b] = tensor_names(name);
                [(a, vec![config.rank, *inputs]), (b, vec![*outputs, config.rank])]
            })
            .collect();
        let file = folder.join(ADAPTER_WEIGHTS);
        let mut tensors =
            weights::load_files(folder, &[file], &wanted, |name| Some(name.to_owned()), Kind::Float, device)?;
        let mut take = |name| tensors.remove(&name).expect("`load_files` returns every wanted tensor");
        let modules = modules
            .into_iter()
            .map(|(name, _)| {
                let [a, b] = tensor_names(&name).map(&mut take);
                (name, Lora { a, b, scale: config.scale(), dropout: None })
            })
            .collect();
        Ok(Self { config, modules })
    }

    /// Tensors under peft's names.
    pub(crate) fn named_parameters(&self) -> impl Iterator<Item = (String, Tensor)> {
        self.modules.iter().flat_map(|(name, lora)| {
            let [a, b] = tensor_names(name);
            [(a, lora.a.shallow_clone()), (b, lora.b.shallow_clone())]
        })
    }

    /// Change of each module; inputs are dropped in training only, which has a seed and counts passes.
    pub(crate) fn loras(&self, training: Option<(u64, Pass)>) -> HashMap<String, Lora> {
        let training = training.filter(|_| self.config.dropout > 0.0);
        let dropout = |module: usize| {
            let (seed, pass) = training.clone()?;
            Some(Dropout { share: self.config.dropout, seed, module: module as u64, pass })
        };
        let all = self.modules.iter().enumerate();
        all.map(|(i, (name, lora))| (name.clone(), Lora { dropout: dropout(i), ..lora.clone() })).collect()
    }
}
