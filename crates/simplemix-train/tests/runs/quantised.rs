//! Adapters over quantised weights (QLoRA).

use super::*;

const LORA: &str = "lora.rank = 4\noptimizer.learning_rate = 1e-2\n";

fn quantised(form: &str) -> String {
    format!("{LORA}quantization.load_in = '{form}'\nquantization.double_quant = {}", form == "4bit")
}

#[test]
fn an_adapter_is_trained_over_quantised_weights_as_over_the_dequantised() {
    for form in ["4bit", "8bit"] {
        let dir = Dir::new();
        let finished = train(dir.with("quantised", &quantised(form)));
        let records = finished.records().unwrap();
        // The reference is the same weights.
        assert!((records[0].get("loss").unwrap() - std::f64::consts::LN_2).abs() < 1e-6);
        let Some(Trained::Policy(model)) = &finished.model else { panic!("a policy was trained") };
        assert!(model.is_quantized());

        // The model that is made of the dequantised weights, trained in full precision.
        let whole = dir.path("dequantised");
        model.with_adapter(None).unwrap().save(&whole, Some(&dir.model())).unwrap();
        let text = format!("{LORA}memory.activation_checkpointing = true");
        let plain = train(TrainConfig { model: Some(whole), ..dir.with("plain", &text) });
        assert!(metrics_differ(&records, &plain.records().unwrap()) < 1e-5);

        // The result is the adapter merged into the dequantised weights, and no longer quantised.
        let merged = CausalLm::load(&finished.folder.model(), Kind::Float, Device::Cpu).unwrap();
        let own = CausalLm::load(&plain.folder.model(), Kind::Float, Device::Cpu).unwrap();
        for ((name, a), (_, b)) in merged.named_parameters().iter().zip(own.named_parameters()) {
            assert!((a - b).abs().max().double_value(&[]) < 1e-5, "{form}: {name}");
        }

        // Both ways to a reference agree.
        let fly = train(over(dir.with("fly", &quantised(form)), "reference.source = 'on-the-fly'"));
        assert!(metrics_differ(&records, &fly.records().unwrap()) < 2e-4);
    }
}

#[test]
fn an_interrupted_run_over_quantised_weights_ends_on_the_same_bits() {
    let text = "lora = { rank = 4, dropout = 0.3 }\nquantization.load_in = '4bit'";
    resumes("quantised weights", |dir, output| dir.with(output, text));
    resumes("answers drawn from quantised weights", |dir, output| over(hypo(dir, output), text));
    let reward = format!("objective = 'reward'\n{text}");
    resumes("a reward model over quantised weights", move |dir, output| dir.with(output, &reward));
}

#[test]
fn settings_that_do_not_fit_quantised_weights_are_named() {
    let dir = Dir::new();
    let refused = |text: &str| {
        let run = Run::with_pairs(dir.with("x", text), &dir.model(), &pairs(8), &[]);
        run.and_then(Run::load).map(drop).unwrap_err().to_string()
    };
    let error = refused("quantization.load_in = '4bit'");
    assert!(error.starts_with("`quantization.load_in` is set without `lora.rank`"), "{error}");
    let error = refused("lora.rank = 2\nquantization = { load_in = '8bit', double_quant = true }");
    assert!(error.starts_with("`quantization.double_quant` is set, expected `quantization.load_in"), "{error}");
    let error = refused("lora.rank = 2\nquantization.load_in = '4bit'\nparallel.shard = 'all'");
    assert!(error.starts_with("`parallel.shard` is `all` together with"), "{error}");
}

#[test]
fn a_dry_run_counts_quantised_weights() {
    let dir = Dir::new();
    let estimate = |text: &str| {
        let run = Run::with_pairs(dir.with("x", text), &dir.model(), &pairs(8), &[]).unwrap();
        assert_eq!(run.notices().iter().any(|notice| notice.contains("quantised weights turn")), text.contains("bit"));
        run.memory_estimate().unwrap()
    };
    let (whole, four) = (estimate("lora.rank = 4"), estimate("lora.rank = 4\nquantization.load_in = '4bit'"));
    let config = simplemix_model::ModelConfig::from_folder(&dir.model()).unwrap();
    let linear: i64 = config.tensors().iter().filter(|(name, _)| name.contains("proj")).map(|(_, s)| s[0] * s[1]).sum();
    assert_eq!(whole.weights - four.weights, (linear as f64 * (4.0 - 0.5 - 4.0 / 64.0)) as u64);
    // A layer's at a time.
    assert_eq!(four.gathered, 4 * linear as u64 / config.num_hidden_layers as u64);
}
