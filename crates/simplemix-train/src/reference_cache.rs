//! Reference log-probabilities on disk, under a key of all that they depend on.

use std::io::Write;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use crate::error::{At, Error, Result};
use crate::pairs::PairSet;
use crate::preference::ReferenceLogps;
use crate::sides::Sides;

/// What log-probabilities depend on: the model's files, the adapter's, the token ids, and how they are computed. Two keys
/// are equal when all of it is, byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceKey(String);

impl ReferenceKey {
    /// Hashes the configuration and weights of the `models` folders (a model, and perhaps an adapter), the token ids of
    /// `set`, and `settings`: a description of everything else.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read.
    pub fn new(models: &[&Path], set: &PairSet, settings: &str) -> Result<Self> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"simplemix reference log-probabilities 1\n").update(settings.as_bytes());
        for folder in models {
            let mut files = Vec::new();
            for entry in std::fs::read_dir(folder).at(folder, "read")? {
                let path = entry.at(folder, "read")?.path();
                if path.extension().is_some_and(|end| end == "safetensors") || path.ends_with("config.json") {
                    files.push(path);
                }
            }
            files.sort();
            for path in files {
                let mut of_file = blake3::Hasher::new();
                let file = std::fs::File::open(&path).at(&path, "read")?;
                of_file.update_reader(file).at(&path, "read")?;
                hasher.update(path.file_name().unwrap_or_default().as_encoded_bytes());
                hasher.update(of_file.finalize().as_bytes());
            }
        }
        for pair in set.tokens.iter() {
            for part in [pair.prompt, pair.chosen, pair.rejected] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                let bytes: Vec<u8> = part.iter().flat_map(|id| id.to_le_bytes()).collect();
                hasher.update(&bytes);
            }
        }
        Ok(Self(hasher.finalize().to_hex().to_string()))
    }

    /// As hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn path(&self, folder: &Path) -> PathBuf {
        folder.join(format!("{}.safetensors", self.0))
    }

    /// The log-probabilities of `pairs` pairs in `folder`; none where there is no sound file of them.
    pub fn load(&self, folder: &Path, pairs: usize) -> Option<ReferenceLogps> {
        let bytes = std::fs::read(self.path(folder)).ok()?;
        let file = SafeTensors::deserialize(&bytes).ok()?;
        let logps = file.tensor(LOGPS).ok().filter(|t| t.dtype() == Dtype::F64 && t.shape() == [pairs, 2])?;
        let numbers: Vec<f64> = logps.data().as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
        // A file of zeros, as a full disk leaves behind, is no file of log-probabilities.
        let sound =
            numbers.iter().all(|logp| logp.is_finite() && *logp <= 0.0) && numbers.iter().any(|logp| *logp < 0.0);
        sound.then(|| Sides::from_alternating(&numbers))
    }

    /// Keeps them in `folder`, whole or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    pub fn store(&self, folder: &Path, logps: &ReferenceLogps) -> Result<()> {
        let path = self.path(folder);
        std::fs::create_dir_all(folder).at(folder, "create")?;
        let bytes: Vec<u8> = logps.iter().flat_map(|&pair| <[f64; 2]>::from(pair)).flat_map(f64::to_le_bytes).collect();
        let wrong = |error| Error::Io { path: path.clone(), action: "write", source: std::io::Error::other(error) };
        let view = TensorView::new(Dtype::F64, vec![logps.len(), 2], &bytes).map_err(wrong)?;
        let text = safetensors::serialize([(LOGPS, view)], None).map_err(wrong)?;
        let mut file = tempfile::NamedTempFile::new_in(folder).at(folder, "write")?;
        file.write_all(&text).and_then(|()| file.as_file().sync_all()).at(&path, "write")?;
        file.persist(&path).map_err(|error| error.error).at(&path, "write")?;
        Ok(())
    }
}

/// `[pairs, 2]`: chosen, rejected.
const LOGPS: &str = "logps";

#[cfg(test)]
mod tests {
    use simplemix_data::TokenizedPair;

    use super::*;

    fn set(token: u32) -> PairSet {
        let pair = TokenizedPair { prompt: vec![1, 2], chosen: vec![token], rejected: vec![4], ..Default::default() };
        PairSet { tokens: [pair].into_iter().collect(), ..PairSet::default() }
    }

    #[test]
    fn a_key_changes_with_whatever_the_numbers_depend_on() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write("config.json", "{}");
        write("model.safetensors", "weights");
        let key = |token, settings: &str| ReferenceKey::new(&[dir.path()], &set(token), settings).unwrap();
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
