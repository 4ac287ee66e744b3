//! GGUF files to Hugging Face folders: families that llama.cpp knows, weights dequantised to f32, the tokenizer rebuilt.
//!
//! Follows the GGUF specification, versions 2 and 3, and llama.cpp's conventions: query and key rows come back from the
//! order of its rotary kernel to that of transformers. Plain bytes in and out; libtorch takes no part. A file is not
//! trusted: every count and offset is checked against the bytes that are there.

mod architecture;
mod convert;
mod error;
mod pre_tokenizer;
mod quant;
mod reader;
mod rope;
mod sentence_piece;
mod settings;
mod super_blocks;
mod tensors;
mod tokenizer;

pub use convert::{ImportReport, import_gguf};
pub use error::GgufError;
