//! Attention kernels that libtorch chooses from, each switched on alone: what takes a call, its numbers, and the time of the
//! first call of a shape against the second, which tells of plans.

use anyhow::{Result, ensure};
use simplemix::tch::{Device, Kind, Tensor};
use simplemix::torch::{AttentionKernels, backward, causal_mask};

use crate::Setting;
use crate::numbers::{random, relative, wide};
use crate::report::{Found, Report, timed};

/// A call as simplemix makes it.
#[derive(Clone, Copy, PartialEq)]
enum Call {
    /// A run of prompt and response.
    Causal,
    /// A further response under a mask, heads of keys repeated.
    Masked,
    /// A token after a cache, whose first columns are padding.
    Decoding,
}

/// Query heads, key heads, width.
const HEADS: [[i64; 3]; 3] = [[8, 2, 64], [4, 4, 128], [2, 1, 256]];
const QUERIES: i64 = 70;
const KEYS: i64 = 96;

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    let place = setting.device;
    let before = AttentionKernels::get();
    for kind in [Kind::Float, Kind::BFloat16] {
        for heads in HEADS {
            for (call, name) in [(Call::Causal, "causal"), (Call::Masked, "masked"), (Call::Decoding, "decoding")] {
                let shapes = format!("heads {}/{} of {}, {QUERIES} over {KEYS}", heads[0], heads[1], heads[2]);
                report.check(&format!("attention kernels, {name}"), &shapes, kind, || {
                    kernels(place, kind, heads, call)
                })?;
            }
        }
    }
    before.set();
    report.check("attention kernels are as before", "", Kind::Float, || {
        ensure!(AttentionKernels::get() == before, "{:?}", AttentionKernels::get());
        Ok(Found::told())
    })
}

/// Tries every kernel alone. One that must take the call fails the check where it does not.
fn kernels(place: Device, kind: Kind, heads: [i64; 3], call: Call) -> Result<Found> {
    let none = AttentionKernels { flash: false, efficient: false, math: false, cudnn: false };
    let half = kind == Kind::BFloat16;
    let gpu = place != Device::Cpu;
    // Needed on a GPU: a kernel that holds no products, for each call in half precision.
    let choices = [
        ("flash", AttentionKernels { flash: true, ..none }, gpu && half && call == Call::Causal),
        ("efficient", AttentionKernels { efficient: true, ..none }, gpu && call == Call::Masked),
        ("math", AttentionKernels { math: true, ..none }, true),
        ("cudnn", AttentionKernels { cudnn: true, ..none }, false),
    ];
    let inputs = Inputs::new(place, kind, heads, call)?;
    let wanted = inputs.wanted()?;
    let (mut errors, mut found) = (Vec::new(), Found::told());
    for (name, choice, is_needed) in choices {
        choice.set();
        let run = || timed(place, || inputs.attend(inputs.leaves()));
        match run() {
            Ok((tensors, first_ms)) => {
                let second_ms = run()?.1;
                errors.extend(tensors.iter().zip(&wanted).map(|(found, wanted)| relative(found, wanted)));
                found = found.note(name, serde_json::json!({ "first_ms": first_ms, "second_ms": second_ms }));
            }
            Err(error) if is_needed => return Err(error.context(format!("the kernel `{name}`"))),
            Err(_) => found = found.note(name, "refuses"),
        }
    }
    AttentionKernels { flash: true, efficient: true, math: true, cudnn: false }.set();
    let bound = if half { 2e-2 } else { 1e-5 };
    Ok(found.hold(bound, errors))
}

struct Inputs {
    tensors: [Tensor; 3],
    gradient: Tensor,
    mask: Option<Tensor>,
    call: Call,
    scale: f64,
}

impl Inputs {
    fn new(place: Device, kind: Kind, [heads, key_heads, width]: [i64; 3], call: Call) -> Result<Self> {
        let (queries, keys) = match call {
            Call::Causal => (KEYS, KEYS),
            Call::Masked => (QUERIES, KEYS),
            Call::Decoding => (1, KEYS),
        };
        let rows = if call == Call::Decoding { 4 } else { 1 };
        let key_heads = if call == Call::Masked { heads } else { key_heads };
        let mask = match call {
            Call::Causal => None,
            Call::Masked => Some(causal_mask((KEYS - QUERIES, queries), (0, keys), None, (kind, place))),
            Call::Decoding => {
                let column = Tensor::arange(keys, (Kind::Int64, place));
                let first = Tensor::from_slice(&[0i64, 3, 17, 40]).view([4, 1]).to_device(place);
                let zeros = Tensor::zeros([4, keys], (kind, place));
                let padded = column.unsqueeze(0).lt_tensor(&first);
                Some(zeros.f_masked_fill(&padded, f64::NEG_INFINITY)?.view([4, 1, 1, keys]))
            }
        };
        // Queries of a key head are its rows in decoding, as simplemix feeds them.
        let (heads, queries) = if call == Call::Decoding { (key_heads, heads / key_heads) } else { (heads, queries) };
        let tensors = [
            random(&[rows, heads, queries, width], kind, place, 1),
            random(&[rows, key_heads, keys, width], kind, place, 2),
            random(&[rows, key_heads, keys, width], kind, place, 3),
        ];
        let gradient = random(&[rows, heads, queries, width], kind, place, 4);
        Ok(Self { tensors, gradient, mask, call, scale: (width as f64).powf(-0.5) })
    }

    fn leaves(&self) -> [Tensor; 3] {
        self.tensors.each_ref().map(|t| t.detach().copy().set_requires_grad(true))
    }

    /// The mixed values and, but for decoding, the three gradients.
    fn attend(&self, [q, k, v]: [Tensor; 3]) -> Result<Vec<Tensor>> {
        let (causal, grouped) = (self.call == Call::Causal, q.size()[1] != k.size()[1]);
        let mask = self.mask.as_ref();
        let attend = || Tensor::f_scaled_dot_product_attention(&q, &k, &v, mask, 0.0, causal, self.scale, grouped);
        if self.call == Call::Decoding {
            return Ok(vec![simplemix::tch::no_grad(attend)?]);
        }
        let mixed = attend()?;
        backward(&[&mixed], &[&self.gradient])?;
        Ok(vec![mixed.detach(), q.grad(), k.grad(), v.grad()])
    }

    /// Values and gradients by plain products in f64 on the CPU.
    fn wanted(&self) -> Result<Vec<Tensor>> {
        let [q, k, v] = self.tensors.each_ref().map(|t| wide(t).set_requires_grad(true));
        let group = q.size()[1] / k.size()[1];
        let [all_k, all_v] = [&k, &v].map(|t| t.repeat_interleave_self_int(group, 1, None));
        let mask = match &self.mask {
            Some(mask) => wide(mask),
            None => causal_mask((0, KEYS), (0, KEYS), None, (Kind::Double, Device::Cpu)),
        };
        let products = q.f_matmul(&all_k.transpose(2, 3))? * self.scale + mask;
        let mixed = products.softmax(-1, Kind::Double).f_matmul(&all_v)?;
        if self.call == Call::Decoding {
            return Ok(vec![mixed.detach()]);
        }
        backward(&[&mixed], &[&wide(&self.gradient)])?;
        Ok(vec![mixed.detach(), q.grad(), k.grad(), v.grad()])
    }
}
