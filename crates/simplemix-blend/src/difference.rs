//! Pairs whose responses differ too much in length, left out as Olmo 3's preference data are (arXiv:2512.13961): most of what such
//! a pair teaches is the length.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;

use crate::error::Result;
use crate::lengths::Lengths;
use crate::settings::MixSettings;
use crate::sources::tasks;

/// Reason in counts of rows left out.
pub(crate) const REASON: &str = "length-difference";

/// Limits of the difference between the lengths of a pair's responses.
pub(crate) struct Difference<'a> {
    settings: &'a MixSettings,
    lengths: &'a Lengths,
}

impl<'a> Difference<'a> {
    pub(crate) fn new(settings: &'a MixSettings, lengths: &'a Lengths) -> Self {
        Self { settings, lengths }
    }

    /// The rows within the limits, and the number of the others.
    pub(crate) fn filter(&self, batch: RecordBatch) -> Result<(RecordBatch, u64)> {
        let MixSettings { max_length_difference, max_length_difference_of_tasks: of_tasks, .. } = self.settings;
        if max_length_difference.is_none() && of_tasks.is_empty() {
            return Ok((batch, 0));
        }
        let [chosen, rejected] = self.lengths.of_sides(&batch)?;
        let limit = |task: Option<&str>| task.and_then(|task| of_tasks.get(task)).or(max_length_difference.as_ref());
        let sides = chosen.into_iter().zip(rejected);
        let fits = |((chosen, rejected), task): ((u64, u64), Option<&str>)| {
            limit(task).is_none_or(|limit| chosen.abs_diff(rejected) <= *limit)
        };
        let kept: BooleanArray = sides.zip(tasks(&batch)).map(|row| Some(fits(row))).collect();
        let left_out = (kept.len() - kept.true_count()) as u64;
        let kept = filter_record_batch(&batch, &kept).expect("there is a flag for each row");
        Ok((kept, left_out))
    }
}

/// Notices about pairs that were left out, by source, and about tasks with a limit that no pair has.
pub(crate) fn notices(
    settings: &MixSettings,
    unit: &str,
    refused: &[BTreeMap<String, u64>],
    known: &BTreeSet<String>,
) -> Vec<String> {
    let left_out = settings.sources.iter().zip(refused).filter_map(|(source, refused)| {
        let count = refused.get(REASON)?;
        Some(format!("{}: {count} pairs left out, whose responses differ too much in length ({unit})", source.name))
    });
    let limited = settings.max_length_difference_of_tasks.keys().filter(|task| !known.contains(*task));
    let unknown =
        limited.map(|task| format!("`max_length_difference_of_tasks` has `{task}`, and no pair is of this task"));
    left_out.chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use simplemix_data::{Pair, Policy, Text};
    use simplemix_mix::Weight;

    use super::*;
    use crate::{MixSource, Mixing};

    fn pair(task: Option<&str>, chosen: usize, rejected: usize) -> Pair {
        let text = |length: usize| "x".repeat(length);
        let mut pair =
            Pair::new("?".into(), text(chosen).as_str().into(), text(rejected).as_str().into(), "s", Policy::Off);
        pair.task = task.map(str::to_owned);
        pair
    }

    fn kept(settings: &MixSettings, pairs: &[Pair]) -> Result<(Vec<usize>, u64, Vec<String>)> {
        let mixing = Mixing::of_pairs(settings, &[pairs])?;
        let refused = &mixing.sources.refused;
        let mut known = Vec::new();
        mixing.sources.tasks(0, &mut known)?;
        let notices = notices(settings, "bytes", refused, &known.into_iter().collect());
        let length = |pair: &Pair| match &pair.chosen {
            Text::Plain(text) => text.len(),
            Text::Messages(_) => 0,
        };
        let mut found: Vec<usize> = mixing.pairs()?.iter().map(length).collect();
        found.sort_unstable();
        Ok((found, refused[0].get(REASON).copied().unwrap_or(0), notices))
    }

    #[test]
    fn pairs_beyond_the_limit_of_their_task_are_left_out_and_counted() {
        let pairs = [
            pair(None, 10, 20),
            pair(None, 11, 22),
            pair(Some("chat"), 13, 10),
            pair(Some("chat"), 14, 10),
            pair(Some("math"), 35, 25),
            pair(Some("math"), 36, 25),
        ];
        let source = MixSource::new("off", "off", Weight::whole(1));
        let mut settings = MixSettings { sources: vec![source], ..MixSettings::default() };
        assert_eq!(kept(&settings, &pairs).unwrap(), (vec![10, 11, 13, 14, 35, 36], 0, Vec::new()));
        settings.max_length_difference = Some(10);
        assert_eq!(kept(&settings, &pairs).unwrap().0, [10, 13, 14, 35]);
        settings.max_length_difference_of_tasks = [("chat".to_owned(), 3), ("code".to_owned(), 3)].into();
        let (found, count, told) = kept(&settings, &pairs).unwrap();
        assert_eq!((found, count), (vec![10, 13, 35], 3));
        assert_eq!(told[0], "off: 3 pairs left out, whose responses differ too much in length (bytes)");
        assert_eq!(told[1], "`max_length_difference_of_tasks` has `code`, and no pair is of this task");
        settings.max_length_difference = None;
        assert_eq!(kept(&settings, &pairs).unwrap().0, [10, 11, 13, 35, 36]);
        settings.max_length_difference = Some(0);
        settings.max_length_difference_of_tasks.clear();
        let error = kept(&settings, &pairs).unwrap_err().to_string();
        assert!(error.contains("6 length-difference"), "{error}");
    }
}
