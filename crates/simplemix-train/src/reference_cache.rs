//! Cache of reference log-probabilities, under a key of everything that they depend on.

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use simplemix_files::open_dir;

use crate::error::Result;
use crate::pairs::PairSet;
use crate::preference::ReferenceLogps;
use crate::sides::Sides;

/// Key of log-probabilities: a hash of the model folder, the token ids, and the settings of the computation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReferenceKey(String);

impl ReferenceKey {
    /// Hashes the hash of the model folder, the token ids of `set`, and `settings`, a description of everything else.
    pub(crate) fn new(model_hash: &str, set: &PairSet, settings: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"simplemix reference log-probabilities 2\n").update(settings.as_bytes());
        hasher.update(model_hash.as_bytes());
        for pair in set.tokens.iter() {
            for part in [pair.prompt, pair.chosen, pair.rejected] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                let bytes: Vec<u8> = part.iter().flat_map(|id| id.to_le_bytes()).collect();
                hasher.update(&bytes);
            }
        }
        Self(hasher.finalize().to_hex().to_string())
    }

    /// The key in hexadecimal digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.safetensors", self.0))
    }

    /// Loads the log-probabilities of `pairs` pairs from `folder`; none if the file is absent or damaged.
    pub(crate) fn load(&self, folder: &Path, pairs: usize) -> Option<ReferenceLogps> {
        let bytes = simplemix_files::read(self.path(folder)).ok()?;
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let logps = file.tensor(LOGPS).ok().filter(|t| t.dtype() == Dtype::F64 && t.shape() == [pairs, 2])?;
        let numbers: Vec<f64> = logps.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        // A file of zeros, as earlier versions left after a power cut, is damaged.
        let sound =
            numbers.iter().all(|logp| logp.is_finite() && *logp <= 0.0) && numbers.iter().any(|logp| *logp < 0.0);
        sound.then(|| Sides::from_alternating(&numbers))
    }

    /// Stores log-probabilities in `folder`, which is created if it is absent.
    ///
    /// # Errors
    /// [`crate::Error::Files`] if the file cannot be written.
    pub(crate) fn store(&self, folder: &Path, logps: &ReferenceLogps) -> Result<()> {
        let bytes: Vec<u8> = logps.iter().flat_map(|&pair| <[f64; 2]>::from(pair)).flat_map(f64::to_le_bytes).collect();
        let view = TensorView::new(Dtype::F64, vec![logps.len(), 2], &bytes).expect("two numbers a pair");
        let file = safetensors::serialize([(LOGPS, view)], None).expect("one tensor with a name can be serialised");
        open_dir(folder)?;
        Ok(simplemix_files::write(self.path(folder), file)?)
    }
}

/// Tensor `[pairs, 2]`: chosen, rejected.
const LOGPS: &str = "logps";

#[cfg(test)]
mod tests {
    use simplemix_data::TokenizedPair;
    use simplemix_files::hash_model_folder;

    use super::*;

    fn set(token: u32) -> PairSet {
        let pair = TokenizedPair { prompt: vec![1, 2], chosen: vec![token], rejected: vec![4], ..Default::default() };
        PairSet { tokens: [pair].into_iter().collect(), ..PairSet::default() }
    }

    #[test]
    fn a_key_changes_with_everything_that_the_numbers_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let key =
            |token, settings: &str| ReferenceKey::new(&hash_model_folder(dir.path()).unwrap(), &set(token), settings);
        let first = key(3, "f32");
        write("README.md", "nothing to do with it");
        assert_eq!(key(3, "f32"), first);
        assert_ne!(key(5, "f32"), first);
        assert_ne!(key(3, "bf16"), first);
        write("model.safetensors", "other weights");
        assert_ne!(key(3, "f32"), first);
    }

    #[test]
    fn what_is_stored_is_loaded_and_damage_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (key, logps) = (
            ReferenceKey("k".into()),
            vec![Sides { chosen: -1.5, rejected: -2.5 }, Sides { chosen: -0.25, rejected: 0.0 }],
        );
        assert_eq!(key.load(dir.path(), 2), None);
        key.store(dir.path(), &logps).unwrap();
        assert_eq!(key.load(dir.path(), 2), Some(logps));
        assert_eq!(key.load(dir.path(), 3), None);
        let path = key.path(dir.path());
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            assert_eq!(key.load(dir.path(), 2), None);
        }
        let mut bytes = bytes;
        let end = bytes.len();
        bytes[end - 16..].fill(0xff);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(key.load(dir.path(), 2), None);
    }
}
