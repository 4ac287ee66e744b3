//! A small model for trials and tests as a GGUF file: two layers, 64 wide, a token for each byte, small random weights.

#[path = "../../../crates/simplemix-model/tests/support/mod.rs"]
mod gguf;

use gguf::{File, text};

/// Kinds of values in the file.
const U32: u32 = 4;
const TEXT: u32 = 8;
const LIST: u32 = 9;
const I32: u32 = 5;

const WIDTH: u64 = 64;
const INNER: u64 = 160;
const KEYS: u64 = 32;
const LAYERS: u32 = 2;
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

const CHATML: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] \
                      + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}\
                      {{ '<|im_start|>assistant\n' }}{% endif %}";

/// The file.
pub(crate) fn bytes() -> Vec<u8> {
    let mut file = File::small();
    for (key, value) in [
        ("llama.block_count", LAYERS),
        ("llama.context_length", 2048),
        ("llama.embedding_length", WIDTH as u32),
        ("llama.feed_forward_length", INNER as u32),
        ("llama.attention.head_count", 4),
        ("llama.attention.head_count_kv", 2),
        ("tokenizer.ggml.bos_token_id", 257),
        ("tokenizer.ggml.eos_token_id", 258),
    ] {
        file = file.set(key, U32, value.to_le_bytes().to_vec());
    }
    let tokens: Vec<String> = (0..=255u8).map(symbol).chain(SPECIAL.map(str::to_owned)).collect();
    let kinds: Vec<Vec<u8>> =
        (0..tokens.len()).map(|i| (if i < 256 { 1i32 } else { 3 }).to_le_bytes().to_vec()).collect();
    let vocabulary = tokens.len() as u64;
    file = file
        .set("tokenizer.ggml.tokens", LIST, list(TEXT, &tokens.iter().map(|token| text(token)).collect::<Vec<_>>()))
        .set("tokenizer.ggml.token_type", LIST, list(I32, &kinds))
        .set("tokenizer.ggml.merges", LIST, list(TEXT, &[]))
        .set("tokenizer.chat_template", TEXT, text(CHATML));
    file.tensors = tensors(vocabulary);
    file.bytes()
}

fn list(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
}

/// GPT-2's printable stand-in for a byte.
fn symbol(byte: u8) -> String {
    let is_printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let rank = (0..byte).filter(|byte| !is_printable(*byte)).count() as u32;
    let symbol = if is_printable(byte) { char::from(byte) } else { char::from_u32(0x100 + rank).unwrap_or(' ') };
    symbol.to_string()
}

fn tensors(vocabulary: u64) -> Vec<(String, Vec<u64>, u32, Vec<u8>)> {
    let mut shapes = vec![("token_embd.weight".to_owned(), vec![WIDTH, vocabulary])];
    for layer in 0..LAYERS {
        for (name, shape) in [
            ("attn_q", vec![WIDTH, WIDTH]),
            ("attn_k", vec![WIDTH, KEYS]),
            ("attn_v", vec![WIDTH, KEYS]),
            ("attn_output", vec![WIDTH, WIDTH]),
            ("ffn_gate", vec![WIDTH, INNER]),
            ("ffn_up", vec![WIDTH, INNER]),
            ("ffn_down", vec![INNER, WIDTH]),
            ("attn_norm", vec![WIDTH]),
            ("ffn_norm", vec![WIDTH]),
        ] {
            shapes.push((format!("blk.{layer}.{name}.weight"), shape));
        }
    }
    shapes.push(("output_norm.weight".to_owned(), vec![WIDTH]));
    let mut random = super::Moments { state: 1 };
    let mut weight = |is_norm: bool| if is_norm { 1.0 } else { 0.1 * (random.next() as f32 - 0.5) };
    let filled = |(name, shape): (String, Vec<u64>)| {
        let count = shape.iter().product::<u64>();
        let bytes = (0..count).flat_map(|_| weight(shape.len() == 1).to_le_bytes()).collect();
        (name, shape, 0, bytes)
    };
    shapes.into_iter().map(filled).collect()
}
