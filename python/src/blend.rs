//! Mixtures of files carried out by `simplemix-blend`, in bounded memory, with the receipts of `simplemix mix`.

use std::path::PathBuf;

use pyo3::prelude::*;
use simplemix_blend::MixSettings;
use simplemix_data::Watch;

use crate::failure::{Failure, Result};
use crate::work::{self, Stop};

/// Observer that keeps notices and asks whether to stop.
struct Kept<'a> {
    stop: &'a Stop,
    notices: Vec<String>,
}

impl Watch for Kept<'_> {
    fn notice(&mut self, text: &str) {
        self.notices.push(text.to_owned());
    }

    fn is_interrupted(&self) -> bool {
        self.stop.check().is_err()
    }
}

/// Mixes files into one file, and gives as JSON what `simplemix mix --json` prints, and notices.
#[pyfunction]
pub(crate) fn mix_files(py: Python<'_>, settings: &str) -> Result<String> {
    let settings: MixSettings = serde_json::from_str(settings).map_err(|error| Failure::settings("mixture", &error))?;
    work::long(py, |stop| {
        let mut watch = Kept { stop, notices: Vec::new() };
        let report = simplemix_blend::mix(&settings, &mut watch)?;
        serde_json::to_string(&(report, watch.notices)).map_err(|error| Failure::of(&error))
    })
}

/// Makes the mixture of a receipt of files again, and compares; as JSON.
#[pyfunction]
pub(crate) fn verify_files(py: Python<'_>, receipt: PathBuf) -> Result<String> {
    work::long(py, |stop| {
        let mut watch = Kept { stop, notices: Vec::new() };
        let verified = simplemix_blend::verify(&receipt, &mut watch)?;
        serde_json::to_string(&verified).map_err(|error| Failure::of(&error))
    })
}
