//! DPO on a model of your own: two layers, random pairs, no other part of simplemix.
//!
//! cargo run -p simplemix-loss --example own_model

#![allow(clippy::print_stdout, reason = "an example")]

use simplemix_loss::{FusedInputs, PairLogps, Positions, PreferenceLoss, fused_preference_loss, score_only};
use tch::nn::{self, Module, OptimizerConfig};
use tch::{Device, Kind, Tensor};

const VOCAB: i64 = 1000;
const BUDGET: usize = 1 << 16; // bytes of logits held at a time: 16 of the 48 rows

fn main() -> Result<(), Box<dyn std::error::Error>> {
    tch::manual_seed(1);
    let vs = nn::VarStore::new(Device::Cpu);
    let embedding = nn::embedding(&vs.root() / "embedding", VOCAB, 32, Default::default());
    let layer = nn::linear(&vs.root() / "layer", 32, 32, Default::default());
    let hidden = |inputs: &Tensor| layer.forward(&embedding.forward(inputs)).tanh(); // [N, H]

    // Four pairs; each response has six tokens, and each position predicts the next.
    let inputs = Tensor::randint(VOCAB, [48], (Kind::Int64, Device::Cpu));
    let targets = Vec::<i64>::try_from(Tensor::randint(VOCAB, [48], (Kind::Int64, Device::Cpu)))?;
    let owners: Vec<i64> = (0..48).map(|position| position / 6).collect();
    let positions = Positions::new(&targets, &owners, 8, Device::Cpu)?;

    // The head is the embedding itself; the reference is the policy before training.
    let logps = tch::no_grad(|| score_only(&embedding.ws, &hidden(&inputs), &positions, BUDGET))?;
    let reference = PairLogps::from_alternating(&logps)?;
    let dpo = PreferenceLoss::new("sigmoid".parse()?, 0.1, 0.0)?;
    let mut optimizer = nn::Adam::default().build(&vs, 1e-2)?;
    for step in 0..10 {
        optimizer.zero_grad();
        let hidden = hidden(&inputs);
        let inputs = FusedInputs {
            reference: Some(&reference),
            weight: 0.25, // the mean over four pairs
            options: BUDGET.into(),
            ..FusedInputs::new(&embedding.ws, &hidden, &positions)
        };
        let fused = fused_preference_loss(&dpo, &inputs)?;
        fused.surrogate.backward();
        optimizer.step();
        let mean = |t: &Tensor| t.mean(Kind::Double).double_value(&[]);
        println!("step {step}: loss {:.4}, margin {:.4}", mean(&fused.output.loss), mean(&fused.output.margins()));
    }
    Ok(())
}
