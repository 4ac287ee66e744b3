//! What every learner does with the tensors it trains: norm, update, save, restore.

use std::path::Path;

use simplemix_model::weights;
use tch::Tensor;

use crate::adamw::{AdamW, AdamWOptions, ParameterGroup};
use crate::collective::Collective;
use crate::error::{At, Error, Result};

const OPTIMIZER: &str = "optimizer.safetensors";
const UPDATES: &str = "updates.json";

/// Named tensors in training, and their optimiser.
#[derive(Debug)]
pub struct Trainee {
    parameters: Vec<(String, Tensor)>,
    pub(crate) optimizer: AdamW,
}

impl Trainee {
    /// Readies `parameters` for training: gradients are kept for them from now on.
    ///
    /// # Errors
    /// As [`AdamW::with_groups`].
    pub fn new(parameters: Vec<(String, Tensor)>, options: AdamWOptions, groups: &[ParameterGroup]) -> Result<Self> {
        let optimizer = AdamW::with_groups(&parameters, options, groups)?;
        for (_, parameter) in &parameters {
            let _ = parameter.set_requires_grad(true);
        }
        Ok(Self { parameters, optimizer })
    }

    /// Numbers that are trained.
    pub fn count(&self) -> i64 {
        self.parameters.iter().map(|(_, tensor)| tensor.numel() as i64).sum()
    }

    pub(crate) fn share_gradients(&self, collective: &dyn Collective) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let gradients = self.parameters.iter().map(|(_, parameter)| parameter.grad());
        collective.sum_tensors(&mut gradients.filter(Tensor::defined).collect::<Vec<_>>())
    }

    pub(crate) fn discard(&self) {
        let _guard = tch::no_grad_guard();
        for (_, parameter) in &self.parameters {
            let mut gradient = parameter.grad();
            if gradient.defined() {
                let _ = gradient.zero_();
            }
        }
    }

    pub(crate) fn save(&self, folder: &Path) -> Result<()> {
        weights::save(&folder.join(weights::WEIGHTS), &self.parameters)?;
        weights::save(&folder.join(OPTIMIZER), &self.optimizer.state())?;
        let path = folder.join(UPDATES);
        std::fs::write(&path, self.optimizer.updates().to_string()).at(&path, "write")
    }

    pub(crate) fn restore(&mut self, folder: &Path) -> Result<()> {
        self.restore_weights(folder)?;
        let path = folder.join(UPDATES);
        let text = std::fs::read_to_string(&path).at(&path, "read")?;
        let updates = text.trim().parse().map_err(|_| Error::State {
            name: UPDATES.to_owned(),
            found: text.clone(),
            expected: "a number of updates".to_owned(),
        })?;
        self.optimizer.restore(&weights::read_all(&folder.join(OPTIMIZER))?, updates)
    }

    /// Weights alone, as a best checkpoint gives them to the result.
    pub(crate) fn restore_weights(&self, folder: &Path) -> Result<()> {
        let stored = weights::read_all(&folder.join(weights::WEIGHTS))?;
        let _guard = tch::no_grad_guard();
        for (name, parameter) in &self.parameters {
            match stored.get(name) {
                Some(tensor) if tensor.size() == parameter.size() => parameter.shallow_clone().copy_(tensor),
                found => {
                    return Err(Error::State {
                        name: name.clone(),
                        found: found.map_or("absent".to_owned(), |t| format!("{:?}", t.size())),
                        expected: format!("{:?}", parameter.size()),
                    });
                }
            }
        }
        Ok(())
    }
}
