//! Against tests/golden/quantized, which tests/golden/model_quantized.py wrote with bitsandbytes, AutoGPTQ and AutoAWQ.

use std::path::{Path, PathBuf};

use super::groups::{self, Form, Groups};
use super::*;
use crate::error::Result;
use crate::residence::{Divider, Stage};
use crate::safetensors_reader::Reader;
use crate::tiny;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/quantized").join(name)
}

/// Tensors of a file by their names.
struct File(std::cell::RefCell<Reader>);

impl File {
    fn open(name: &str) -> Self {
        Self(Reader::open(&golden(name)).unwrap().into())
    }

    fn get(&self, name: &str) -> Tensor {
        self.0.borrow_mut().stored(name).unwrap()
    }
}

fn dequantised(stored: &Stored, shape: &[i64]) -> Tensor {
    let out = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
    stored.dequantise_into(&out).unwrap();
    out
}

fn four_bits(weight: &Tensor, double_quant: bool) -> Stored {
    let settings = QuantizationSettings { load_in: LoadIn::FourBit, double_quant };
    Stored::quantise(weight, &settings).unwrap().unwrap()
}

#[test]
fn four_bits_are_those_of_bitsandbytes() {
    let file = File::open("matrices.safetensors");
    for name in ["whole", "many", "cut"] {
        let weight = file.get(&format!("{name}.weight")).to_kind(Kind::Float);
        let stored = four_bits(&weight, false);
        let Stored::Blocks(blocks) = &stored else { panic!("{stored:?}") };
        let (packed, blocks::Scales::Plain(scales)) = blocks.parts() else { panic!("{stored:?}") };
        assert_eq!(*packed, file.get(&format!("{name}.packed")), "{name}");
        assert_eq!(*scales, file.get(&format!("{name}.absmax")), "{name}");
        if name != "many" {
            assert_eq!(dequantised(&stored, &weight.size()), file.get(&format!("{name}.nf4")), "{name}");
        }
        // Half precision holds the same numbers, rounded.
        let rounded = Tensor::zeros(weight.size(), (Kind::BFloat16, Device::Cpu));
        stored.dequantise_into(&rounded).unwrap();
        assert_eq!(rounded, dequantised(&stored, &weight.size()).to_kind(Kind::BFloat16));
    }
}

#[test]
fn scales_are_quantised_as_by_bitsandbytes() {
    let file = File::open("matrices.safetensors");
    let weight = file.get("many.weight").to_kind(Kind::Float);
    let stored = four_bits(&weight, true);
    let Stored::Blocks(blocks) = &stored else { panic!("{stored:?}") };
    let (packed, blocks::Scales::Nested { codes, map, scales, offset, block }) = blocks.parts() else {
        panic!("{stored:?}")
    };
    assert_eq!(*packed, file.get("many.packed"));
    assert_eq!(*map, file.get("many.nested_map"));
    assert_eq!(*offset, file.get("many.offset").double_value(&[0]));
    assert_eq!((*codes == file.get("many.nested_codes"), *block), (true, 256));
    assert_eq!(*scales, file.get("many.nested_absmax"));
    let (found, want) = (dequantised(&stored, &weight.size()).narrow(0, 0, 8), file.get("many.nested"));
    assert!((found - &want).abs().max().double_value(&[]) <= 1e-7 * want.abs().max().double_value(&[]));
    assert!(stored.bytes() < weight.numel() as u64 / 2 + 2048 + 1024 + 300);
}

#[test]
fn eight_bits_are_those_of_bitsandbytes() {
    let file = File::open("matrices.safetensors");
    let weight = file.get("whole.weight").to_kind(Kind::Float);
    let settings = LoadIn::EightBit.into();
    let stored = Stored::quantise(&weight.narrow(0, 0, 3), &settings).unwrap().unwrap();
    let Stored::Rows(rows) = &stored else { panic!("{stored:?}") };
    assert_eq!(*rows.parts().0, file.get("int8.codes"));
    assert_eq!(*rows.parts().1, file.get("int8.scales"));
    assert_eq!(dequantised(&stored, &[3, 32]), file.get("int8.weight"));
    // A row of zeros.
    let all = Stored::quantise(&weight, &settings).unwrap().unwrap();
    assert_eq!(dequantised(&all, &[12, 32]).get(3).abs().max().double_value(&[]), 0.0);
}

fn groups_of(file: &File, name: &str, bits: i64, group_size: i64, form: Form) -> Result<Groups> {
    let part = |part: &str| file.get(&format!("{name}.{part}"));
    let g_idx = (form != Form::Awq).then(|| part("g_idx"));
    let parts = groups::Parts {
        qweight: part("qweight"),
        qzeros: part("qzeros"),
        scales: part("scales"),
        g_idx,
        bits,
        group_size,
        form,
    };
    Groups::of(name, &parts, [32, 64], Device::Cpu)
}

#[test]
fn groups_are_those_of_gptq_and_awq() {
    let file = File::open("groups.safetensors");
    let gptq = Form::Gptq { stores_less: true };
    for (name, bits, size, form) in
        [("gptq4", 4, 32, gptq), ("gptq4_order", 4, 16, gptq), ("gptq8", 8, -1, gptq), ("awq", 4, 32, Form::Awq)]
    {
        let groups = groups_of(&file, name, bits, size, form).unwrap();
        let by_operators = Tensor::zeros([32, 64], (Kind::Float, Device::Cpu));
        groups.by_operators(&by_operators).unwrap();
        let stored = Stored::Groups(groups);
        // The kernels of a CPU have the bits of libtorch's operators.
        assert_eq!(dequantised(&stored, &[32, 64]), by_operators, "{name}");
        let off = (dequantised(&stored, &[32, 64]) - file.get(&format!("{name}.weight"))).abs().max();
        assert!(off.double_value(&[]) < 1e-6, "{name}: {off:?}");
    }
    // The newer format stores zero points as they are.
    let newer = groups_of(&file, "gptq4", 4, 32, Form::Gptq { stores_less: false }).unwrap();
    let apart = dequantised(&Stored::Groups(newer), &[32, 64]) - file.get("gptq4.weight");
    assert!(apart.abs().max().double_value(&[]) > 0.0);
    let error = groups_of(&file, "gptq4", 4, 16, gptq).unwrap_err().to_string();
    assert!(error.contains("`gptq4.qzeros` is Int [2, 4], expected Int [4, 4]"), "{error}");
}

#[test]
fn weights_have_numbers_while_their_stage_is_entered() {
    let config = tiny::config();
    let mut quantizer = Quantizer::new(&LoadIn::FourBit.into(), Device::Cpu).unwrap();
    let kept = quantizer.begin(&config, &[]).unwrap();
    assert!(!kept.is_shared());
    let (name, other) = ("model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight");
    let weight = Tensor::randn([160, 64], (Kind::Float, Device::Cpu));
    let [own, second] = [name, other].map(|name| quantizer.take(name, &weight).unwrap());
    let plain = quantizer.take("model.embed_tokens.weight", &weight).unwrap();
    let has = |tensor: &Tensor| simplemix_torch::has_memory(tensor).unwrap();
    assert!(has(&plain) && !has(&own) && own.size() == [160, 64]);
    let want = kept.whole(name).unwrap();
    assert!((&want - &weight).abs().max().double_value(&[]) < 1.0 && want != weight);
    let mut view = None;
    for _ in 0..2 {
        kept.enter(Stage::Layer(0), None).unwrap();
        kept.enter(Stage::Layer(0), None).unwrap();
        kept.leave(Stage::Layer(0));
        // A view that was made in an earlier pass, too.
        assert_eq!(*view.get_or_insert_with(|| own.tr()), want.tr());
        assert!(!has(&second));
        kept.leave(Stage::Layer(0));
        assert!(!has(&own));
        kept.enter(Stage::Layer(1), None).unwrap();
        assert_eq!(second, want);
        kept.leave(Stage::Layer(1));
    }
    assert!(kept.has(name) && !kept.has("model.embed_tokens.weight"));
}

#[test]
fn methods_that_are_not_read_are_named() {
    let refused = |text: &str| {
        let config: serde_json::Value = serde_json::from_str(&format!("{{\"quantization_config\":{text}}}")).unwrap();
        let found = Method::of(&config).err().unwrap();
        format!("{} {} {}", found.key, found.found, found.expected)
    };
    for (text, expected) in [
        ("{\"quant_method\":\"fp8\"}", "quant_method \"fp8\" `bitsandbytes`, `gptq` or `awq`"),
        ("{\"quant_method\":\"gptq\",\"bits\":3}", "bits 3 4 or 8"),
        ("{\"quant_method\":\"awq\",\"bits\":4,\"version\":\"gemv\"}", "version \"gemv\" `gemm`"),
        ("{\"quant_method\":\"bitsandbytes\"}", "load_in_4bit not set `true`"),
    ] {
        assert!(refused(text).starts_with(expected), "{}", refused(text));
    }
    assert_eq!(Method::of(&serde_json::json!({})).ok().unwrap(), None);
}

#[test]
fn what_is_quantised_is_the_linear_layers_of_the_decoder() {
    for (family, count) in [("llama_tied", 14), ("gpt2", 8), ("cohere", 14), ("gemma3", 28)] {
        let folder = golden("../families").join(family);
        let config = ModelConfig::from_folder(&folder).unwrap();
        let names = quantizable(&config);
        assert_eq!(names.len() % config.num_hidden_layers, 0, "{family}");
        assert!(names.iter().all(|name| !name.contains("norm") && !name.contains("embed")), "{names:?}");
        if family != "gemma3" {
            assert_eq!(names.len(), count, "{family}: {names:?}");
        }
    }
}
