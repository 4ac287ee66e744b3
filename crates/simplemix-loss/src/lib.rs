//! Preference losses on libtorch, and log-probs from hidden states without full logits.
//!
//! ```
//! let t = tch::Tensor::from_slice(&[1f32, 2.]);
//! assert_eq!(f64::try_from(t.sum(tch::Kind::Float)).unwrap(), 3.0);
//! ```
