//! Ragged input without padding: segments laid end to end, where a segment may continue another.
//!
//! A preference pair is a prompt and two segments that continue it. The prompt's tokens go through the network once;
//! each response sees the prompt and itself, never the other response. Numbers are those of the two plain sequences.
//!
//! Letters: T tokens in all.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::random;

/// A run of tokens inside a [`Packed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Index of its first token.
    pub start: usize,
    /// Number of tokens; may be zero for a continuation.
    pub len: usize,
    /// The segment it continues.
    pub parent: Option<usize>,
}

/// Tokens of several sequences for one forward pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Packed {
    tokens: Vec<i64>,
    positions: Vec<i64>,
    segments: Vec<Segment>,
    /// Names of segments that have one, for dropout.
    names: BTreeMap<usize, u64>,
}

/// Hidden states that predict tokens, the tokens, and their owners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Targets {
    /// Row of the hidden states, `[N]`.
    pub rows: Vec<i64>,
    /// The token that the row predicts, `[N]`.
    pub tokens: Vec<i64>,
    /// The response it belongs to, `[N]`, counted from zero.
    pub owners: Vec<i64>,
    /// Responses so far.
    pub responses: usize,
}

impl Packed {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of tokens T.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Token ids, `[T]`.
    pub fn tokens(&self) -> &[i64] {
        &self.tokens
    }

    /// Rotary position of each token, `[T]`.
    pub fn positions(&self) -> &[i64] {
        &self.positions
    }

    /// The segments in the order of their tokens.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Gives a segment a name from which, with the place in the segment, follows which of its inputs dropout drops. Segments
    /// of one name drop the same; one without a name is named by its number.
    pub fn name(&mut self, segment: usize, name: u64) {
        self.names.insert(segment, name);
    }

    /// Key of each token for dropout, `[T]`.
    pub(crate) fn dropout_keys(&self) -> Vec<i32> {
        let mut keys = Vec::with_capacity(self.len());
        for (number, segment) in self.segments.iter().enumerate() {
            // Names given are odd here and numbers even, so that they do not meet.
            let name = self.names.get(&number).map_or(number as u64 * 2, |name| name * 2 + 1);
            keys.extend((0..segment.len as u64).map(|place| random::bits(name, place) as i32));
        }
        keys
    }

    /// Appends a sequence of its own and returns its segment's number.
    ///
    /// # Errors
    /// [`Error::Input`] if it is empty.
    pub fn push(&mut self, tokens: &[u32]) -> Result<usize> {
        if tokens.is_empty() {
            return Err(Error::Input {
                what: "length of a sequence",
                found: "0".to_owned(),
                expected: "at least one token".to_owned(),
            });
        }
        Ok(self.append(tokens, 0, None))
    }

    /// Appends tokens that continue segment `parent` and returns the new segment's number.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such segment, or it is a continuation itself.
    pub fn push_after(&mut self, parent: usize, tokens: &[u32]) -> Result<usize> {
        match self.segments.get(parent) {
            Some(Segment { len, parent: None, .. }) => Ok(self.append(tokens, *len, Some(parent))),
            found => Err(Error::Input {
                what: "segment to continue",
                found: format!("{found:?}"),
                expected: "a segment that continues no other".to_owned(),
            }),
        }
    }

    /// Appends a `response` to segment `parent` and notes in `targets` what predicts each of its tokens.
    ///
    /// The last token predicts nothing that is asked for, so it is not fed.
    ///
    /// # Errors
    /// [`Error::Input`] if the response is empty, or as [`Packed::push_after`].
    pub fn push_response(&mut self, parent: usize, response: &[u32], targets: &mut Targets) -> Result<usize> {
        let Some((_, fed)) = response.split_last() else {
            return Err(Error::Input {
                what: "length of a response",
                found: "0".to_owned(),
                expected: "at least one token".to_owned(),
            });
        };
        let segment = self.push_after(parent, fed)?;
        let prompt = self.segments[parent];
        let start = self.segments[segment].start;
        targets.rows.push((prompt.start + prompt.len) as i64 - 1);
        targets.rows.extend((start..start + fed.len()).map(|row| row as i64));
        targets.tokens.extend(response.iter().map(|&t| i64::from(t)));
        targets.owners.extend(std::iter::repeat_n(targets.responses as i64, response.len()));
        targets.responses += 1;
        Ok(segment)
    }

    /// Appends one token of a sequence whose earlier tokens are in a cache.
    pub(crate) fn push_at(&mut self, token: u32, position: i64) {
        self.append(&[token], 0, None);
        if let Some(last) = self.positions.last_mut() {
            *last = position;
        }
    }

    fn append(&mut self, tokens: &[u32], offset: usize, parent: Option<usize>) -> usize {
        let start = self.tokens.len();
        self.tokens.extend(tokens.iter().map(|&t| i64::from(t)));
        self.positions.extend((offset..offset + tokens.len()).map(|p| p as i64));
        self.segments.push(Segment { start, len: tokens.len(), parent });
        self.segments.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_shares_its_prompt() {
        let (mut packed, mut targets) = (Packed::new(), Targets::default());
        let prompt = packed.push(&[10, 11, 12]).unwrap();
        packed.push_response(prompt, &[20, 21], &mut targets).unwrap();
        packed.push_response(prompt, &[30], &mut targets).unwrap();
        assert_eq!(packed.tokens(), [10, 11, 12, 20]);
        assert_eq!(packed.positions(), [0, 1, 2, 3]);
        // Both responses start from the prompt's last row.
        assert_eq!(targets.rows, [2, 3, 2]);
        assert_eq!(targets.tokens, [20, 21, 30]);
        assert_eq!(targets.owners, [0, 0, 1]);
    }

    #[test]
    fn continuing_a_continuation_is_refused() {
        let mut packed = Packed::new();
        let prompt = packed.push(&[1]).unwrap();
        let child = packed.push_after(prompt, &[2]).unwrap();
        assert!(packed.push_after(child, &[3]).is_err());
        assert!(packed.push_after(9, &[3]).is_err());
        assert!(packed.push(&[]).is_err());
    }
}
