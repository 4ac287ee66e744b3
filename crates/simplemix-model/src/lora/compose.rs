//! Adapters trained one after the other as one adapter of the first model.
//!
//! Each was trained on the model that the ones before it are merged into: `W + s1 B1 A1 + s2 B2 A2 + ..`. That sum is one product,
//! `[s1 B1, s2 B2, ..] [A1; A2; ..]`, so that a server which has the first model needs one adapter, of the sum of the ranks.

use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};

use super::config::{LoraBias, LoraConfig, refused};
use super::parts::{Place, Target};
use super::peft::{ADAPTER_CONFIG, ADAPTER_WEIGHTS};
use crate::config::ModelConfig;
use crate::error::{Doing, Result};
use crate::weights;

/// Writes the adapter of the first model that does what `adapters`, trained one after the other, do. `model` is a folder of a model
/// of the same shape, such as the result of the last of them.
///
/// # Errors
/// [`crate::Error::Input`] for adapters of different layers, or that are more than two matrices a layer (DoRA, biases, modules
/// trained whole); those of reading and writing adapters.
///
/// # Examples
/// ```
/// use simplemix_model::{CausalLm, LoraConfig, compose_adapters, tiny};
/// # let dir = tempfile::tempdir()?;
/// # let path = |name: &str| dir.path().join(name);
/// # tiny::write_folder(&path("first"), 1)?;
/// # let mut model = CausalLm::load(&path("first"), tch::Kind::Float, tch::Device::Cpu)?;
/// # for (name, seed) in [("one", 1), ("two", 2)] {
/// #     model.add_adapter(name, LoraConfig { rank: 4, ..LoraConfig::default() }, seed)?;
/// #     model.save_adapter(name, &path(name), None)?;
/// # }
/// compose_adapters(&path("first"), &[path("one"), path("two")], &path("both"))?;
/// assert_eq!(LoraConfig::from_folder(&path("both"))?.rank, 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn compose_adapters(model: &Path, adapters: &[PathBuf], to: &Path) -> Result<()> {
    let model = ModelConfig::from_folder(model)?;
    let configs = adapters.iter().map(|folder| LoraConfig::from_folder(folder)).collect::<Result<Vec<_>>>()?;
    let Some(first) = configs.first() else {
        return refused("adapters to compose", "none".to_owned(), "at least one");
    };
    configs.iter().try_for_each(|config| check(config, first))?;
    let files = adapters.iter().map(|folder| weights::read_all(&folder.join(ADAPTER_WEIGHTS)));
    let files = files.collect::<Result<Vec<_>>>()?;
    let targets = first.parts(&model)?.targets;
    if let Some(target) = targets.iter().find(|target| matches!(target.place, Place::Parameter(..))) {
        let found = format!("one of experts, `{}`", target.full);
        return refused("adapter to compose", found, "one of layers: its experts' matrices lie in one tensor");
    }
    let count = configs.len() as i64;
    let rank = count * targets.iter().map(|target| target.rank).max().unwrap_or_default();
    let mut tensors = Vec::new();
    for target in &targets {
        let [a_name, b_name] = target.matrices();
        let all = |name: &str| -> Result<Vec<Tensor>> {
            let tensor = |(at, file): (usize, &std::collections::BTreeMap<String, Tensor>)| match file.get(name) {
                Some(tensor) => Ok(tensor.to_kind(Kind::Float)),
                None => refused(
                    "adapter",
                    format!("one without `{name}`, in {}", adapters[at].display()),
                    "all adapters of the same layers",
                ),
            };
            files.iter().enumerate().map(tensor).collect()
        };
        let (a, b) = stacked(target, &configs, &all(&a_name)?, &all(&b_name)?, rank).doing("composing adapters")?;
        tensors.extend([(a_name, a), (b_name, b)]);
    }
    // Scales are in the matrices.
    let config = LoraConfig {
        rank,
        alpha: rank as f64,
        rslora: false,
        rank_pattern: Vec::new(),
        alpha_pattern: Vec::new(),
        ..first.clone()
    };
    crate::folder::write(to, |new| {
        let settings = config.to_json(&model, None);
        new.write(ADAPTER_CONFIG, format!("{settings:#}\n"))?;
        weights::save_in(new, ADAPTER_WEIGHTS, &tensors)
    })
}

/// Refuses an adapter that is more than two matrices a layer, or one of other layers than the first.
fn check(config: &LoraConfig, first: &LoraConfig) -> Result<()> {
    const ADAPTER: &str = "adapter to compose";
    let more = [
        ("DoRA", config.dora),
        ("biases", config.bias != LoraBias::None),
        ("modules that are trained whole", !config.modules_to_save.is_empty()),
        ("embeddings of its own", config.vocab_size.is_some()),
    ];
    if let Some((what, _)) = more.iter().find(|(_, has)| *has) {
        return refused(ADAPTER, format!("one with {what}"), "one with two matrices a layer alone");
    }
    let shape = |config: &LoraConfig| LoraConfig { dropout: 0.0, ..config.clone() };
    if shape(config) != shape(first) {
        return refused(
            ADAPTER,
            "one with other settings than the first".to_owned(),
            "adapters with the same settings",
        );
    }
    Ok(())
}

/// `[A1; A2; ..]`, and `[s1 B1, s2 B2, ..]`, both filled up with zeros to `rank`.
fn stacked(
    target: &Target,
    configs: &[LoraConfig],
    a: &[Tensor],
    b: &[Tensor],
    rank: i64,
) -> std::result::Result<(Tensor, Tensor), tch::TchError> {
    let scaled = |(b, config): (&Tensor, &LoraConfig)| b.f_mul_scalar(config.scale(target.rank, target.alpha));
    let b = b.iter().zip(configs).map(scaled).collect::<std::result::Result<Vec<_>, _>>()?;
    let (a, b) = (Tensor::f_cat(a, 0)?, Tensor::f_cat(&b, 1)?); // [r, I], [O, r]
    let missing = rank - a.size()[0];
    let zeros = |shape: [i64; 2]| Tensor::f_zeros(shape, (Kind::Float, a.device()));
    Ok((
        Tensor::f_cat(&[&a, &zeros([missing, a.size()[1]])?], 0)?,
        Tensor::f_cat(&[&b, &zeros([b.size()[0], missing])?], 1)?,
    ))
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;
    use crate::{CausalLm, LoraTargets, tiny};

    #[test]
    fn adapters_that_are_more_or_other_layers_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        tiny::write_folder(&path("model"), 1).unwrap();
        let lora = LoraConfig { rank: 2, ..LoraConfig::default() };
        let named = |names: &[&str]| LoraTargets::Named(names.iter().map(|name| (*name).to_owned()).collect());
        for (name, config) in [
            ("plain", lora.clone()),
            ("dora", LoraConfig { dora: true, ..lora.clone() }),
            ("saved", LoraConfig { modules_to_save: vec!["norm".to_owned()], ..lora.clone() }),
            ("queries", LoraConfig { targets: named(&["q_proj"]), ..lora }),
        ] {
            let mut model = CausalLm::load(&path("model"), Kind::Float, Device::Cpu).unwrap();
            model.add_adapter("a", config, 1).unwrap();
            model.save_adapter("a", &path(name), None).unwrap();
        }
        let said = |second: &str| {
            let to = path(&format!("to-{second}"));
            let made = compose_adapters(&path("model"), &[path("plain"), path(second)], &to);
            assert_eq!(to.is_dir(), made.is_ok());
            made.err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(said("plain"), "");
        assert!(said("dora").contains("one with DoRA"), "{}", said("dora"));
        assert!(said("saved").contains("modules that are trained whole"), "{}", said("saved"));
        assert!(said("queries").contains("other settings than the first"), "{}", said("queries"));
    }
}
