//! GGUF files to Hugging Face folders, and back: families that llama.cpp knows, weights dequantised to f32, the tokenizer rebuilt.
//!
//! Follows the GGUF specification, versions 2 and 3, and llama.cpp's conventions: query and key rows come back from the
//! order of its rotary kernel to that of transformers. Reading is plain bytes in and out; libtorch takes no part. A file is not
//! trusted: every count and offset is checked against the bytes that are there. A file that is written is read again before it gets
//! its name: it has to say the same model.

mod architecture;
mod convert;
mod error;
mod export;
mod packing;
mod pre_tokenizer;
mod quant;
mod reader;
mod rope;
mod sentence_piece;
mod settings;
mod super_blocks;
mod tensors;
mod tokenizer;
mod tokens;
mod writer;

pub use convert::{ImportReport, import_gguf};
pub use error::GgufError;
pub use export::{ExportReport, export_gguf};
pub use packing::GgufType;
