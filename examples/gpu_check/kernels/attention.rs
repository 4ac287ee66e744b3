//! Attention over sequences of any lengths, with gradients, against every product in f64.

use anyhow::Result;
use simplemix::tch::{Device, Kind, Tensor};
use simplemix::torch::{Sequences, Varlen, backward, causal_mask, varlen_attention};

use crate::Setting;
use crate::numbers::{random, relative, wide};
use crate::report::{Found, Report, timed};

/// Queries and keys of each sequence: whole ones, continuations, an empty one, a single query.
const QUERIES: [i64; 6] = [65, 20, 0, 1, 33, 7];
const KEYS: [i64; 6] = [65, 90, 3, 40, 33, 130];

/// Query heads, key heads, width, window.
type Case = (i64, i64, i64, Option<i64>);

const CASES: [Case; 6] = [
    (4, 4, 64, None),
    (8, 2, 64, None),
    (4, 2, 128, None),
    (2, 1, 256, None),
    (4, 2, 64, Some(16)),
    (2, 2, 128, Some(2)),
];

pub(crate) fn check(report: &mut Report, setting: &Setting) -> Result<()> {
    for case in CASES {
        for kind in [Kind::Float, Kind::BFloat16] {
            let (heads, key_heads, width, window) = case;
            let window_text = window.map_or_else(String::new, |window| format!(", window {window}"));
            let shapes = format!("heads {heads}/{key_heads} of {width}{window_text}");
            report.check("varlen attention", &shapes, kind, || varlen(setting.device, kind, case))?;
        }
    }
    Ok(())
}

fn varlen(place: Device, kind: Kind, (heads, key_heads, width, window): Case) -> Result<Found> {
    let sequences = Sequences::new(&QUERIES, &KEYS, place)?;
    let how = Varlen { scale: (width as f64).powf(-0.5), window };
    let sizes = [
        [sequences.queries(), heads, width],
        [sequences.keys(), key_heads, width],
        [sequences.keys(), key_heads, width],
    ];
    let mut seed = 0;
    let ours = sizes.map(|size| {
        seed += 1;
        random(&size, kind, place, seed).set_requires_grad(true)
    });
    let theirs = ours.each_ref().map(|leaf| wide(leaf).set_requires_grad(true));
    let mixed = varlen_attention(&ours[0], &ours[1], &ours[2], &sequences, how)?;
    let wanted = plain(&theirs, how)?;
    let gradient = random(&mixed.size(), kind, place, 9);
    backward(&[&mixed], &[&gradient])?;
    backward(&[&wanted], &[&wide(&gradient)])?;
    let bound = if kind == Kind::Float { 1e-5 } else { 2e-2 };
    let gradients = ours.iter().zip(&theirs).map(|(ours, theirs)| relative(&ours.grad(), &theirs.grad()));
    let errors: Vec<f64> = std::iter::once(relative(&mixed, &wanted)).chain(gradients).collect();
    let (_, ms) = timed(place, || {
        let mixed = varlen_attention(&ours[0], &ours[1], &ours[2], &sequences, how)?;
        Ok(backward(&[&mixed], &[&gradient])?)
    })?;
    Ok(Found::within(bound, errors).note("ms_alone", ms))
}

/// Attention with every product in memory, in f64 on the CPU.
fn plain([q, k, v]: &[Tensor; 3], how: Varlen) -> Result<Tensor> {
    let group = q.size()[1] / k.size()[1];
    let (mut from_q, mut from_k, mut all) = (0, 0, Vec::new());
    for (count, seen) in QUERIES.into_iter().zip(KEYS) {
        let keys = |t: &Tensor| t.narrow(0, from_k, seen).repeat_interleave_self_int(group, 1, None).transpose(0, 1);
        let products = q.narrow(0, from_q, count).transpose(0, 1).f_matmul(&keys(k).transpose(1, 2))? * how.scale;
        let options = (Kind::Double, Device::Cpu);
        let mask = causal_mask((seen - count, count), (0, seen), how.window, options);
        all.push((products + mask).softmax(-1, Kind::Double).f_matmul(&keys(v))?.transpose(0, 1));
        from_q += count;
        from_k += seen;
    }
    Ok(Tensor::f_cat(&all, 0)?)
}
