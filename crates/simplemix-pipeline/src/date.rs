//! The date that chat templates see: one for all stages of a pipeline, on whatever day they are done.

use std::path::{Path, PathBuf};

use simplemix_data::{ChatTemplate, Error as DataError, Watch};
use simplemix_rollout::ScorerKind;

use crate::error::{Error, Result};
use crate::plan::Purpose;
use crate::pool::PoolSection;
use crate::settings::PipelineSettings;

/// The settings with the date of the pipeline, where a chat template looks at the date: the one that is set, that of the
/// pipeline in the output, or today's. Without such a template there is none.
pub(crate) fn dated(
    mut settings: PipelineSettings,
    purpose: Purpose,
    watch: &mut dyn Watch,
) -> Result<PipelineSettings> {
    if let Some(date) = &settings.template_date {
        ChatTemplate::check_date(date)
            .map_err(|_| Error::setting("template_date", format!("`{date}`"), "a date such as 2026-01-31"))?;
    }
    if !uses_date(&settings, purpose)? {
        if let Some(date) = settings.template_date.take() {
            watch.notice(&format!("`template_date` {date} has no effect: no chat template looks at the date"));
        }
        return Ok(settings);
    }
    let kept = || kept_date(settings.output.as_deref()?);
    let date = settings.template_date.clone().or_else(kept).unwrap_or_else(ChatTemplate::today);
    watch.notice(&format!("a chat template writes a date: {date} in all stages of this pipeline (`template_date`)"));
    settings.template_date = Some(date);
    Ok(settings)
}

/// The date of the pipeline whose settings are in `output`.
fn kept_date(output: &Path) -> Option<String> {
    let text = std::fs::read_to_string(output.join(PipelineSettings::FILE)).ok()?;
    let table: toml::Table = text.parse().ok()?;
    let date = table.get("template_date")?.as_str()?;
    ChatTemplate::check_date(date).is_ok().then(|| date.to_owned())
}

/// Whether a template of the first model or of a given reward model looks at the date. Models of stages have the first
/// model's.
fn uses_date(settings: &PipelineSettings, purpose: Purpose) -> Result<bool> {
    let mut folders: Vec<PathBuf> = Vec::new();
    if let Some(model) = &settings.model {
        folders.push(purpose.resolve(model)?);
    }
    for folder in settings.collect.pool.iter().flat_map(PoolSection::folders) {
        folders.push(purpose.resolve(folder)?);
    }
    for scorer in settings.collect.scorer.iter().chain(&settings.evaluate.scorer) {
        if let ScorerKind::RewardModel(reward) = &scorer.kind {
            folders.push(purpose.resolve(&reward.model)?);
        }
    }
    for folder in folders {
        match ChatTemplate::from_dir(&folder) {
            Ok(template) if template.uses_date() => return Ok(true),
            Ok(_) | Err(DataError::NoTemplate { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}
