//! The loop's view of the data: length and origin of each pair.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::sides::Sides;
use crate::team::Team;

/// A training or held-out set, without its tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PairTable {
    /// Names of the sources.
    pub sources: Vec<String>,
    /// Names of the tasks.
    pub tasks: Vec<String>,
    /// Rounds between the model that wrote the pairs of a source and the one that is trained on them, by index into
    /// [`PairTable::sources`], where the file of a mixture tells.
    pub ages: BTreeMap<usize, u32>,
    /// The pairs, in file order.
    pub pairs: Vec<PairEntry>,
}

/// Length and origin of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PairEntry {
    /// Row of the data file.
    pub row: usize,
    /// Tokens that are run through the model.
    pub tokens: usize,
    /// Tokens of the prompt.
    pub prompt: usize,
    /// Tokens of each response.
    pub responses: Sides<usize>,
    /// Whether each response is run after a prompt of its own, even where prompts are shared, since the two sequences have
    /// different rotary frequencies.
    pub is_split: bool,
    /// Index into [`PairTable::sources`].
    pub source: usize,
    /// Index into [`PairTable::tasks`].
    pub task: Option<usize>,
}

impl PairTable {
    /// Index of a source's name, which is added if it is new.
    pub fn source(&mut self, name: &str) -> usize {
        index(&mut self.sources, name)
    }

    /// Sets the ages of the sources that are in `ages`.
    pub(crate) fn set_ages(&mut self, ages: &BTreeMap<String, u32>) {
        let named = self.sources.iter().enumerate();
        self.ages = named.filter_map(|(number, name)| Some((number, *ages.get(name)?))).collect();
    }

    /// Index of a task's name, which is added if it is new.
    pub fn task(&mut self, name: &str) -> usize {
        index(&mut self.tasks, name)
    }

    /// Splits a batch so that each part has at most `budget` tokens, or one pair.
    ///
    /// # Errors
    /// [`Error::Setting`] for a budget of 0.
    pub fn micro_batches<'a>(&self, batch: &'a [usize], budget: usize) -> Result<Vec<&'a [usize]>> {
        if budget == 0 {
            return Err(Error::setting("batch.micro_batch_tokens", 0, "at least 1"));
        }
        let (mut parts, mut start, mut held) = (Vec::new(), 0, 0);
        for (i, &pair) in batch.iter().enumerate() {
            let tokens = self.pairs[pair].tokens;
            if i > start && held + tokens > budget {
                parts.push(&batch[start..i]);
                (start, held) = (i, 0);
            }
            held += tokens;
        }
        if start < batch.len() {
            parts.push(&batch[start..]);
        }
        Ok(parts)
    }

    /// Most micro-batches that a process of `team` has of its share of `batch`.
    pub(crate) fn most_micro_batches(&self, team: &Team, batch: &[usize], budget: usize) -> Result<usize> {
        let of = |rank: usize| Ok(self.micro_batches(&team.share_of(rank, batch), budget)?.len());
        (0..team.size()).map(of).try_fold(0, |most, count: Result<usize>| Ok(count?.max(most)))
    }
}

fn index(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|known| known == name).unwrap_or_else(|| {
        names.push(name.to_owned());
        names.len() - 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micro_batches_keep_the_order_and_the_budget() {
        let lengths = [50, 60, 200, 10, 10];
        let pairs = lengths.iter().map(|&tokens| PairEntry { tokens, ..PairEntry::default() }).collect();
        let table = PairTable { sources: vec!["a".into()], pairs, ..PairTable::default() };
        let parts = table.micro_batches(&[0, 1, 2, 3, 4], 110).unwrap();
        assert_eq!(parts, [&[0, 1][..], &[2], &[3, 4]]);
        assert!(table.micro_batches(&[0], 0).is_err());
    }
}
