//! Causal language models from Hugging Face folders on libtorch: policies, references, sampling.
