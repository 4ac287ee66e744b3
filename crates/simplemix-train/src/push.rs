//! Push of a run's result to the Hugging Face hub.

use simplemix_data::Watch;
use simplemix_model::hub::{Push, PushTo};

use crate::config::PushSettings;
use crate::error::{Error, Result};
use crate::run_folder::RunFolder;

/// Logs in and makes the repository, if the result is to be pushed.
///
/// # Errors
/// [`Error::Model`] if the hub cannot be reached or the token may not write.
pub(crate) fn open(settings: &PushSettings) -> Result<Option<Push>> {
    let Some(repository) = &settings.to else { return Ok(None) };
    let to = PushTo { repository, revision: &settings.revision, private: settings.private };
    Ok(Some(Push::open(to)?))
}

/// Pushes the result of a run that is whole, and returns the address of the commit.
///
/// # Errors
/// [`Error::NotPushed`].
pub(crate) fn push(push: &Push, settings: &PushSettings, folder: &RunFolder, watch: &mut dyn Watch) -> Result<String> {
    let result = if settings.adapter { folder.adapter() } else { folder.model() };
    let mut progress = |done, total| watch.progress("pushing", done, total);
    push.push(&result, "Trained with simplemix", &mut progress).map_err(|source| {
        let revision = match settings.revision.as_str() {
            "main" => String::new(),
            other => format!(" --revision {other}"),
        };
        Error::NotPushed {
            path: folder.path().to_owned(),
            repository: push.repository().to_owned(),
            flags: format!("{revision}{}", if settings.adapter { " --adapter" } else { "" }),
            source: Box::new(source),
        }
    })
}
