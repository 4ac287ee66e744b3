//! One measured point of the output head, for benches/head_peers.py: seconds of each round, and peak memory.
//!
//! cargo run --release -p simplemix-loss --example head_point -- WAY VOCAB WIDTH ROWS ROUNDS [BUDGET_BYTES]
//!
//! WAY is `matmul` (the two products that even a frozen head needs), `frozen` or `trained`, each also with `+stats` (the
//! entropies, mean logits and hits that TRL logs), or `naive` (full logits).

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "an example that measures")]

use std::error::Error;
use std::time::Instant;

use simplemix_loss::{
    FusedInputs, PairLogps, Positions, PreferenceLoss, ScoreOptions, TokenStats, fused_preference_loss,
};
use tch::{Device, Kind, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [way, vocab, width, rows, rounds, ..] = args.as_slice() else {
        return Err("expected WAY VOCAB WIDTH ROWS ROUNDS [BUDGET_BYTES]".into());
    };
    let (vocab, width, rows): (i64, i64, i64) = (vocab.parse()?, width.parse()?, rows.parse()?);
    let budget = args.get(5).map_or(Ok(256 << 20), |bytes| bytes.parse())?;
    tch::manual_seed(0);
    let cpu = (Kind::Float, Device::Cpu);
    let head = (Tensor::randn([vocab, width], cpu) * 0.02).set_requires_grad(!way.starts_with("frozen"));
    let hidden = Tensor::randn([rows, width], cpu).set_requires_grad(true);
    // Responses of 256 tokens, two a pair.
    let responses = (rows / 256).max(2);
    let targets = Vec::<i64>::try_from(Tensor::randint(vocab, [rows], (Kind::Int64, Device::Cpu)))?;
    let owners: Vec<i64> = (0..rows).map(|row| (row / (rows / responses)).min(responses - 1)).collect();
    let positions = Positions::new(&targets, &owners, responses as usize, Device::Cpu)?;
    let zeros = || Tensor::zeros([responses / 2], cpu);
    let reference = PairLogps { chosen: zeros(), rejected: zeros() };
    let dpo = PreferenceLoss::new("sigmoid".parse()?, 0.1, 0.0)?;

    let round = || -> Result<(), Box<dyn Error>> {
        match way.as_str() {
            "matmul" => {
                let _guard = tch::no_grad_guard();
                let chunk = (budget as i64 / (4 * vocab)).clamp(1, rows);
                for start in (0..rows).step_by(chunk as usize) {
                    let states = hidden.narrow(0, start, chunk.min(rows - start));
                    let logits = states.mm(&head.tr());
                    let _ = logits.mm(&head);
                }
            }
            "naive" => {
                let logps = hidden.linear(&head, None::<&Tensor>).log_softmax(-1, Kind::Float);
                let token_logps = logps.gather(1, &positions.targets().unsqueeze(1), false).squeeze_dim(1);
                let logps = Tensor::zeros([responses], cpu).index_add(0, positions.owners(), &token_logps);
                let loss = dpo.evaluate(&PairLogps::from_alternating(&logps)?, &reference, None)?.loss;
                loss.sum(Kind::Float).backward();
            }
            "frozen" | "trained" | "frozen+stats" | "trained+stats" => {
                let wanted = way.ends_with("stats");
                let stats = TokenStats { mean_logit: wanted, entropy: wanted, top1: wanted, ..TokenStats::default() };
                let options = ScoreOptions { budget: Some(budget), stats, ..ScoreOptions::default() };
                let inputs = FusedInputs {
                    reference: Some(&reference),
                    options,
                    ..FusedInputs::new(&head, &hidden, &positions)
                };
                fused_preference_loss(&dpo, &inputs)?.surrogate.backward();
            }
            other => return Err(format!("WAY is `{other}`, expected matmul, frozen, trained or naive").into()),
        }
        Ok(())
    };

    round()?; // gradients are allocated, threads started
    std::fs::write("/proc/self/clear_refs", "5")?;
    let before = memory("VmRSS")?;
    let mut seconds = Vec::new();
    for _ in 0..rounds.parse::<usize>()? {
        let start = Instant::now();
        round()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    println!("{{\"seconds\": {seconds:?}, \"extra_bytes\": {}}}", memory("VmHWM")?.saturating_sub(before));
    Ok(())
}

/// A line of `/proc/self/status`, in bytes.
fn memory(name: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(name)).ok_or("no such line in /proc/self/status")?;
    Ok(line.split_whitespace().nth(1).ok_or("an empty line in /proc/self/status")?.parse::<u64>()? * 1024)
}
