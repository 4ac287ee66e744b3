//! Matrices beside the tensors of all experts of a layer, and beside the router: peft's `target_parameters`.
//!
//! transformers 5 holds the experts of a layer as two tensors, `gate_up_proj` and `down_proj`, which peft gives a pair of matrices for
//! each expert: A `[E * r, I]`, expert by expert, and B `[O, r * E]`, in which the experts lie side by side within each of the ranks.
//! Names of linear layers of experts, as transformers 4 had them, stand for these, as in peft 0.21. Letters: E experts, r rank, I
//! inputs, O outputs.

use tch::{Kind, TchError, Tensor};

use super::config::{LoraConfig, LoraTargets, refused};
use super::parts::{Place, Target};
use super::tensors::{Change, Lora, Pair};
use crate::config::{EXPERT, Experts, ModelConfig, expert_weight};
use crate::error::{Doing, Result};

/// Tensors that may have matrices: peft's name, and the names of layers that stand for it.
const PARAMETERS: [(&str, Parameter, &[&str]); 3] = [
    ("gate.weight", Parameter::Router, &["gate"]),
    ("gate_up_proj", Parameter::GateUp, &["gate_proj", "up_proj", "w1", "w3"]),
    ("down_proj", Parameter::Down, &["down_proj", "w2"]),
];

/// A tensor of a mixture of experts, as transformers' classes have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameter {
    /// The router's weight.
    Router,
    /// Gate and up of all experts.
    GateUp,
    /// Down of all experts.
    Down,
}

impl Parameter {
    /// Module that holds the tensor, in a layer, and the tensor's name there.
    fn place(self) -> [&'static str; 2] {
        match self {
            Self::Router => ["mlp.gate", "weight"],
            Self::GateUp => ["mlp.experts", "gate_up_proj"],
            Self::Down => ["mlp.experts", "down_proj"],
        }
    }

    /// Outputs, inputs and matrices of each kind.
    fn sizes(self, experts: Experts, hidden: i64) -> [i64; 3] {
        match self {
            Self::Router => [experts.count, hidden, 1],
            Self::GateUp => [2 * experts.width, hidden, experts.count],
            Self::Down => [hidden, experts.width, experts.count],
        }
    }
}

/// transformers' name of a tensor of layer `layer`.
pub(crate) fn parameter_name(model: &ModelConfig, layer: usize, parameter: Parameter) -> String {
    let [module, tensor] = parameter.place();
    format!("{}.{tensor}", model.names.module(&format!("model.layers.{layer}.{module}")))
}

impl LoraConfig {
    /// These settings in the words of today's class: names of experts' layers, and `all-linear`, are tensors of experts there, as peft
    /// makes them when it puts an adapter on a model.
    ///
    /// # Errors
    /// [`crate::Error::Input`] for names that peft refuses, and for patterns.
    pub(super) fn resolved(&self, model: &ModelConfig) -> Result<Self> {
        let Some(_) = model.experts else { return self.without_parameters() };
        let mut resolved = self.clone();
        let names: Vec<String> = match &self.targets {
            LoraTargets::AllLinear => {
                let experts = ["gate", "gate_proj", "up_proj", "down_proj"].map(str::to_owned);
                model.projection_names().into_iter().chain(experts).collect()
            }
            LoraTargets::Named(names) => names.clone(),
            LoraTargets::Pattern(pattern) => {
                let expected = "names (`lora.targets`), which peft makes tensors of experts of";
                return refused(
                    "pattern of an adapter's layers, of a model with experts",
                    format!("`{pattern}`"),
                    expected,
                );
            }
        };
        let parameter = |name: &str| {
            let last = name.rsplit('.').next().unwrap_or(name);
            PARAMETERS.iter().find(|(.., layers)| layers.contains(&last)).map(|(tensor, ..)| *tensor)
        };
        let (of_experts, others): (Vec<String>, Vec<String>) =
            names.into_iter().partition(|name| parameter(name).is_some());
        let has = |part: &str| of_experts.iter().any(|name| name.rsplit('.').next() == Some(part));
        let [gate, up] = [has("gate_proj") || has("w1"), has("up_proj") || has("w3")];
        if gate != up {
            let (present, missing) = if gate { ("gate_proj", "up_proj") } else { ("up_proj", "gate_proj") };
            let found = format!("`{present}` without `{missing}`");
            return refused("targets of an adapter", found, "both or neither: they are one tensor, as peft says");
        }
        for name in of_experts.iter().filter_map(|name| parameter(name)) {
            if !resolved.parameters.iter().any(|known| known == name) {
                resolved.parameters.push(name.to_owned());
            }
        }
        if gate {
            // Two layers' ranks are one tensor's.
            let pattern = r".*\.gate_up_proj".to_owned();
            resolved.rank_pattern.push((pattern.clone(), 2 * self.rank));
            resolved.alpha_pattern.push((pattern, 2.0 * self.alpha));
        }
        resolved.targets = LoraTargets::Named(others);
        resolved.parameters.sort();
        Ok(resolved)
    }

    fn without_parameters(&self) -> Result<Self> {
        match self.parameters.first() {
            None => Ok(self.clone()),
            Some(name) => refused(
                "tensor of experts that an adapter changes",
                format!("`{name}`, and the model has no experts"),
                "names of layers (`lora.targets`)",
            ),
        }
    }

    /// The tensors of experts that the adapter changes.
    pub(super) fn parameter_targets(&self, model: &ModelConfig) -> Result<Vec<Target>> {
        let mut all = Vec::new();
        for layer in 0..model.num_hidden_layers {
            let Some(experts) = model.experts_of(layer) else { continue };
            let named = |parameter: Parameter| {
                let full = parameter_name(model, layer, parameter);
                let is_named = |name: &String| full == *name || full.ends_with(&format!(".{name}"));
                self.parameters.iter().any(is_named).then_some(full)
            };
            let has_down = named(Parameter::Down).is_some();
            for parameter in [Parameter::Router, Parameter::GateUp, Parameter::Down] {
                let Some(full) = named(parameter) else { continue };
                let [outputs, inputs, matrices] = parameter.sizes(experts, model.hidden_size);
                let (rank, alpha) = self.of_module(&full)?;
                let (module, _) = full.rsplit_once('.').unwrap_or((&full, ""));
                // peft wraps the module once for each of its tensors, the last of them outermost.
                let nested = if parameter == Parameter::GateUp && has_down { ".base_layer" } else { "" };
                let (module, place) = (format!("{module}{nested}"), Place::Parameter(parameter, layer));
                all.push(Target { module, place, outputs, inputs, rank, alpha, experts: matrices, full });
            }
        }
        let is_known = |name: &&String| {
            let ends = |target: &Target| target.full == **name || target.full.ends_with(&format!(".{name}"));
            !all.iter().any(ends)
        };
        if let Some(name) = self.parameters.iter().find(is_known) {
            let found = format!("`{name}`, which matches no such tensor");
            return refused(
                "tensor of experts that an adapter changes",
                found,
                "`gate_up_proj`, `down_proj` or `gate.weight`",
            );
        }
        if !all.is_empty() && (self.dropout > 0.0 || self.dora) {
            let found = if self.dora { "DoRA".to_owned() } else { format!("dropout of {}", self.dropout) };
            let expected = "neither dropout nor DoRA, as in peft; or names of layers without experts (`lora.targets`), such as `q_proj`";
            return refused("adapter of experts", found, expected);
        }
        Ok(all)
    }
}

/// Matrices of each expert.
pub(crate) struct ByExpert {
    /// A of each `[r, I]`.
    pub(crate) a: Vec<Tensor>,
    /// B of each `[O, r]`.
    pub(crate) b: Vec<Tensor>,
    pub(crate) scale: f64,
}

impl Lora {
    /// The matrices of each of `experts`, in `kind`, with ranks filled up with zeros to a multiple of `multiple`.
    pub(crate) fn by_expert(&self, experts: i64, kind: Kind, multiple: i64) -> Result<ByExpert> {
        let Pair { a, b, scale } = &self.pair;
        let split = || {
            let rank = a.size()[0] / experts;
            let missing = (multiple - rank % multiple) % multiple;
            let a = a.f_to_kind(kind)?.f_view([experts, rank, -1])?;
            let b = b.f_to_kind(kind)?.f_view([-1, rank, experts])?.f_permute([2, 0, 1])?;
            let (a, b) = match missing {
                0 => (a, b.f_contiguous()?),
                _ => (a.f_constant_pad_nd([0, 0, 0, missing])?, b.f_constant_pad_nd([0, missing])?),
            };
            Ok::<_, TchError>(ByExpert { a: a.f_unbind(0)?, b: b.f_unbind(0)?, scale: *scale })
        };
        split().doing("an adapter of experts")
    }
}

/// Changes of the experts' weights by the matrices beside one tensor of a layer, by name.
pub(super) fn changes(model: &ModelConfig, layer: usize, parameter: Parameter, pair: &Pair) -> Vec<(String, Change)> {
    let name = |inner: String| model.names.tensor(&format!("model.layers.{layer}.{inner}"));
    let linear = |pair: Pair| Change::Linear(Lora { pair, dora: None, dropout: None });
    let parts: &[&str] = match parameter {
        Parameter::Router => return vec![(name(crate::config::ROUTER.to_owned()), linear(pair.clone()))],
        Parameter::GateUp => &EXPERT[..2],
        Parameter::Down => &EXPERT[2..],
    };
    let Some(experts) = model.experts_of(layer) else { return Vec::new() };
    let _guard = tch::no_grad_guard();
    let rank = pair.a.size()[0] / experts.count;
    let by_expert = pair.b.detach().view([-1, rank, experts.count]);
    let rows = by_expert.size()[0] / parts.len() as i64;
    let of = |expert: i64, place: usize| Pair {
        a: pair.a.detach().narrow(0, expert * rank, rank),
        b: by_expert.select(2, expert).narrow(0, place as i64 * rows, rows),
        scale: pair.scale,
    };
    let parts = || parts.iter().enumerate();
    (0..experts.count)
        .flat_map(|expert| parts().map(move |(place, part)| (expert, place, *part)))
        .map(|(expert, place, part)| (name(expert_weight(expert, part)), linear(of(expert, place))))
        .collect()
}
