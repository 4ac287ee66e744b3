//! Sequences that a model can compute: tokens of its vocabulary, and no more of them than it has positions for.

use super::{LengthRule, ModelConfig, RopeScaling};
use crate::error::{Error, Result};

impl ModelConfig {
    /// Longest sequence that is computed, in tokens; none if there is no limit: rotary frequencies reach any position.
    pub fn longest(&self) -> Option<i64> {
        self.learned()
    }

    /// Whether sequences of `a` and `b` tokens have the same rotary frequencies, so that they can share the pass over what they
    /// begin with.
    pub fn same_frequencies(&self, a: usize, b: usize) -> bool {
        let class = |rule: LengthRule| rule.class(a as i64) == rule.class(b as i64);
        self.ropes.iter().filter_map(|rope| rope.scaling.length_rule()).all(class)
    }

    /// Length above which generation reads a sequence again, since all its tokens then have other rotary frequencies; none if
    /// there is no such length.
    pub(crate) fn reads_again_above(&self) -> Option<i64> {
        self.ropes.iter().find_map(|rope| match rope.scaling {
            RopeScaling::LongRope { original_max_position_embeddings: context, reads_again: true, .. } => Some(context),
            _ => None,
        })
    }

    /// Positions that have vectors, where they are learned.
    pub(crate) fn learned(&self) -> Option<i64> {
        self.learned_positions.then_some(self.max_position_embeddings)
    }

    /// Refuses a sequence that this model cannot compute: one with a token outside of its vocabulary, or one that is too long
    /// once `further` tokens follow.
    ///
    /// # Errors
    /// [`Error::Input`] with the token or the length, and the limit.
    pub fn check_sequence(&self, ids: &[u32], further: usize) -> Result<()> {
        if let Some(id) = ids.iter().find(|id| i64::from(**id) >= self.vocab_size) {
            return Err(outside(i64::from(*id), self.vocab_size));
        }
        let length = (ids.len() + further) as i64;
        match self.longest() {
            Some(longest) if length > longest => Err(past_positions(length, longest)),
            _ => Ok(()),
        }
    }
}

/// Error of a token that the model does not have.
pub(crate) fn outside(id: i64, vocabulary: i64) -> Error {
    Error::Input {
        what: "token id",
        found: id.to_string(),
        expected: format!(
            "below {vocabulary}, the size of the model's vocabulary: the tokenizer knows tokens that the model has not; use the \
             model's own tokenizer, or resize the embedding with transformers"
        ),
    }
}

/// Error of a sequence with more tokens than there are learned positions.
pub(crate) fn past_positions(length: i64, room: i64) -> Error {
    let expected = format!(
        "at most {room}: this model has learned vectors for so many positions and no rule for further ones; shorten it"
    );
    Error::Input { what: "length of a sequence", found: length.to_string(), expected }
}

#[cfg(test)]
mod tests {

    #[test]
    fn tokens_and_lengths_are_checked() {
        let mut config = crate::tiny::config();
        config.vocab_size = 100;
        config.check_sequence(&[0, 99], 1_000_000).unwrap();
        let error = config.check_sequence(&[3, 100], 0).unwrap_err().to_string();
        assert!(
            error.starts_with("token id is 100, expected below 100, the size of the model's vocabulary"),
            "{error}"
        );
        (config.learned_positions, config.max_position_embeddings) = (true, 8);
        assert_eq!(config.longest(), Some(8));
        config.check_sequence(&[1; 5], 3).unwrap();
        let error = config.check_sequence(&[1; 5], 4).unwrap_err().to_string();
        assert!(error.starts_with("length of a sequence is 9, expected at most 8"), "{error}");
    }
}
