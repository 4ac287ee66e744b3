//! A model of a few kilobytes with random weights: for tests, examples and dry runs.
//!
//! The tokenizer has a token for each byte and ChatML's three special tokens, so every text has ids and every id a text.

use std::path::Path;

use serde_json::{Map, Value, json};
use tch::Device;

use crate::causal_lm::CausalLm;
use crate::config::{ModelConfig, llama_json};
use crate::error::{At, Result};

/// Ids of `<|endoftext|>`, `<|im_start|>` and `<|im_end|>`.
const SPECIAL: [(&str, i64); 3] = [("<|endoftext|>", 256), ("<|im_start|>", 257), ("<|im_end|>", 258)];

const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] \
                      + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}\
                      {{ '<|im_start|>assistant\n' }}{% endif %}";

/// Two layers, 64 wide, four query heads on two key/value heads, 259 tokens: 102,912 weights.
///
/// # Panics
/// Never: the settings are those below.
pub fn config() -> ModelConfig {
    let json = llama_json(&json!({
        "vocab_size": 259,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": true,
        "max_position_embeddings": 2048,
    }));
    #[expect(clippy::expect_used, reason = "settings of this crate's own")]
    ModelConfig::from_json(&json.to_string(), Path::new("tiny/config.json")).expect("a config that is known")
}

/// Writes a whole model folder: weights from `seed`, tokenizer, chat template, generation settings.
///
/// # Errors
/// [`crate::Error::Files`] if `folder` exists already or cannot be written.
pub fn write_folder(folder: &Path, seed: u64) -> Result<()> {
    write_folder_of(folder, config(), seed)
}

/// As [`write_folder`], with a model of another `config`, which has 259 tokens.
///
/// # Errors
/// As [`write_folder`].
pub fn write_folder_of(folder: &Path, config: ModelConfig, seed: u64) -> Result<()> {
    let companions = tempfile::tempdir().at(folder, "write")?;
    let write = |name: &str, value: &Value| {
        let path = companions.path().join(name);
        std::fs::write(&path, format!("{value:#}\n")).at(&path, "write")
    };
    let mut settings = config.to_json();
    settings["bos_token_id"] = json!(257);
    settings["eos_token_id"] = json!(258);
    settings["pad_token_id"] = json!(256);
    write("config.json", &settings)?;
    write("tokenizer.json", &tokenizer())?;
    write(
        "tokenizer_config.json",
        &json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "chat_template": CHATML,
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "model_max_length": 2048,
        }),
    )?;
    write("generation_config.json", &json!({ "bos_token_id": 257, "eos_token_id": 258, "pad_token_id": 256 }))?;
    CausalLm::random(config, seed, Device::Cpu)?.save(folder, Some(companions.path()))
}

/// `tokenizer.json`: byte-level BPE without a merge.
fn tokenizer() -> Value {
    let vocab: Map<String, Value> =
        (0..=255u8).map(|byte| (byte_symbol(byte).to_string(), json!(u32::from(byte)))).collect();
    let added: Vec<Value> = SPECIAL
        .iter()
        .map(|(content, id)| {
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": true })
        })
        .collect();
    let byte_level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": byte_level,
        "post_processor": null,
        "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [],
        },
    })
}

/// GPT-2's printable stand-in for a byte: itself where printable, else the next free character from U+0100.
fn byte_symbol(byte: u8) -> char {
    let printable = |b: u8| matches!(b, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(0x100 + rank).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::{Finish, GenerateOptions, Request, StopStrings};
    use crate::packed::{Packed, Targets};
    use crate::sample::Sampling;
    use tch::{Kind, Tensor};

    fn model() -> CausalLm {
        CausalLm::random(config(), 11, Device::Cpu).unwrap()
    }

    fn difference(a: &Tensor, b: &Tensor) -> f64 {
        f64::try_from((a - b).abs().max()).unwrap()
    }

    #[test]
    fn its_tokenizer_reads_every_text() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tiny");
        write_folder(&folder, 1).unwrap();
        let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        let text = "2 + 2 = 4\n\tnaïve “quotes” ∑ 🦀 <|im_end|>";
        let ids = tokenizer.encode(text, false).unwrap();
        assert_eq!(*ids.get_ids().last().unwrap(), 258);
        assert_eq!(tokenizer.decode(ids.get_ids(), false).unwrap(), text);
    }

    #[test]
    fn a_saved_folder_loads_with_equal_logits() {
        let dir = tempfile::tempdir().unwrap();
        let (model, folder) = (model(), dir.path().join("m"));
        model.save(&folder, None).unwrap();
        let back = CausalLm::load(&folder, Kind::Float, Device::Cpu).unwrap();
        let mut packed = Packed::new();
        packed.push(&[1, 2, 3]).unwrap();
        let logits = |m: &CausalLm| m.logits(&m.hidden_states(&packed).unwrap()).unwrap();
        assert_eq!(difference(&logits(&model), &logits(&back)), 0.0);
        // A second save does not write over the first, and leaves nothing beside it.
        assert!(model.save(&folder, None).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    /// Hidden states, and gradients of a scalar of them, with the prompt shared and with two plain sequences.
    #[test]
    fn sharing_the_prompt_changes_no_number() {
        let model = model();
        model.set_trainable(true);
        let (prompt, chosen, rejected) = ([5u32, 6, 7, 8], [9u32, 10, 11], [12u32, 13, 14, 15, 16]);
        let run = |shared: bool| {
            let (mut packed, mut targets) = (Packed::new(), Targets::default());
            let first = packed.push(&prompt).unwrap();
            packed.push_response(first, &chosen, &mut targets).unwrap();
            let second = if shared { first } else { packed.push(&prompt).unwrap() };
            packed.push_response(second, &rejected, &mut targets).unwrap();
            let rows = model.hidden_states(&packed).unwrap().index_select(0, &Tensor::from_slice(&targets.rows));
            for (_, parameter) in model.named_parameters() {
                parameter.shallow_clone().zero_grad();
            }
            (rows.square() * &rows).sum(Kind::Float).backward();
            let gradients: Vec<Tensor> = model.named_parameters().iter().map(|(_, p)| p.grad().copy()).collect();
            (rows.detach(), gradients)
        };
        let ((a, ga), (b, gb)) = (run(true), run(false));
        assert!(difference(&a, &b) < 1e-5, "{}", difference(&a, &b));
        for ((x, y), (name, _)) in ga.iter().zip(&gb).zip(model.named_parameters()) {
            let scale = f64::try_from(y.abs().max()).unwrap().max(1.0);
            assert!(difference(x, y) / scale < 1e-5, "{name}: {}", difference(x, y));
        }
    }

    #[test]
    fn sequences_packed_together_do_not_see_each_other() {
        let model = model();
        let (a, b) = ([1u32, 2, 3], [4u32, 5]);
        let mut both = Packed::new();
        both.push(&a).unwrap();
        both.push(&b).unwrap();
        let mut alone = Packed::new();
        alone.push(&b).unwrap();
        let together = model.hidden_states(&both).unwrap().narrow(0, 3, 2);
        assert!(difference(&together, &model.hidden_states(&alone).unwrap()) < 1e-5);
    }

    fn options(samples: usize, batch_rows: usize, temperature: f64) -> GenerateOptions {
        GenerateOptions {
            samples,
            max_new_tokens: 12,
            stop_tokens: vec![17],
            sampling: Sampling { temperature, top_p: 0.95, seed: 5, ..Sampling::default() },
            batch_rows,
            ..GenerateOptions::default()
        }
    }

    fn requests() -> Vec<Request> {
        [vec![1, 2, 3], vec![40, 41, 42, 43, 44, 45, 46], vec![7]]
            .into_iter()
            .enumerate()
            .map(|(i, prompt)| Request { prompt, stream: i as u64 })
            .collect()
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let model = model();
        let all = model.generate(&requests(), &options(3, 64, 1.0), &mut |_, _| {}).unwrap();
        let one_by_one = model.generate(&requests(), &options(3, 1, 1.0), &mut |_, _| {}).unwrap();
        for (a, b) in all.iter().flatten().zip(one_by_one.iter().flatten()) {
            assert_eq!(a.tokens, b.tokens);
        }
        assert_ne!(all[0][0].tokens, all[0][1].tokens);
    }

    /// Cached stepwise generation against the plain forward pass over the whole text so far.
    #[test]
    fn the_cache_gives_the_same_log_probs_as_a_whole_forward_pass() {
        let model = model();
        let answers = model.generate(&requests(), &options(2, 64, 1.0), &mut |_, _| {}).unwrap();
        for (request, answers) in requests().iter().zip(&answers) {
            for answer in answers {
                let (mut packed, mut targets) = (Packed::new(), Targets::default());
                let prompt = packed.push(&request.prompt).unwrap();
                packed.push_response(prompt, &answer.tokens, &mut targets).unwrap();
                let hidden = model.hidden_states(&packed).unwrap().index_select(0, &Tensor::from_slice(&targets.rows));
                let logps = model.logits(&hidden).unwrap().log_softmax(-1, Kind::Float);
                let ids = Tensor::from_slice(&targets.tokens).unsqueeze(1);
                let expected: Vec<f32> = logps.gather(1, &ids, false).squeeze_dim(1).try_into().unwrap();
                for (a, b) in answer.logps.iter().zip(&expected) {
                    assert!((a - b).abs() < 1e-4, "{a} {b}");
                }
            }
        }
    }

    /// Few rows, refilled again and again, over more columns than a cache is laid out with.
    #[test]
    fn refilled_rows_are_as_good_as_new_ones() {
        let model = model();
        let options = |batch_rows| GenerateOptions { max_new_tokens: 300, ..options(2, batch_rows, 1.0) };
        let requests: Vec<Request> = (0..7u32)
            .map(|i| Request { prompt: (0..1 + i * 5).map(|j| (j * 3 + i) % 250).collect(), stream: u64::from(i) })
            .collect();
        let crowded = model.generate(&requests, &options(3), &mut |_, _| {}).unwrap();
        for (request, answers) in requests.iter().zip(&crowded) {
            let alone = model.generate(std::slice::from_ref(request), &options(1), &mut |_, _| {}).unwrap();
            for (a, b) in answers.iter().zip(&alone[0]) {
                assert_eq!(a.tokens, b.tokens);
                for (x, y) in a.logps.iter().zip(&b.logps) {
                    assert!((x - y).abs() < 1e-3, "{x} {y}");
                }
            }
        }
        assert!(crowded.iter().flatten().any(|answer| answer.tokens.len() == 300));
    }

    /// Greedy answers of a weighted sum of logits, against whole forward passes of both models.
    #[test]
    fn two_models_are_mixed_before_the_temperature() {
        let (policy, reference) = (model(), CausalLm::random(config(), 12, Device::Cpu).unwrap());
        let options = options(1, 4, 0.0);
        for weights in [[1.5, -0.5], [0.5, 0.5], [1.0, 0.0]] {
            let answers = policy.generate_mixed(&reference, weights, &requests(), &options, &mut |_, _| {}).unwrap();
            for (request, answer) in requests().iter().zip(&answers) {
                let mut tokens = request.prompt.clone();
                for (&token, &logp) in answer[0].tokens.iter().zip(&answer[0].logps) {
                    let logits = |model: &CausalLm| {
                        let mut packed = Packed::new();
                        packed.push(&tokens).unwrap();
                        let hidden = model.hidden_states(&packed).unwrap();
                        model.logits(&hidden.narrow(0, tokens.len() as i64 - 1, 1)).unwrap()
                    };
                    let own = logits(&policy);
                    let mixed = &own * weights[0] + logits(&reference) * weights[1];
                    assert_eq!(mixed.argmax(-1, false).int64_value(&[0]), i64::from(token));
                    let want = own.log_softmax(-1, Kind::Float).double_value(&[0, i64::from(token)]);
                    assert!((want - f64::from(logp)).abs() < 1e-4);
                    tokens.push(token);
                }
            }
        }
        assert!(policy.generate_mixed(&reference, [f64::NAN, 1.0], &requests(), &options, &mut |_, _| {}).is_err());
    }

    #[test]
    fn a_stop_string_ends_an_answer_where_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("tiny");
        write_folder(&folder, 11).unwrap();
        let tokenizer = tokenizers::Tokenizer::from_file(folder.join("tokenizer.json")).unwrap();
        let tokenizer = std::sync::Arc::new(tokenizer);
        let free = GenerateOptions { stop_tokens: vec![], max_new_tokens: 40, ..options(1, 8, 1.0) };
        let whole = &model().generate(&requests(), &free, &mut |_, _| {}).unwrap()[0][0];
        // Two printable bytes that follow each other somewhere in the answer.
        let at = (5..39).find(|&i| whole.tokens[i..i + 2].iter().all(|&id| (33..127).contains(&id))).unwrap();
        let text = tokenizer.decode(&whole.tokens[at..at + 2], false).unwrap();
        let first = (1..40).find(|&i| tokenizer.decode(&whole.tokens[..i], false).unwrap().contains(&text)).unwrap();
        let stops = StopStrings::new(tokenizer.clone(), vec!["not there".to_owned(), text]).unwrap();
        let stopped = GenerateOptions { stop_strings: Some(stops), ..free };
        let answer = &model().generate(&requests(), &stopped, &mut |_, _| {}).unwrap()[0][0];
        assert_eq!(answer.tokens, whole.tokens[..first]);
        assert_eq!(answer.finish, Finish::Stop);
        assert!(StopStrings::new(tokenizer, vec![String::new()]).is_err());
    }

    #[test]
    fn progress_reaches_its_total_and_limits_hold() {
        let mut last = (0, 0);
        let answers =
            model().generate(&requests(), &options(4, 5, 1.0), &mut |done, total| last = (done, total)).unwrap();
        assert_eq!(last, (12, 12));
        for answer in answers.iter().flatten() {
            let stopped = answer.tokens.last() == Some(&17);
            assert_eq!(answer.finish, if stopped { Finish::Stop } else { Finish::Length });
            assert_eq!(answer.tokens.len(), answer.logps.len());
            assert!(stopped || answer.tokens.len() == 12);
        }
    }
}
