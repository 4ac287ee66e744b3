//! Matrices of an adapter: made, loaded, added to a layer's output, and dropped inputs in training.
//!
//! Letters: r rank, T tokens, I inputs and O outputs of a linear layer.

use std::collections::HashMap;
use std::path::Path;

use simplemix_torch::keyed_dropout;
use tch::{Device, Kind, Tensor};

use super::config::LoraConfig;
use super::peft::{ADAPTER_WEIGHTS, tensor_names};
use crate::config::ModelConfig;
use crate::error::{Doing, Result};
use crate::random;
use crate::weights;

/// The two matrices that change one linear layer.
#[derive(Debug)]
pub(crate) struct Lora {
    a: Tensor, // [r, I]
    b: Tensor, // [O, r]
    scale: f64,
    dropout: Option<Dropout>,
}

/// Inputs of a linear layer that are dropped: a function of seed, module, token and feature, so that neither packing nor a
/// second computation of a layer changes them.
#[derive(Debug, Clone, Copy)]
struct Dropout {
    share: f64,
    seed: u32,
}

impl Clone for Lora {
    fn clone(&self) -> Self {
        Self { a: self.a.shallow_clone(), b: self.b.shallow_clone(), scale: self.scale, dropout: self.dropout }
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
    /// `y + dropout(x) A^T B^T * scale`, where `x` has the adapter's kind and `keys` `[T]` are the tokens' for dropout.
    /// Adapters of half-precision weights are f32, as in peft.
    pub(crate) fn add_to(&self, y: &Tensor, x: &Tensor, keys: Option<&Tensor>) -> Result<Tensor> {
        let x = match (self.dropout, keys) {
            (Some(Dropout { share, seed }), Some(keys)) => keyed_dropout(x, keys, seed, share)?,
            _ => x.shallow_clone(),
        };
        let added = || {
            // Scaled where it is narrow, and added by the product itself: nothing as wide as `y` is written in between.
            let low = x.f_linear(&self.a, None::<&Tensor>)? * self.scale; // [T, r]
            if low.kind() == y.kind() {
                return y.f_addmm(&low, &self.b.tr());
            }
            y.f_add(&low.f_linear(&self.b, None::<&Tensor>)?.f_to_kind(y.kind())?)
        };
        added().doing("an adapter")
    }

    /// Kind of the adapter's matrices.
    pub(crate) fn kind(&self) -> Kind {
        self.a.kind()
    }

    /// `weight + B A * scale`, `[O, I]`, on the weight's device and in its kind. The sum is in f32, and the only tensor of this
    /// size that is made, but for its rounding to half precision.
    pub(crate) fn merged_into(&self, weight: &Tensor) -> Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let merged = || {
            let mut sum = self.b.f_to_kind(Kind::Float)?.f_matmul(&self.a.f_to_kind(Kind::Float)?)?;
            sum.f_mul_scalar_(self.scale)?.f_add_(weight)?.f_to_kind(weight.kind())
        };
        merged().doing("merging an adapter")
    }
}

impl Adapter {
    /// peft's initial values: A uniform within `1 / sqrt(I)`, B zero.
    pub(crate) fn new(config: LoraConfig, model: &ModelConfig, seed: u64, device: Device) -> Result<Self> {
        config.check()?;
        let rank = config.rank;
        let make = |(index, (name, [outputs, inputs])): (usize, (String, [i64; 2]))| {
            let values = random::uniforms(seed, index as u64, (rank * inputs) as usize, (inputs as f64).powf(-0.5));
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
        let config = LoraConfig::from_folder(folder)?;
        let (modules, wanted) = (config.modules(model)?, config.tensors(model)?);
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

    /// Change of each module; inputs are dropped in training only, which has a seed.
    pub(crate) fn loras(&self, training: Option<u64>) -> HashMap<String, Lora> {
        let seed = training.filter(|_| self.config.dropout > 0.0);
        let dropout = |module: usize| {
            let seed = random::bits(seed?, module as u64) as u32;
            Some(Dropout { share: self.config.dropout, seed })
        };
        let all = self.modules.iter().enumerate();
        all.map(|(i, (name, lora))| (name.clone(), Lora { dropout: dropout(i), ..lora.clone() })).collect()
    }
}
