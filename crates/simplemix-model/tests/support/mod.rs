//! GGUF files for tests.
#![allow(dead_code, unreachable_pub, reason = "not every test uses everything")]

/// A GGUF file in the making.
#[derive(Clone)]
pub struct File {
    pub version: u32,
    pub values: Vec<(String, u32, Vec<u8>)>,
    pub tensors: Vec<(String, Vec<u64>, u32, Vec<u8>)>,
}

pub fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

pub fn list(kind: u32, items: &[Vec<u8>]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &(items.len() as u64).to_le_bytes(), &items.concat()].concat()
}

/// Bytes of tokens as GPT-2 writes them, and one control token.
const TOKENS: [&str; 6] = ["a", "b", "ab", "Ġ", "1", "<|end|>"];

impl File {
    /// One layer, 32 wide, two heads, six tokens; every weight 0.5 in f32 but the scale of `head`, which is Q8_0.
    pub fn small() -> Self {
        let mut file = Self { version: 3, values: Vec::new(), tensors: Vec::new() };
        for (key, value) in
            [("general.architecture", "llama"), ("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "smollm")]
        {
            file.values.push((key.into(), 8, text(value)));
        }
        for (key, value) in [
            ("llama.block_count", 1u32),
            ("llama.context_length", 64),
            ("llama.embedding_length", 32),
            ("llama.feed_forward_length", 64),
            ("llama.attention.head_count", 2),
            ("llama.attention.head_count_kv", 1),
            ("tokenizer.ggml.eos_token_id", 5),
        ] {
            file.values.push((key.into(), 4, value.to_le_bytes().to_vec()));
        }
        let tokens: Vec<Vec<u8>> = TOKENS.iter().map(|t| text(t)).collect();
        file.values.push(("tokenizer.ggml.tokens".into(), 9, list(8, &tokens)));
        file.values.push(("tokenizer.ggml.merges".into(), 9, list(8, &[text("a b")])));
        let kinds: Vec<Vec<u8>> = [1i32, 1, 1, 1, 1, 3].iter().map(|k| k.to_le_bytes().to_vec()).collect();
        file.values.push(("tokenizer.ggml.token_type".into(), 9, list(5, &kinds)));
        for (name, shape) in [
            ("token_embd.weight", vec![32, 6]),
            ("blk.0.attn_q.weight", vec![32, 32]),
            ("blk.0.attn_k.weight", vec![32, 16]),
            ("blk.0.attn_v.weight", vec![32, 16]),
            ("blk.0.attn_output.weight", vec![32, 32]),
            ("blk.0.ffn_gate.weight", vec![32, 64]),
            ("blk.0.ffn_up.weight", vec![32, 64]),
            ("blk.0.ffn_down.weight", vec![64, 32]),
            ("blk.0.attn_norm.weight", vec![32]),
            ("blk.0.ffn_norm.weight", vec![32]),
            ("output_norm.weight", vec![32]),
        ] {
            let count = shape.iter().product::<u64>() as usize;
            file.tensors.push((name.into(), shape, 0, 0.5f32.to_le_bytes().repeat(count)));
        }
        file
    }

    pub fn set(mut self, key: &str, kind: u32, value: Vec<u8>) -> Self {
        self.values.retain(|(known, ..)| known != key);
        self.values.push((key.into(), kind, value));
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.values.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.values {
            bytes.extend(text(key));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        let mut offset = 0u64;
        for (name, shape, kind, data) in &self.tensors {
            bytes.extend(text(name));
            bytes.extend((shape.len() as u32).to_le_bytes());
            shape.iter().for_each(|n| bytes.extend(n.to_le_bytes()));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(offset.to_le_bytes());
            offset += (data.len() as u64).next_multiple_of(32);
        }
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        for (.., data) in &self.tensors {
            bytes.extend(data);
            bytes.resize(bytes.len().next_multiple_of(32), 0);
        }
        bytes
    }
}
