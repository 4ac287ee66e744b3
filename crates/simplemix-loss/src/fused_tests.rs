//! Against full logits and autograd in f64, the head tied to the embedding that made the hidden states.

use super::*;
use crate::noise::noise;
use crate::preference::PreferenceLoss;
use crate::sum::LossSum;
use crate::weights::Wpo;
use tch::{Device, Kind};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

fn positions() -> Positions {
    Positions::new(&[2, 3, 4, 5, 6, 7, 8, 0], &[0, 0, 1, 1, 1, 2, 3, 3], 4, Device::Cpu).unwrap()
}

fn reference() -> PairLogps {
    PairLogps { chosen: Tensor::from_slice(&[-3.0, -4.0]), rejected: Tensor::from_slice(&[-5.0, -2.0]) }
}

fn label_probs() -> Tensor {
    Tensor::from_slice(&[0.9, 0.2])
}

fn quantiles() -> PairQuantiles {
    PairQuantiles { chosen: Tensor::from_slice(&[1.0, 0.25]), rejected: Tensor::from_slice(&[0.5, 0.0]) }
}

fn below(embedding: &Tensor) -> Tensor {
    embedding.index_select(0, &Tensor::from_slice(&[1i64, 2, 3, 4, 5, 6, 7, 8])).tanh()
}

fn embedding() -> Tensor {
    noise(5, &[9, 4]).set_requires_grad(true)
}

fn off(a: &Tensor, b: &Tensor) -> f64 {
    f64::try_from((a - b).abs().max()).unwrap()
}

/// Loss and gradient of the tied embedding by autograd through full logits.
fn naive(loss: &dyn PairLoss, weight: f64) -> (LossOutput, Tensor) {
    let (embedding, positions, reference) = (embedding(), positions(), reference());
    let log_probs = below(&embedding).matmul(&embedding.tr()).log_softmax(-1, Kind::Double);
    let token = log_probs.gather(1, &positions.targets().unsqueeze(1), false).squeeze_dim(1);
    let logps = Tensor::zeros([4], F64).index_add(0, positions.owners(), &token);
    let squares = (log_probs.detach() * 2.0).exp().sum_dim_intlist([1i64].as_slice(), false, None).log();
    let weights = loss.wpo().map(|wpo| wpo_weights(wpo, &positions, &token.detach(), &squares).unwrap());
    let policy = PairLogps::from_alternating(&logps).unwrap();
    let lengths = PairLengths::from_alternating(&positions.lengths(Kind::Double)).unwrap();
    let (probs, quantiles) = (label_probs(), quantiles());
    let pairs = Pairs {
        reference: Some(&reference),
        lengths: Some(&lengths),
        label_probs: Some(&probs),
        quantiles: Some(&quantiles),
        weights: weights.as_ref(),
        ..Pairs::new(&policy)
    };
    let output = loss.evaluate_pairs(&pairs).unwrap();
    (output.loss.sum(Kind::Double) * weight).backward();
    (output, embedding.grad())
}

/// Coupled and independent losses, sums, WPO; one pair at a time, one row at a time, and all at once.
#[test]
fn gradients_reach_a_tied_head_from_both_sides() {
    let loss = |name: &str| PreferenceLoss::new(name.parse().unwrap(), 0.7, 0.0).unwrap();
    let losses: [Box<dyn PairLoss>; 8] = [
        Box::new(loss("sigmoid_norm")),
        Box::new(loss("aot")),
        Box::new(loss("soft_label")),
        Box::new(loss("qrpo")),
        Box::new(loss("qrpo_norm")),
        Box::new(LossSum::rpo(0.7, 0.3).unwrap()),
        Box::new(loss("sigmoid").with_wpo(Wpo::Capped).unwrap()),
        Box::new(loss("ipo").with_wpo(Wpo::Uncapped).unwrap()),
    ];
    for loss in &losses {
        let (plain, want) = naive(loss.as_ref(), 0.25);
        for budget in [1, 5 * 9 * 8, 1 << 20] {
            let embedding = embedding();
            let (hidden, positions, reference, probs) = (below(&embedding), positions(), reference(), label_probs());
            let quantiles = quantiles();
            let inputs = FusedInputs {
                reference: Some(&reference),
                label_probs: Some(&probs),
                quantiles: Some(&quantiles),
                weight: 0.25,
                options: budget.into(),
                ..FusedInputs::new(&embedding, &hidden, &positions)
            };
            let fused = fused_preference_loss(loss.as_ref(), &inputs).unwrap();
            fused.surrogate.backward();
            assert!(off(&embedding.grad(), &want) < 1e-12, "{budget}: {}", off(&embedding.grad(), &want));
            assert!(off(&fused.output.loss, &plain.loss) < 1e-12);
            assert!(off(&fused.output.margins(), &plain.margins()) < 1e-12);
            assert!(!fused.output.loss.requires_grad());
        }
    }
}

#[test]
fn reference_free_losses_take_no_reference() {
    let loss = |name: &str| PreferenceLoss::new(name.parse().unwrap(), 2.0, 0.0).unwrap();
    let (embedding, positions) = (embedding(), positions());
    let hidden = below(&embedding);
    let inputs = FusedInputs { options: 1.into(), ..FusedInputs::new(&embedding, &hidden, &positions) };
    assert_eq!(fused_preference_loss(&loss("simpo"), &inputs).unwrap().output.loss.size(), [2]);
    let error = fused_preference_loss(&loss("sigmoid"), &inputs).unwrap_err();
    assert_eq!(error.to_string(), "the loss `sigmoid` needs a reference");
}

#[test]
fn a_reference_of_another_length_is_refused() {
    let loss = PreferenceLoss::new("sigmoid".parse().unwrap(), 2.0, 0.0).unwrap();
    let (embedding, positions) = (embedding(), positions());
    let hidden = below(&embedding);
    let short = PairLogps { chosen: Tensor::from_slice(&[-3.0]), rejected: Tensor::from_slice(&[-5.0]) };
    for budget in [1, 1 << 20] {
        let inputs = FusedInputs { options: budget.into(), ..FusedInputs::new(&embedding, &hidden, &positions) };
        let error = fused_preference_loss(&loss, &FusedInputs { label_probs: Some(&short.chosen), ..inputs });
        assert!(error.unwrap_err().to_string().contains("label_probs"));
        let quantiles = PairQuantiles { rejected: Tensor::from_slice(&[0.5]), ..quantiles() };
        let error = fused_preference_loss(&loss, &FusedInputs { quantiles: Some(&quantiles), ..inputs }).unwrap_err();
        assert!(error.to_string().contains("quantiles.rejected"), "{error}");
        assert!(fused_preference_loss(&loss, &FusedInputs { reference: Some(&short), ..inputs }).is_err());
    }
}
