//! AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) over named tensors, as `torch.optim.AdamW` computes it.
//!
//! One pass reads parameter, gradient and both moments and writes them back; it also clips the gradient and clears it.
//! State is plain tensors under the parameters' names, so a checkpoint holds it as safetensors.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use simplemix_settings::{Setting, Settings, section};
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result};
use crate::host::entries;
use crate::patterns;
use crate::schedule::Schedule;

section! {
    /// AdamW and the learning rate.
    pub struct OptimizerSettings("optimizer") {
        /// Peak learning rate.
        learning_rate: f64 = 1e-6, in above(0.0), from "TRL", was "learning_rate";
        /// Shape of the learning rate after warm-up.
        schedule: Schedule = Schedule::Linear, from "TRL", was "schedule";
        /// Share of the updates over which the learning rate rises from 0.
        warmup_ratio: f64 = 0.0, in between(0.0, 1.0), from "TRL", was "warmup_ratio";
        /// Gradient norm above which gradients are scaled down; 0 for no limit.
        max_grad_norm: f64 = 1.0, in at_least(0.0), from "TRL", was "max_grad_norm";
        /// Decay of the mean gradient.
        beta1: f64 = 0.9, in from_to_below(0.0, 1.0), from "TRL", was "adamw.beta1";
        /// Decay of the mean squared gradient.
        beta2: f64 = 0.999, in from_to_below(0.0, 1.0), from "TRL", was "adamw.beta2";
        /// Added to the root of the mean squared gradient.
        epsilon: f64 = 1e-8, in above(0.0), from "TRL", was "adamw.epsilon";
        /// Weight decay, times the learning rate at each update; norms and biases are exempt.
        weight_decay: f64 = 0.0, in at_least(0.0), from "TRL", was "adamw.weight_decay";
        /// Parameters that are not trained, as patterns such as `model.layers.[0-9].*`.
        freeze: Vec<String> = Vec::new(), was "freeze";
        /// Parameters with a weight decay or learning rate of their own; the first group with a matching pattern applies.
        parameter_groups: Vec<ParameterGroup> = Vec::new(), was "parameter_groups";
    }
}

/// Parameters with a weight decay or learning rate of their own.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParameterGroup {
    /// Names as patterns, such as `*.norm.weight`; each must match at least one parameter.
    pub names: Vec<String>,
    /// Weight decay, instead of the optimiser's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_decay: Option<f64>,
    /// Factor of the learning rate.
    #[serde(default = "one")]
    pub learning_rate_factor: f64,
}

impl Setting for ParameterGroup {
    fn kind() -> String {
        "a table with `names` and `weight_decay` or `learning_rate_factor`".to_owned()
    }

    fn kinds() -> String {
        "tables with `names` and `weight_decay` or `learning_rate_factor`".to_owned()
    }
}

fn one() -> f64 {
    1.0
}

/// AdamW over a set of parameters on the CPU or a GPU. Parameters in half precision are rounded from copies in f32, which
/// are updated.
///
/// # Examples
/// ```
/// use simplemix_train::{AdamW, OptimizerSettings};
/// use tch::{Kind, Tensor};
///
/// let w = Tensor::from_slice(&[3f32, -2.0]).set_requires_grad(true);
/// let mut adamw = AdamW::new(&[("w".to_owned(), w.shallow_clone())], &OptimizerSettings::default())?;
/// // The gradient of the summed squares is 2 w.
/// w.square().sum(Kind::Float).backward();
/// assert!((adamw.gradient_norm() - 52f64.sqrt()).abs() < 1e-6);
/// // The first update moves every weight by the learning rate, against its gradient.
/// adamw.update(0.1, 1.0);
/// let moved: Vec<f32> = w.detach().try_into()?;
/// assert!((moved[0] - 2.9).abs() < 1e-6 && (moved[1] + 1.9).abs() < 1e-6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AdamW {
    settings: OptimizerSettings,
    slots: Vec<Slot>,
    updates: u64,
    movement: Movement,
}

/// Effect of updates on the weights so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Movement {
    /// No weight.
    #[default]
    Nothing,
    /// Only f32 copies; every parameter in half precision still rounds to its first value.
    Copies,
    /// Parameters.
    Parameters,
}

#[derive(Debug)]
struct Slot {
    name: String,
    /// The parameter itself if it is in f32, or the f32 copy that it is rounded from.
    weights: Tensor,
    parameter: Tensor,
    mean: Tensor,
    square: Tensor,
    weight_decay: f64,
    rate_factor: f64,
}

const GROUPS: &str = "optimizer.parameter_groups";

/// Elements of a thread's chunk: about a megabyte in the four arrays.
const CHUNK: usize = 1 << 16;

impl AdamW {
    /// Starts with zero moments for every parameter. The learning rate and its schedule are left to the caller.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings out of range, [`Error::Parameter`] for a parameter that is not a contiguous tensor
    /// of floats, and [`Error::Pattern`] for a pattern of a group that is invalid or matches nothing.
    pub fn new(parameters: &[(String, Tensor)], settings: &OptimizerSettings) -> Result<Self> {
        settings.check_ranges()?;
        let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        let mut group_of = vec![None; names.len()];
        for group in &settings.parameter_groups {
            let decay = group.weight_decay.unwrap_or(0.0);
            let factor = group.learning_rate_factor;
            if [decay, factor].iter().any(|x| !(x.is_finite() && *x >= 0.0)) {
                return Err(Error::setting(GROUPS, format!("{decay} and {factor}"), "numbers >= 0"));
            }
            for at in patterns::matching(GROUPS, &group.names, &names)? {
                group_of[at].get_or_insert(group);
            }
        }
        let slot = |((name, parameter), group): (&(String, Tensor), Option<&ParameterGroup>)| {
            let is_float = matches!(parameter.kind(), Kind::Float | Kind::BFloat16 | Kind::Half);
            if !is_float || !parameter.is_contiguous() {
                return Err(Error::Parameter { name: name.clone(), found: format!("{:?}", parameter.kind()) });
            }
            let weights = match parameter.kind() {
                Kind::Float => parameter.shallow_clone(),
                _ => parameter.detach().to_kind(Kind::Float),
            };
            let spared = if parameter.dim() > 1 { settings.weight_decay } else { 0.0 };
            Ok(Slot {
                name: name.clone(),
                mean: weights.detach().zeros_like(),
                square: weights.detach().zeros_like(),
                weight_decay: group.and_then(|group| group.weight_decay).unwrap_or(spared),
                rate_factor: group.map_or(1.0, |group| group.learning_rate_factor),
                parameter: parameter.shallow_clone(),
                weights,
            })
        };
        let slots = parameters.iter().zip(group_of).map(slot).collect::<Result<_>>()?;
        Ok(Self { settings: settings.clone(), slots, updates: 0, movement: Movement::Nothing })
    }

    /// Global L2 norm of all gradients.
    pub fn gradient_norm(&self) -> f64 {
        let _guard = tch::no_grad_guard();
        let squares = self.slots.iter().filter_map(|slot| {
            let gradient = slot.parameter.grad();
            gradient.defined().then(|| match entries([], &gradient) {
                // Partial sums of fixed chunks, added in order: the same for every number of threads.
                Some(([], values)) => values
                    .par_chunks(CHUNK)
                    .map(|chunk| chunk.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>())
                    .collect::<Vec<_>>()
                    .iter()
                    .sum(),
                None => gradient.square().sum(Kind::Double).double_value(&[]),
            })
        });
        squares.sum::<f64>().sqrt()
    }

    /// Updates the parameters with their gradients times `scale`; gradients are zero afterwards.
    pub fn update(&mut self, learning_rate: f64, scale: f64) {
        let _guard = tch::no_grad_guard();
        self.updates += 1;
        for slot in &mut self.slots {
            let mut gradient = slot.parameter.grad();
            if !gradient.defined() {
                continue;
            }
            let rate = learning_rate * slot.rate_factor;
            let step = Step::new(&self.settings, rate, scale, self.updates);
            let decay = 1.0 - rate * slot.weight_decay;
            let wide = gradient.to_kind(Kind::Float);
            let on_host = slot.weights.device() == Device::Cpu && wide.is_contiguous();
            let before = slot.before(self.movement);
            if on_host {
                step.on_host(slot, &wide, decay as f32);
            } else {
                step.on_device(slot, &wide, decay);
            }
            if slot.is_rounded() {
                slot.parameter.copy_(&slot.weights);
            }
            self.movement = self.movement.max(slot.movement_since(before));
            let _ = gradient.zero_();
        }
    }

    /// Effect of this optimiser's updates on the weights; those before [`AdamW::restore`] are not counted.
    pub fn movement(&self) -> Movement {
        self.movement
    }

    /// Whether any parameter has a learning rate above 0 where the run's is.
    pub(crate) fn learns(&self) -> bool {
        self.slots.iter().any(|slot| slot.rate_factor > 0.0)
    }

    /// Number of updates so far.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Moments under `NAME.exp_avg` and `NAME.exp_avg_sq`, and the f32 copies of parameters in half precision under
    /// `NAME.master`. The tensors are shared, not copied.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut all = Vec::with_capacity(2 * self.slots.len());
        for slot in &self.slots {
            let named = slot.state().into_iter();
            all.extend(named.map(|(suffix, tensor)| (format!("{}.{suffix}", slot.name), tensor.shallow_clone())));
        }
        all
    }

    /// Restores the tensors of [`AdamW::state`] and the number of updates.
    ///
    /// # Errors
    /// [`Error::State`] for the first tensor that is absent or has another shape.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, updates: u64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for slot in &self.slots {
            for (suffix, own) in slot.state() {
                let name = format!("{}.{suffix}", slot.name);
                match state.get(&name) {
                    Some(stored) if stored.size() == own.size() => own.shallow_clone().copy_(stored),
                    found => return Err(Error::misshapen(&name, found, own)),
                }
            }
        }
        self.updates = updates;
        Ok(())
    }
}

impl Slot {
    /// Whether the parameter is rounded from its f32 copy.
    fn is_rounded(&self) -> bool {
        self.parameter.kind() != Kind::Float
    }

    /// Copies of what an update must change to be more than `movement`: weights and parameter, each if it matters.
    fn before(&self, movement: Movement) -> [Option<Tensor>; 2] {
        let weights = (movement == Movement::Nothing).then(|| self.weights.detach().copy());
        let parameter = (self.is_rounded() && movement < Movement::Parameters).then(|| self.parameter.detach().copy());
        [weights, parameter]
    }

    fn movement_since(&self, before: [Option<Tensor>; 2]) -> Movement {
        let differs = |before: Option<Tensor>, now: &Tensor| before.is_some_and(|before| !before.equal(now));
        let [weights, parameter] = before;
        let moved = differs(weights, &self.weights);
        match self.is_rounded() {
            true if differs(parameter, &self.parameter) => Movement::Parameters,
            true if moved => Movement::Copies,
            false if moved => Movement::Parameters,
            _ => Movement::Nothing,
        }
    }

    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        let mut state = vec![("exp_avg", &self.mean), ("exp_avg_sq", &self.square)];
        if self.is_rounded() {
            state.push(("master", &self.weights));
        }
        state
    }
}

/// Constants of one update.
struct Step {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    scale: f64,
    /// Learning rate over the first moment's bias correction.
    rate: f64,
    /// Root of the second moment's bias correction.
    root: f64,
}

impl Step {
    fn new(settings: &OptimizerSettings, learning_rate: f64, scale: f64, updates: u64) -> Self {
        let correction = |beta: f64| 1.0 - beta.powf(updates as f64);
        Self {
            beta1: settings.beta1,
            beta2: settings.beta2,
            epsilon: settings.epsilon,
            scale,
            rate: learning_rate / correction(settings.beta1),
            root: correction(settings.beta2).sqrt(),
        }
    }

    fn on_host(&self, slot: &mut Slot, gradient: &Tensor, decay: f32) {
        // Complements are computed in f64: 1 - 0.999 in f32 is off by a part in 100,000.
        let (c1, b2, c2) = ((1.0 - self.beta1) as f32, self.beta2 as f32, (1.0 - self.beta2) as f32);
        let (scale, rate, root, epsilon) = (self.scale as f32, self.rate as f32, self.root as f32, self.epsilon as f32);
        let written = [&mut slot.weights, &mut slot.mean, &mut slot.square];
        let Some(([p, m, v], g)) = entries(written, gradient) else {
            return self.on_device(slot, gradient, f64::from(decay));
        };
        p.par_chunks_mut(CHUNK)
            .zip(m.par_chunks_mut(CHUNK))
            .zip(v.par_chunks_mut(CHUNK))
            .zip(g.par_chunks(CHUNK))
            .for_each(|(((p, m), v), g)| {
                for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
                    let g = g * scale;
                    *m += (g - *m) * c1;
                    *v = *v * b2 + g * g * c2;
                    *p = *p * decay - rate * *m / (v.sqrt() / root + epsilon);
                }
            });
    }

    fn on_device(&self, slot: &mut Slot, gradient: &Tensor, decay: f64) {
        let g = gradient * self.scale;
        let _ = slot.mean.lerp_(&g, 1.0 - self.beta1);
        let _ = slot.square.g_mul_scalar_(self.beta2);
        let _ = slot.square.g_add_(&(g.square() * (1.0 - self.beta2)));
        let denominator = slot.square.sqrt() / self.root + self.epsilon;
        let _ = slot.weights.g_mul_scalar_(decay);
        let _ = slot.weights.g_sub_(&(&slot.mean / denominator * self.rate));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// torch 2.11: `p = torch.tensor([[1., -2.], [3., 0.5]], requires_grad=True)`, AdamW(lr=0.1, weight_decay=0.01),
    /// three updates with gradient `p**2` summed, clipped by a factor of 0.5 by hand.
    #[test]
    fn follows_torch() {
        let p = Tensor::from_slice(&[1f32, -2.0, 3.0, 0.5]).view([2, 2]).set_requires_grad(true);
        let settings = OptimizerSettings { weight_decay: 0.01, ..OptimizerSettings::default() };
        let mut adamw = AdamW::new(&[("p".into(), p.shallow_clone())], &settings).unwrap();
        for _ in 0..3 {
            p.square().sum(Kind::Float).backward();
            adamw.update(0.1, 0.5);
        }
        let values: Vec<f32> = p.detach().flatten(0, -1).try_into().unwrap();
        for (got, want) in values.iter().zip(FOLLOWS_TORCH) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        assert_eq!(f64::try_from(p.grad().abs().max()).unwrap(), 0.0);
    }

    const FOLLOWS_TORCH: [f32; 4] = [0.6989112, -1.6949446, 2.6917036, 0.2037124];

    #[test]
    fn both_paths_agree() {
        let run = |device_path: bool| {
            let p = Tensor::arange(40, (Kind::Float, Device::Cpu)).view([5, 8]).set_requires_grad(true);
            let mut adamw = AdamW::new(&[("p".into(), p.shallow_clone())], &OptimizerSettings::default()).unwrap();
            for _ in 0..4 {
                (p.square() * &p).sum(Kind::Float).backward();
                if device_path {
                    let _guard = tch::no_grad_guard();
                    adamw.updates += 1;
                    let step = Step::new(&adamw.settings, 0.01, 1.0, adamw.updates);
                    step.on_device(&mut adamw.slots[0], &p.grad(), 1.0);
                    p.shallow_clone().zero_grad();
                } else {
                    adamw.update(0.01, 1.0);
                }
            }
            p.detach()
        };
        let difference = f64::try_from((run(true) - run(false)).abs().max()).unwrap();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn the_norm_is_global() {
        let a = Tensor::from_slice(&[3f32]).set_requires_grad(true);
        let b = Tensor::from_slice(&[2f32, 2.0]).set_requires_grad(true);
        let adamw = AdamW::new(
            &[("a".into(), a.shallow_clone()), ("b".into(), b.shallow_clone())],
            &OptimizerSettings::default(),
        )
        .unwrap();
        // Gradients 1 and (4, 4): the root of 33.
        (a.sum(Kind::Float) + b.square().sum(Kind::Float)).backward();
        assert!((adamw.gradient_norm() - 33f64.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn half_precision_is_rounded_from_a_copy_that_moves() {
        let p = Tensor::from_slice(&[1f32]).to_kind(Kind::BFloat16).set_requires_grad(true);
        let mut adamw = AdamW::new(&[("p".into(), p.shallow_clone())], &OptimizerSettings::default()).unwrap();
        // Steps of 0.001 are below half of what separates bf16 numbers near 1; together they are not.
        for _ in 0..20 {
            (&p * 2.0).sum(Kind::Float).backward();
            adamw.update(0.001, 1.0);
        }
        assert!((p.double_value(&[0]) - 0.98).abs() < 0.003, "{}", p.double_value(&[0]));
        let state: BTreeMap<_, _> = adamw.state().into_iter().map(|(name, t)| (name, t.copy())).collect();
        assert!((state["p.master"].double_value(&[0]) - 0.98).abs() < 1e-5);
        let mut again = AdamW::new(&[("p".into(), p.shallow_clone())], &OptimizerSettings::default()).unwrap();
        again.restore(&state, 20).unwrap();
        assert_eq!(again.state()[2].1, state["p.master"]);
    }

    #[test]
    fn groups_have_rates_and_decay_of_their_own() {
        let one = || Tensor::from_slice(&[1f32, 1.0]).view([1, 2]).set_requires_grad(true);
        let (a, b, c) = (one(), one(), one());
        let named = [("x.a", &a), ("x.b", &b), ("c", &c)].map(|(name, t)| (name.to_owned(), t.shallow_clone()));
        let parameter_groups = vec![
            ParameterGroup { names: vec!["*.a".into()], weight_decay: Some(0.0), learning_rate_factor: 0.5 },
            ParameterGroup { names: vec!["x.*".into()], weight_decay: Some(1.0), learning_rate_factor: 1.0 },
        ];
        let settings = OptimizerSettings { weight_decay: 0.5, parameter_groups, ..OptimizerSettings::default() };
        let mut adamw = AdamW::new(&named, &settings).unwrap();
        (a.sum(Kind::Float) + b.sum(Kind::Float) + c.sum(Kind::Float)).backward();
        adamw.update(0.1, 1.0);
        // A first update is the rate itself; decay is rate times weight.
        for (tensor, expected) in [(&a, 1.0 - 0.05), (&b, 0.9 - 0.1), (&c, 0.95 - 0.1)] {
            assert!((tensor.double_value(&[0, 0]) - expected).abs() < 1e-6);
        }
        let nothing = ParameterGroup { names: vec!["y.*".into()], weight_decay: None, learning_rate_factor: 1.0 };
        let settings = OptimizerSettings { parameter_groups: vec![nothing], ..settings };
        let error = AdamW::new(&named, &settings).unwrap_err().to_string();
        assert_eq!(error, "`optimizer.parameter_groups`: the pattern `y.*` matches none of x.a, x.b, c");
    }

    #[test]
    fn constants_out_of_range_are_named() {
        let settings = OptimizerSettings { beta2: 1.0, ..OptimizerSettings::default() };
        let error = AdamW::new(&[], &settings).unwrap_err();
        assert_eq!(error.to_string(), "`optimizer.beta2` is 1, expected a number from 0 to below 1");
    }
}
