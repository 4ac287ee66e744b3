//! AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) over named tensors, as `torch.optim.AdamW` computes it.
//!
//! State is plain tensors under the parameters' names, so a checkpoint holds it as safetensors.

use std::collections::BTreeMap;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use simplemix_settings::{Setting, Settings, section};
use tch::{Kind, Tensor};

use crate::error::{Error, Result};
use crate::host::entries;
use crate::patterns;
use crate::schedule::{Decay, Schedule};
use crate::update::{CHUNK, Update};

section! {
    /// AdamW and the learning rate.
    pub struct OptimizerSettings("optimizer") {
        /// Peak learning rate.
        learning_rate: f64 = 1e-6, in above(0.0), from "TRL", was "learning_rate";
        /// Shape of the learning rate after warm-up.
        schedule: Schedule = Schedule::Linear, from "TRL", was "schedule";
        /// Share of the updates over which the learning rate rises from 0; the number of updates is rounded up.
        warmup_ratio: f64 = 0.0, in between(0.0, 1.0), from "TRL", was "warmup_ratio";
        /// Updates over which the learning rate rises from 0, in place of `warmup_ratio`.
        warmup_steps: Option<u64> = None, unit "updates";
        /// Share of the peak learning rate at which the decay ends, for `linear`, `cosine` and `warmup-stable-decay`.
        min_rate_ratio: f64 = 0.0, in from_to_below(0.0, 1.0), from "TRL";
        /// Share of the updates over which the learning rate falls at the end, for `warmup-stable-decay`; the number of updates is
        /// rounded up.
        decay_ratio: f64 = 0.0, in between(0.0, 1.0);
        /// Updates over which the learning rate falls at the end, in place of `decay_ratio`.
        decay_steps: Option<u64> = None, in at_least(1.0), unit "updates";
        /// Shape of that fall.
        decay: Decay = Decay::Cosine, from "TRL";
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

/// First entry of a piece in its parameter, and the parameter's shape.
type PieceOf = (i64, Vec<i64>);

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
/// assert!((adamw.gradient_norm()? - 52f64.sqrt()).abs() < 1e-6);
/// // The first update moves every weight by the learning rate, against its gradient.
/// adamw.update(0.1, 1.0)?;
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

/// A range of a parameter's numbers, which lie in one row.
#[derive(Debug)]
pub(crate) struct Piece {
    /// Number of the parameter.
    pub(crate) parameter: usize,
    /// Number of the parameter's first entry that is here.
    pub(crate) start: i64,
    /// The numbers, whose gradient is this tensor's own.
    pub(crate) tensor: Tensor,
}

/// A parameter, or a piece of one, and its state.
#[derive(Debug)]
pub(crate) struct Slot {
    name: String,
    /// First entry of the piece in its parameter, and the parameter's shape; none for a whole one.
    piece_of: Option<PieceOf>,
    /// The parameter itself if it is in f32, or the f32 copy that it is rounded from.
    pub(crate) weights: Tensor,
    pub(crate) parameter: Tensor,
    pub(crate) mean: Tensor,
    pub(crate) square: Tensor,
    pub(crate) weight_decay: f64,
    pub(crate) rate_factor: f64,
}

const GROUPS: &str = "optimizer.parameter_groups";

/// Sum of squares: partial sums of fixed chunks, added in order, so the same for every number of threads.
fn square_sum(values: &[f32]) -> f64 {
    let sums = values.par_chunks(CHUNK).map(|chunk| chunk.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>());
    sums.collect::<Vec<_>>().iter().sum()
}

impl OptimizerSettings {
    /// Group of each of the `names`, the first that has a pattern for it.
    fn groups_of(&self, names: &[&str]) -> Result<Vec<Option<&ParameterGroup>>> {
        self.check_ranges()?;
        let mut group_of = vec![None; names.len()];
        for group in &self.parameter_groups {
            let decay = group.weight_decay.unwrap_or(0.0);
            let factor = group.learning_rate_factor;
            if [decay, factor].iter().any(|x| !(x.is_finite() && *x >= 0.0)) {
                return Err(Error::setting(GROUPS, format!("{decay} and {factor}"), "numbers >= 0"));
            }
            for at in patterns::matching(GROUPS, &group.names, names)? {
                group_of[at].get_or_insert(group);
            }
        }
        Ok(group_of)
    }

    /// Whether any of the parameters `names` has a learning rate above 0 where the run's is.
    ///
    /// # Errors
    /// Errors of [`AdamW::new`] about the settings.
    pub(crate) fn learns(&self, names: &[&str]) -> Result<bool> {
        Ok(self.groups_of(names)?.iter().any(|group| group.is_none_or(|group| group.learning_rate_factor > 0.0)))
    }
}

impl AdamW {
    /// Starts with zero moments for every parameter. The learning rate and its schedule are left to the caller.
    ///
    /// # Errors
    /// [`Error::Setting`] for settings out of range, [`Error::Parameter`] for a parameter that is not a contiguous tensor
    /// of floats, and [`Error::Pattern`] for a pattern of a group that is invalid or matches nothing.
    pub fn new(parameters: &[(String, Tensor)], settings: &OptimizerSettings) -> Result<Self> {
        let whole = |(number, (_, tensor)): (usize, &(String, Tensor))| {
            let piece = Piece { parameter: number, start: 0, tensor: tensor.shallow_clone() };
            (piece, None)
        };
        Self::of(parameters, parameters.iter().enumerate().map(whole).collect(), settings)
    }

    /// As [`AdamW::new`], for pieces of the parameters; other processes update the rest.
    pub(crate) fn of_pieces(
        parameters: &[(String, Tensor)],
        pieces: Vec<Piece>,
        settings: &OptimizerSettings,
    ) -> Result<Self> {
        let part = |piece: Piece| {
            let shape = parameters[piece.parameter].1.size();
            let start = piece.start;
            (piece, Some((start, shape)))
        };
        Self::of(parameters, pieces.into_iter().map(part).collect(), settings)
    }

    fn of(
        parameters: &[(String, Tensor)],
        pieces: Vec<(Piece, Option<PieceOf>)>,
        settings: &OptimizerSettings,
    ) -> Result<Self> {
        let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
        let group_of = settings.groups_of(&names)?;
        let slot = |(Piece { parameter: number, tensor: parameter, .. }, piece_of): (Piece, Option<_>)| {
            let ((name, whole), group) = (&parameters[number], group_of[number]);
            let is_float = matches!(parameter.kind(), Kind::Float | Kind::BFloat16 | Kind::Half);
            if !is_float || !parameter.is_contiguous() {
                return Err(Error::Parameter { name: name.clone(), found: format!("{:?}", parameter.kind()) });
            }
            let weights = match parameter.kind() {
                Kind::Float => parameter.shallow_clone(),
                _ => parameter.detach().to_kind(Kind::Float),
            };
            // As in transformers; the lengths of DoRA and the logs of the gated delta rule's decays decay too.
            let vectors = [".lora_magnitude_vector", ".A_log"];
            let decays = whole.dim() > 1 || vectors.iter().any(|vector| name.ends_with(vector));
            let spared = if decays { settings.weight_decay } else { 0.0 };
            Ok(Slot {
                name: name.clone(),
                piece_of,
                mean: weights.detach().zeros_like(),
                square: weights.detach().zeros_like(),
                weight_decay: group.and_then(|group| group.weight_decay).unwrap_or(spared),
                rate_factor: group.map_or(1.0, |group| group.learning_rate_factor),
                parameter: parameter.shallow_clone(),
                weights,
            })
        };
        let slots = pieces.into_iter().map(slot).collect::<Result<_>>()?;
        Ok(Self { settings: settings.clone(), slots, updates: 0, movement: Movement::Nothing })
    }

    /// Global L2 norm of all gradients. The host waits once for each device.
    ///
    /// # Errors
    /// [`Error::Torch`] where libtorch fails, as for want of memory.
    pub fn gradient_norm(&self) -> Result<f64> {
        Ok(self.gradient_squares()?.sqrt())
    }

    /// Sum of the squares of all gradients.
    pub(crate) fn gradient_squares(&self) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let gradients = self.slots.iter().map(|slot| slot.parameter.grad()).filter(Tensor::defined);
        let (mut squares, mut elsewhere) = (0.0, Vec::<Tensor>::new());
        for gradient in gradients {
            match entries([], &gradient) {
                Some(([], values)) => squares += square_sum(values),
                None => elsewhere.push(gradient),
            }
        }
        while let Some(device) = elsewhere.first().map(Tensor::device) {
            let (here, rest): (Vec<_>, Vec<_>) = elsewhere.into_iter().partition(|t| t.device() == device);
            let norm = simplemix_torch::norm(&here.iter().collect::<Vec<_>>())?;
            squares += simplemix_torch::device::read_all(&[&norm])?[0][0].powi(2);
            elsewhere = rest;
        }
        Ok(squares)
    }

    /// Updates the parameters with their gradients times `scale`; gradients are zero afterwards.
    ///
    /// # Errors
    /// [`Error::Torch`] where libtorch fails, as for want of memory; some parameters may be updated by then.
    pub fn update(&mut self, learning_rate: f64, scale: f64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.updates += 1;
        let update = Update { settings: &self.settings, learning_rate, scale, number: self.updates };
        let mut due: Vec<&mut Slot> = self.slots.iter_mut().filter(|slot| slot.parameter.grad().defined()).collect();
        // Until weights are known to move, copies of them are compared, so only those of one slot are made at a time.
        let at_once = if self.movement == Movement::Parameters { due.len().max(1) } else { 1 };
        for part in due.chunks_mut(at_once) {
            self.movement = update.run(part, self.movement)?;
        }
        Ok(())
    }

    /// Takes over what is known of the updates of other processes.
    pub(crate) fn set_movement(&mut self, movement: Movement) {
        self.movement = movement;
    }

    /// Effect of this optimiser's updates on the weights; those before [`AdamW::restore`] are not counted.
    pub fn movement(&self) -> Movement {
        self.movement
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

    /// Slots in the order of the pieces.
    pub(crate) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Restores the tensors of [`AdamW::state`] and the number of updates.
    ///
    /// # Errors
    /// [`Error::State`] for the first tensor that is absent or has another shape.
    pub fn restore(&mut self, state: &BTreeMap<String, Tensor>, updates: u64) -> Result<()> {
        self.restore_with(|name| Ok(state.get(name).map(Tensor::shallow_clone)), updates)
    }

    /// As [`AdamW::restore`]; `find` looks a tensor of the state up, one at a time.
    pub(crate) fn restore_with(
        &mut self,
        mut find: impl FnMut(&str) -> Result<Option<Tensor>>,
        updates: u64,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for slot in &self.slots {
            for (suffix, own) in slot.state() {
                let name = format!("{}.{suffix}", slot.name);
                let stored = find(&name)?;
                let shape = slot.piece_of.as_ref().map_or_else(|| own.size(), |(_, shape)| shape.clone());
                match (&stored, &slot.piece_of) {
                    (Some(stored), None) if stored.size() == shape => own.shallow_clone().copy_(stored),
                    (Some(stored), Some((start, _))) if stored.size() == shape => {
                        let piece = stored.flatten(0, -1).narrow(0, *start, own.numel() as i64);
                        own.shallow_clone().copy_(&piece);
                    }
                    (found, _) => return Err(Error::misshapen(&name, found.as_ref(), &shape)),
                }
            }
        }
        self.updates = updates;
        Ok(())
    }
}

impl Slot {
    /// Whether the parameter is rounded from its f32 copy.
    pub(crate) fn is_rounded(&self) -> bool {
        self.parameter.kind() != Kind::Float
    }

    /// Copies of what an update must change to be more than `movement`: weights and parameter, each if it matters.
    pub(crate) fn before(&self, movement: Movement) -> [Option<Tensor>; 2] {
        let weights = (movement == Movement::Nothing).then(|| self.weights.detach().copy());
        let parameter = (self.is_rounded() && movement < Movement::Parameters).then(|| self.parameter.detach().copy());
        [weights, parameter]
    }

    pub(crate) fn movement_since(&self, before: [Option<Tensor>; 2]) -> Movement {
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

    /// Part of the state with this name.
    pub(crate) fn part(&self, suffix: &str) -> &Tensor {
        let found = self.state().into_iter().find(|(name, _)| *name == suffix);
        found.expect("a slot has all parts of its state").1
    }

    fn state(&self) -> Vec<(&'static str, &Tensor)> {
        let mut state = vec![("exp_avg", &self.mean), ("exp_avg_sq", &self.square)];
        if self.is_rounded() {
            state.push(("master", &self.weights));
        }
        state
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

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
            adamw.update(0.1, 0.5).unwrap();
        }
        let values: Vec<f32> = p.detach().flatten(0, -1).try_into().unwrap();
        for (got, want) in values.iter().zip(FOLLOWS_TORCH) {
            assert!((got - want).abs() < 1e-6, "{got} {want}");
        }
        assert_eq!(f64::try_from(p.grad().abs().max()).unwrap(), 0.0);
    }

    const FOLLOWS_TORCH: [f32; 4] = [0.6989112, -1.6949446, 2.6917036, 0.2037124];

    #[test]
    fn both_kernels_agree() {
        let run = |fused: bool| {
            let p = Tensor::arange(40, (Kind::Float, Device::Cpu)).view([5, 8]).set_requires_grad(true);
            let settings = OptimizerSettings { weight_decay: 0.1, ..OptimizerSettings::default() };
            let mut adamw = AdamW::new(&[("p".into(), p.shallow_clone())], &settings).unwrap();
            for number in 1..=4 {
                (p.square() * &p).sum(Kind::Float).backward();
                let _guard = tch::no_grad_guard();
                let update = Update { settings: &settings, learning_rate: 0.01, scale: 0.7, number };
                let slot = &mut adamw.slots[0];
                if fused {
                    update.fused(&mut [slot]).unwrap();
                } else {
                    assert!(update.on_host(slot));
                }
                p.shallow_clone().zero_grad();
            }
            p.detach()
        };
        let difference = f64::try_from((run(true) - run(false)).abs().max()).unwrap();
        assert!(difference < 1e-5, "{difference}");
    }

    /// Once weights are known to move, all slots are updated together; the numbers are those of slots alone.
    #[test]
    fn slots_together_are_slots_alone() {
        let leaf = |size: i64| Tensor::arange(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let run = |known: Movement| {
            let (a, b) = (leaf(5), leaf(7).detach().to_kind(Kind::BFloat16).set_requires_grad(true));
            let named = [("a".to_owned(), a.shallow_clone()), ("b".to_owned(), b.shallow_clone())];
            let mut adamw = AdamW::new(&named, &OptimizerSettings::default()).unwrap();
            adamw.movement = known;
            for _ in 0..3 {
                (a.square().sum(Kind::Float) + b.square().sum(Kind::Float)).backward();
                adamw.update(0.1, 1.0).unwrap();
            }
            assert_eq!(adamw.movement(), Movement::Parameters);
            [a.detach(), b.detach()]
        };
        assert_eq!(run(Movement::Nothing), run(Movement::Parameters));
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
        assert!((adamw.gradient_norm().unwrap() - 33f64.sqrt()).abs() < 1e-6);
    }

    #[test]
    fn half_precision_is_rounded_from_a_copy_that_moves() {
        let p = Tensor::from_slice(&[1f32]).to_kind(Kind::BFloat16).set_requires_grad(true);
        let mut adamw = AdamW::new(&[("p".into(), p.shallow_clone())], &OptimizerSettings::default()).unwrap();
        // Steps of 0.001 are below half of what separates bf16 numbers near 1; together they are not.
        for _ in 0..20 {
            (&p * 2.0).sum(Kind::Float).backward();
            adamw.update(0.001, 1.0).unwrap();
        }
        assert!((p.double_value(&[0]) - 0.98).abs() < 0.003, "{}", p.double_value(&[0]));
        let state: BTreeMap<_, _> = adamw.state().into_iter().map(|(name, t)| (name, t.copy())).collect();
        assert!((state["p.master"].double_value(&[0]) - 0.98).abs() < 1e-5);
        let mut again = AdamW::new(&[("p".into(), p.shallow_clone())], &OptimizerSettings::default()).unwrap();
        again.restore(&state, 20).unwrap();
        assert_eq!(again.state()[2].1, state["p.master"]);
    }

    /// transformers 5.24: `Trainer.get_decay_parameter_names` of a `Qwen3_5ForCausalLM`.
    #[test]
    fn norms_and_biases_do_not_decay() {
        let of = |name: &str, shape: &[i64]| {
            let name = format!("model.layers.0.{name}");
            (name, Tensor::ones(shape, (Kind::Float, tch::Device::Cpu)).set_requires_grad(true))
        };
        let decaying =
            [of("linear_attn.A_log", &[2]), of("linear_attn.conv1d.weight", &[4, 1, 2]), of("w.weight", &[2, 2])];
        let others = [of("linear_attn.dt_bias", &[2]), of("linear_attn.norm.weight", &[2]), of("q_proj.bias", &[2])];
        let settings = OptimizerSettings { weight_decay: 0.5, ..OptimizerSettings::default() };
        for (parameters, decay) in [(&decaying, 0.5), (&others, 0.0)] {
            let all: Vec<_> = parameters.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
            let adamw = AdamW::new(&all, &settings).unwrap();
            assert!(adamw.slots.iter().all(|slot| slot.weight_decay == decay), "{decay}");
        }
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
        adamw.update(0.1, 1.0).unwrap();
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
