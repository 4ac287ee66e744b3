//! Mixtures of experts: a router gives each token a few of many feed-forward layers, whose results are added with its weights.
//!
//! Tokens are sorted by expert. On CUDA in half precision the matrices of all experts are one product
//! ([`simplemix_torch::grouped_linear`]), and the host waits for nothing; elsewhere each expert's rows are a product of their own, of
//! which the host has to know the numbers. Letters: T tokens, H width, E experts, K experts of a token, F width of an expert.

use std::cell::RefCell;
use std::collections::HashMap;

use simplemix_torch::{grouped_linear, records, side_by_side, takes_grouped};
use tch::{Device, Kind, TchError, Tensor};

use crate::activation::Active;
use crate::config::{EXPERT, Experts, ModelConfig, Routing, expert_weight};
use crate::decoder::{Linear, Products, forward};
use crate::error::{Doing, Result};
use crate::lora::{ByExpert, Lora};
use crate::packed::Packed;

/// How the matrices of experts are multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExpertsRoute {
    /// Each with its rows.
    Apart,
    /// All in one product.
    Grouped,
}

impl ExpertsRoute {
    /// The way that is taken for weights of this kind on a device.
    pub(crate) fn of(experts: Experts, hidden: i64, kind: Kind, device: Device) -> Self {
        let is_grouped = device.is_cuda() && kind == Kind::BFloat16 && takes_grouped(kind, [experts.width, hidden]);
        if is_grouped { Self::Grouped } else { Self::Apart }
    }
}

/// A mixture of experts.
#[derive(Debug)]
pub(crate) struct Mixture {
    config: Experts,
    pub(crate) route: ExpertsRoute,
    router: Tensor,             // [E, H]
    correction: Option<Tensor>, // [E]
    /// Gate, up and down of each expert.
    experts: Vec<[Linear; 3]>,
    /// Gate, up and down of the expert that every token has.
    shared: Option<[Linear; 3]>,
    active: Active,
    /// Matrices beside the router, gate and up of all experts, and down of all experts.
    loras: [Option<Lora>; 3],
}

/// Experts of each token.
struct Choice {
    /// Numbers of the experts, `[T, K]`.
    experts: Tensor,
    /// Factors of their results, `[T, K]`.
    weights: Tensor,
    /// The softmax of all experts in f32, `[T, E]`, where that is what they were chosen by.
    shares: Option<Tensor>,
}

/// Parts of a layer from which a mixture is made.
pub(crate) struct Made {
    pub(crate) router: Tensor,
    pub(crate) correction: Option<Tensor>,
    pub(crate) experts: Vec<[Linear; 3]>,
    pub(crate) shared: Option<[Linear; 3]>,
    /// Matrices beside the router, gate and up of all experts, and down of all experts.
    pub(crate) loras: [Option<Lora>; 3],
}

impl Mixture {
    pub(crate) fn new(config: Experts, model: &ModelConfig, made: Made) -> Self {
        let Made { router, correction, experts, shared, loras } = made;
        let route = ExpertsRoute::of(config, model.hidden_size, router.kind(), router.device());
        Self { config, route, router, correction, experts, shared, active: Active::Fixed(model.activation), loras }
    }

    /// Sum `[T, H]` of the results of each token's experts for `x` `[T, H]`. `loads` are told what the router chose.
    pub(crate) fn forward(&self, x: &Tensor, products: Products<'_>, loads: Option<&Loads>) -> Result<Tensor> {
        let choice = self.choose(x, products)?;
        if let (Some(loads), Some(shares)) = (loads, &choice.shares) {
            loads.add(self.config, &choice.experts, shares).doing("loads of experts")?;
        }
        let mixed = self.mixed(x, &choice, products)?;
        match &self.shared {
            None => Ok(mixed),
            Some([gate, up, down]) => {
                let both = forward(&[gate, up], x, products)?;
                let shared = down.forward(&self.active.gated(&both[0], &both[1])?, products)?;
                mixed.f_add(&shared).doing("experts")
            }
        }
    }

    fn choose(&self, x: &Tensor, products: Products<'_>) -> Result<Choice> {
        let per_token = self.config.per_token;
        match self.config.routing {
            Routing::Softmax { normed, rounded } => {
                let logits = self.routed(products.plain(x, &self.router)?, x)?; // [T, E]
                let choose = || {
                    let shares = logits.f_softmax(-1, Kind::Float)?;
                    let (weights, experts) = shares.f_topk(per_token, -1, true, true)?;
                    let weights = if normed { divided(&weights, 0.0)? } else { weights };
                    let weights = if rounded { weights.f_to_kind(logits.kind())? } else { weights };
                    Ok::<_, TchError>(Choice { experts, weights, shares: Some(shares) })
                };
                choose().doing("a router")
            }
            Routing::Sigmoid { normed, groups, groups_per_token, scale } => {
                let wide = |t: &Tensor| t.f_to_kind(Kind::Float).doing("a router");
                let x = wide(x)?;
                let logits = self.routed(products.plain(&x, &wide(&self.router)?)?, &x)?;
                let choose = || {
                    let scores = logits.f_sigmoid()?;
                    let experts = tch::no_grad(|| self.best(&scores.detach(), groups, groups_per_token))?;
                    let weights = scores.f_gather(1, &experts, false)?;
                    let weights = if normed { divided(&weights, 1e-20)? } else { weights };
                    Ok::<_, TchError>(Choice { experts, weights: weights * scale, shares: None })
                };
                choose().doing("a router")
            }
        }
    }

    /// The router's logits for `x` `[T, H]` with an adapter's part.
    fn routed(&self, logits: Tensor, x: &Tensor) -> Result<Tensor> {
        match &self.loras[0] {
            Some(lora) => lora.add_to(&logits, &x.f_to_kind(lora.kind()).doing("an adapter")?, None, None),
            None => Ok(logits),
        }
    }

    /// Matrices beside gate and up, and beside down, of each expert, for `x`.
    fn adapters(&self, x: &Tensor, multiple: i64) -> Result<[Option<ByExpert>; 2]> {
        let of = |lora: &Option<Lora>| {
            lora.as_ref().map(|lora| lora.by_expert(self.config.count, x.kind(), multiple)).transpose()
        };
        Ok([of(&self.loras[1])?, of(&self.loras[2])?])
    }

    /// `act(gate) * up`, where an adapter adds `added` `[T, 2 F]` to both.
    fn gated(&self, gate: &Tensor, up: &Tensor, added: Option<Tensor>) -> Result<Tensor> {
        let Some(added) = added else { return self.active.gated(gate, up) };
        let halves = added.f_chunk(2, -1).doing("an adapter of experts")?;
        let sum = |plain: &Tensor, half: &Tensor| plain.f_add(half).doing("an adapter of experts");
        self.active.gated(&sum(gate, &halves[0])?, &sum(up, &halves[1])?)
    }

    /// Experts with the highest corrected scores `[T, K]`, of the groups whose two best ones have the highest sums.
    fn best(&self, scores: &Tensor, groups: i64, groups_per_token: i64) -> std::result::Result<Tensor, TchError> {
        let corrected = match &self.correction {
            Some(correction) => scores.f_add(&correction.detach().f_to_kind(Kind::Float)?)?,
            None => scores.shallow_clone(),
        };
        let corrected = if groups_per_token < groups {
            let by_group = corrected.f_unflatten(1, [groups, -1])?; // [T, G, E / G]
            let sums = by_group.f_topk(2, -1, true, true)?.0.f_sum_dim_intlist(-1, false, None)?;
            let (_, best) = sums.f_topk(groups_per_token, -1, true, true)?;
            let others = sums.f_ones_like()?.f_scatter_value(1, &best, 0.0)?.f_to_kind(Kind::Bool)?;
            by_group.f_masked_fill(&others.f_unsqueeze(-1)?, f64::NEG_INFINITY)?.f_flatten(1, 2)?
        } else {
            corrected
        };
        Ok(corrected.f_topk(self.config.per_token, -1, true, true)?.1)
    }

    /// Weighted sum of the chosen experts' results.
    fn mixed(&self, x: &Tensor, choice: &Choice, products: Products<'_>) -> Result<Tensor> {
        let (count, k) = (self.config.count, self.config.per_token);
        let sort = || {
            let flat = choice.experts.f_flatten(0, 1)?; // [T * K]
            let (sorted, order) = flat.f_sort_stable(true, 0, false)?;
            // A copy for each expert first, so that no gradient is a sum whose order is left to the device.
            let copies = x.f_unsqueeze(1)?.f_expand([-1, k, -1], false)?.f_flatten(0, 1)?;
            Ok::<_, TchError>((sorted, copies.f_index_select(0, &order)?, order))
        };
        let (sorted, rows, order) = sort().doing("sorting tokens by expert")?;
        let keys = match products.keys {
            Some(keys) => {
                let of_rows = || keys.f_index_select(0, &order.f_divide_scalar_mode(k, "floor")?);
                Some(of_rows().doing("sorting tokens by expert")?)
            }
            None => None,
        };
        let products = Products { keys: keys.as_ref(), ..products };
        let results = match self.route {
            ExpertsRoute::Apart => self.apart(&rows, &host_counts(&sorted, count)?, products)?,
            ExpertsRoute::Grouped => self.grouped(&rows, &sorted)?,
        };
        let add = || {
            let weights = choice.weights.f_flatten(0, 1)?.f_index_select(0, &order)?;
            let weighted = results.f_mul(&weights.f_unsqueeze(1)?)?;
            let places = order.f_empty_like()?.f_scatter(
                0,
                &order,
                &Tensor::f_arange(order.size()[0], (Kind::Int64, order.device()))?,
            )?;
            let by_token = weighted.f_index_select(0, &places)?.f_unflatten(0, [-1, k])?; // [T, K, H]
            by_token.f_sum_dim_intlist(1, false, None)?.f_to_kind(x.kind())
        };
        add().doing("adding experts' results")
    }

    /// Results `[T * K, H]` of the sorted `rows`, of which each expert has so many.
    fn apart(&self, rows: &Tensor, counts: &[i64], products: Products<'_>) -> Result<Tensor> {
        let (mut start, mut results) = (0, Vec::new());
        let [of_gate_up, of_down] = self.adapters(rows, 1)?;
        for (expert, ([gate, up, down], &count)) in self.experts.iter().zip(counts).enumerate() {
            // Experts without rows have gradients of zero, so that an optimiser moves them as those of one tensor.
            if count == 0 && !records(&[gate.weight(), up.weight(), down.weight()])? {
                continue;
            }
            let own = rows.f_narrow(0, start, count).doing("rows of an expert")?;
            let keys = products.keys.map(|keys| keys.narrow(0, start, count));
            let products = Products { keys: keys.as_ref(), ..products };
            let both = forward(&[gate, up], &own, products)?;
            let part = |of: &Option<ByExpert>, x: &Tensor| of.as_ref().map(|of| of.add(expert, x)).transpose();
            let active = self.gated(&both[0], &both[1], part(&of_gate_up, &own)?)?;
            let result = down.forward(&active, products)?;
            results.push(match part(&of_down, &active)? {
                Some(added) => result.f_add(&added).doing("an adapter of experts")?,
                None => result,
            });
            start += count;
        }
        Tensor::f_cat(&results, 0).doing("rows of experts")
    }

    /// As [`Mixture::apart`], in three products, where `sorted` `[T * K]` are the experts of the rows.
    fn grouped(&self, rows: &Tensor, sorted: &Tensor) -> Result<Tensor> {
        let ends = device_ends(sorted, self.config.count).doing("counting rows of experts")?;
        let all = |part: usize| self.experts.iter().map(|expert| expert[part].weight()).collect::<Vec<_>>();
        let (gate, up) = (grouped_linear(rows, &ends, &all(0))?, grouped_linear(rows, &ends, &all(1))?);
        // Rows of the narrow products too are multiples of 16 bytes.
        let [of_gate_up, of_down] = self.adapters(rows, 16 / rows.kind().elt_size_in_bytes() as i64)?;
        let part = |of: &Option<ByExpert>, x: &Tensor| of.as_ref().map(|of| of.add_grouped(x, &ends)).transpose();
        let active = self.gated(&gate, &up, part(&of_gate_up, rows)?)?;
        let results = grouped_linear(&active, &ends, &all(2))?;
        match part(&of_down, &active)? {
            Some(added) => results.f_add(&added).doing("an adapter of experts"),
            None => Ok(results),
        }
    }
}

impl ByExpert {
    /// `x A^T B^T * scale` `[T, O]` of the matrices of one expert.
    fn add(&self, expert: usize, x: &Tensor) -> Result<Tensor> {
        let low = || Ok::<_, TchError>(x.f_linear(&self.a[expert], None::<&Tensor>)? * self.scale);
        low().and_then(|low| low.f_linear(&self.b[expert], None::<&Tensor>)).doing("an adapter of experts")
    }

    /// As [`ByExpert::add`], of all experts, whose rows end at `ends` `[E]`.
    fn add_grouped(&self, x: &Tensor, ends: &Tensor) -> Result<Tensor> {
        let low = grouped_linear(x, ends, &self.a.iter().collect::<Vec<_>>())? * self.scale;
        Ok(grouped_linear(&low, ends, &self.b.iter().collect::<Vec<_>>())?)
    }
}

/// `x` over the sums of its rows, to which `eps` is added.
fn divided(x: &Tensor, eps: f64) -> std::result::Result<Tensor, TchError> {
    let sums = x.f_sum_dim_intlist(-1, true, None)?;
    x.f_div(&if eps == 0.0 { sums } else { sums + eps })
}

/// Rows of each expert, of which the host waits for the device.
fn host_counts(sorted: &Tensor, experts: i64) -> Result<Vec<i64>> {
    let counted = || sorted.f_bincount(None::<Tensor>, experts);
    Vec::try_from(counted().doing("counting rows of experts")?).doing("counting rows of experts")
}

/// Place after the last row of each expert, i32 on the device.
fn device_ends(sorted: &Tensor, experts: i64) -> std::result::Result<Tensor, TchError> {
    let all = Tensor::f_arange(experts, (Kind::Int64, sorted.device()))?;
    all.f_searchsorted(sorted, true, true, "right", None::<Tensor>)
}

/// Lets the experts' matrices of a layer that are multiplied in one product lie in one memory.
pub(crate) fn lay_together(
    config: &ModelConfig,
    (kind, device): (Kind, Device),
    tensors: &mut HashMap<String, Tensor>,
) -> Result<()> {
    let sparse = (0..config.num_hidden_layers).filter_map(|layer| Some((layer, config.experts_of(layer)?)));
    for (layer, experts) in sparse {
        if ExpertsRoute::of(experts, config.hidden_size, kind, device) == ExpertsRoute::Apart {
            return Ok(());
        }
        for part in EXPERT {
            let name = |expert| config.names.tensor(&format!("model.layers.{layer}.{}", expert_weight(expert, part)));
            let names: Vec<String> = (0..experts.count).map(name).collect();
            let apart: Vec<&Tensor> = names.iter().map(|name| &tensors[name]).collect();
            let together = side_by_side(&apart)?;
            tensors.extend(names.into_iter().zip(together));
        }
    }
    Ok(())
}

/// How evenly the router of each layer of a pass spreads the tokens: numbers of the loss of Switch Transformer (Fedus et al. 2021,
/// arXiv:2101.03961, equations 4 to 6), as transformers computes it.
#[derive(Debug)]
pub(crate) struct Loads {
    /// How many sequences have the token, f32 `[T]`.
    weights: Tensor,
    /// Sum of the weights.
    total: f64,
    /// Weighted sums of each layer over its tokens, f32 `[E]`: of choices, and of shares.
    of_layers: RefCell<Vec<[Tensor; 2]>>,
}

impl Loads {
    /// None yet, for tokens of which as many are counted as sequences have them. The tensor is on the host.
    pub(crate) fn of(packed: &Packed) -> Self {
        let weights = packed.uses();
        let total = weights.iter().map(|&weight| f64::from(weight)).sum();
        Self { weights: Tensor::from_slice(&weights), total, of_layers: RefCell::default() }
    }

    pub(crate) fn tensor_mut(&mut self) -> &mut Tensor {
        &mut self.weights
    }

    fn add(&self, config: Experts, chosen: &Tensor, shares: &Tensor) -> std::result::Result<(), TchError> {
        let choices = tch::no_grad(|| {
            let each = self.weights.f_unsqueeze(1)?.f_expand_as(chosen)?.f_flatten(0, 1)?;
            let zeros = Tensor::f_zeros([config.count], (Kind::Float, chosen.device()))?;
            zeros.f_scatter_add(0, &chosen.f_flatten(0, 1)?, &each)
        })?;
        let shares = self.weights.f_unsqueeze(0)?.f_mm(shares)?.f_squeeze_dim(0)?;
        self.of_layers.borrow_mut().push([choices, shares]);
        Ok(())
    }

    /// Shares of the layer that was computed last, which are forgotten with all others.
    pub(crate) fn take_shares(&self) -> Option<Tensor> {
        self.of_layers.take().pop().map(|[_, shares]| shares)
    }

    /// Sums over all layers since the last call, of choices and of shares, `[E]` each.
    pub(crate) fn take_sums(&self) -> Result<Option<[Tensor; 2]>> {
        let layers = self.of_layers.take();
        let sum = |part: usize| {
            let all: Vec<&Tensor> = layers.iter().map(|layer| &layer[part]).collect();
            let mean = Tensor::f_stack(&all, 0)?.f_sum_dim_intlist(0, false, None)?;
            Ok::<_, TchError>(mean / (self.total * layers.len() as f64))
        };
        match layers.is_empty() {
            true => Ok(None),
            false => Ok(Some([sum(0).doing("loads of experts")?, sum(1).doing("loads of experts")?])),
        }
    }

    /// Loss of mean choices and shares `[E]`: `E sum(choices shares)`, a scalar.
    pub(crate) fn loss([choices, shares]: &[Tensor; 2]) -> Result<Tensor> {
        let loss = || Ok::<_, TchError>(choices.f_dot(shares)? * choices.size()[0] as f64);
        loss().doing("the router's loss")
    }

    /// Factor of the sum of shares of a layer in their mean over all `layers`.
    pub(crate) fn factor(&self, layers: usize) -> f64 {
        1.0 / (self.total * layers as f64)
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::causal_lm::CausalLm;
    use crate::decoder::Fed;
    use crate::packed::Targets;

    fn folder(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families").join(name)
    }

    fn model(name: &str, kind: Kind, route: ExpertsRoute) -> CausalLm {
        taking(CausalLm::load(&folder(name), kind, Device::Cpu).unwrap(), route)
    }

    fn taking(mut model: CausalLm, route: ExpertsRoute) -> CausalLm {
        for layer in &mut model.network.layers {
            if let Fed::Experts(mixture) = &mut layer.fed {
                mixture.route = route;
            }
        }
        model.set_trainable(true);
        model
    }

    fn pair() -> Packed {
        let (mut packed, mut targets) = (Packed::new().whole(), Targets::default());
        let prompt = packed.push(&[1, 2, 3, 4]).unwrap();
        packed.push_response(prompt, &[5, 6, 7], &mut targets).unwrap();
        packed.push_response(prompt, &[8, 9], &mut targets).unwrap();
        packed
    }

    fn off(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[]) / b.abs().max().double_value(&[]).max(1e-3)
    }

    /// The way that CUDA takes, with libtorch's grouped product on the CPU.
    #[test]
    fn one_product_for_all_experts_is_that_of_each() {
        let families = ["qwen3_moe", "olmoe", "mixtral", "glm4_moe"].map(|name| (name, Kind::Float, [1e-5, 1e-4]));
        for (name, kind, bounds) in families.into_iter().chain([("qwen3_moe", Kind::BFloat16, [2e-2, 2e-2])]) {
            let [apart, grouped] = [ExpertsRoute::Apart, ExpertsRoute::Grouped].map(|route| {
                let model = model(name, kind, route);
                let (states, loss) = model.routed_states(&pair(), &mut []).unwrap();
                let total = states.square().sum(Kind::Float);
                loss.map_or(total.shallow_clone(), |loss| total + loss).backward();
                (states, model)
            });
            assert!(off(&grouped.0, &apart.0) < bounds[0], "{name} {kind:?}: {}", off(&grouped.0, &apart.0));
            for ((tensor, a), (_, b)) in grouped.1.trainable_parameters().iter().zip(apart.1.trainable_parameters()) {
                if b.grad().defined() {
                    let off = off(&a.grad(), &b.grad());
                    assert!(off < bounds[1], "{name} {kind:?} {tensor}: {off}");
                }
            }
        }
    }

    /// Ranks of 1, 2, 3 and 4, which are filled up to the width of a row.
    #[test]
    fn adapters_in_one_product_are_those_of_each_expert() {
        for name in ["experts_all", "experts_named", "experts_alone", "experts_in_groups"] {
            let adapter = folder("../lora").join(name);
            let text = std::fs::read_to_string(adapter.join("adapter_config.json")).unwrap();
            let settings: serde_json::Value = serde_json::from_str(&text).unwrap();
            let base = settings["base_model_name_or_path"].as_str().unwrap();
            let [apart, grouped] = [ExpertsRoute::Apart, ExpertsRoute::Grouped].map(|route| {
                let mut base = CausalLm::load(&folder(base), Kind::Float, Device::Cpu).unwrap();
                base.load_adapter("a", &adapter).unwrap();
                let model = taking(base.with_adapter(Some("a")).unwrap(), route);
                let states = model.hidden_states(&pair()).unwrap();
                states.square().sum(Kind::Float).backward();
                (states, model)
            });
            assert!(off(&grouped.0, &apart.0) < 1e-5, "{name}");
            for ((tensor, a), (_, b)) in grouped.1.trainable_parameters().iter().zip(apart.1.trainable_parameters()) {
                assert!(off(&a.grad(), &b.grad()) < 1e-4, "{name} {tensor}");
            }
        }
    }

    #[test]
    fn tokens_count_for_each_sequence_that_has_them() {
        assert_eq!(pair().uses(), [2.0, 2.0, 2.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
        let mut alone = Packed::new();
        alone.push(&[1, 2]).unwrap();
        assert_eq!(alone.uses(), [1.0, 1.0]);
    }

    /// Counted by hand: all choose expert 0 with a share of 1 in one layer, and both evenly in the other.
    #[test]
    fn the_loss_is_one_where_loads_are_even() {
        let mut packed = Packed::new();
        packed.push(&[1, 2]).unwrap();
        let config = Experts {
            count: 2,
            per_token: 1,
            width: 1,
            shared_width: 0,
            routing: Routing::Softmax { normed: true, rounded: false },
            aux_loss_coef: Some(1.0),
        };
        let even = Tensor::from_slice(&[0.5f32, 0.5, 0.5, 0.5]).view([2, 2]);
        let one = Tensor::from_slice(&[1f32, 0.0, 1.0, 0.0]).view([2, 2]);
        let (both, first) = (Tensor::from_slice(&[0i64, 1]).view([2, 1]), Tensor::from_slice(&[0i64, 0]).view([2, 1]));
        let loss = |layers: &[(&Tensor, &Tensor)]| {
            let loads = Loads::of(&packed);
            layers.iter().for_each(|(chosen, shares)| loads.add(config, chosen, shares).unwrap());
            Loads::loss(&loads.take_sums().unwrap().unwrap()).unwrap().double_value(&[])
        };
        assert_eq!(loss(&[(&both, &even)]), 1.0);
        assert_eq!(loss(&[(&first, &one)]), 2.0);
        // Means over both layers are 3/4 and 1/4.
        assert_eq!(loss(&[(&both, &even), (&first, &one)]), 2.0 * (0.75 * 0.75 + 0.25 * 0.25));
    }

    #[test]
    fn experts_lie_in_one_memory_where_they_are_one_product() {
        let model = model("qwen3_moe", Kind::Float, ExpertsRoute::Apart);
        let named = || model.parameters.iter().map(|(name, tensor)| (name.clone(), tensor.detach()));
        let mut tensors: HashMap<String, Tensor> = named().collect();
        lay_together(model.config(), (Kind::Float, Device::Cpu), &mut tensors).unwrap();
        for (name, tensor) in named() {
            assert_eq!(tensor.data_ptr(), tensors[&name].data_ptr(), "{name}");
        }
        let config = model.config();
        let experts = config.experts.unwrap();
        let is_grouped =
            |kind, device| ExpertsRoute::of(experts, config.hidden_size, kind, device) == ExpertsRoute::Grouped;
        assert!(is_grouped(Kind::BFloat16, Device::Cuda(0)) && !is_grouped(Kind::BFloat16, Device::Cpu));
        lay_together(model.config(), (Kind::BFloat16, Device::Cuda(0)), &mut tensors).unwrap();
        for (name, tensor) in named() {
            assert_eq!(tensor, tensors[&name], "{name}");
        }
        let [first, second] =
            [0, 1].map(|expert| &tensors[&format!("model.layers.0.{}", expert_weight(expert, EXPERT[0]))]);
        assert_eq!(second.data_ptr() as usize - first.data_ptr() as usize, 4 * first.numel());
    }
}
