//! Ragged input without padding: segments laid end to end, where a segment may continue another.
//!
//! A preference pair is a prompt and two segments that continue it. The prompt's tokens go through the network once;
//! each response sees the prompt and itself, never the other response. Numbers are those of the two plain sequences: where
//! rotary frequencies follow from a sequence's length, and differ between the two, each response has a prompt of its own.
//!
//! Letters: T tokens in all.

use std::collections::BTreeMap;

use crate::config::{LengthRule, ModelConfig};
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
    /// Sequence of each segment.
    sequences: Vec<Sequence>,
    /// Rules that tell sequences apart by their lengths.
    rules: Vec<LengthRule>,
    /// Names of segments that have one, for dropout.
    names: BTreeMap<usize, u64>,
    /// Whether last tokens of responses are fed.
    is_whole: bool,
}

/// The sequence that a segment is a part of.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sequence {
    /// Tokens, those included that are not fed.
    length: i64,
    /// Whether a segment continues this one.
    is_continued: bool,
    /// Segments of the same tokens for continuations of other lengths.
    copies: Vec<usize>,
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

    /// Nothing yet, for passes of a model of this `config`.
    ///
    /// Where the model takes its rotary frequencies from the length of a sequence ([`crate::RopeScaling::Dynamic`],
    /// [`crate::RopeScaling::LongRope`]), a segment that is continued to lengths of different frequencies is laid out once for each of
    /// them, so that numbers are those of plain sequences. For every other model this is [`Packed::new`].
    pub fn of(config: &ModelConfig) -> Self {
        let rules = config.ropes.iter().filter_map(|rope| rope.scaling.length_rule());
        Self { rules: rules.collect(), ..Self::default() }
    }

    /// Feeds the last token of responses that are pushed from now on, as a pass over whole sequences does. Nothing that is scored
    /// depends on it, but what is counted over all tokens does, such as the loads of experts.
    #[must_use]
    pub fn whole(self) -> Self {
        Self { is_whole: true, ..self }
    }

    /// How many sequences have each token, `[T]`: those that continue its segment, or one.
    pub(crate) fn uses(&self) -> Vec<f32> {
        let mut continuations = vec![0u32; self.segments.len()];
        self.segments.iter().filter_map(|segment| segment.parent).for_each(|parent| continuations[parent] += 1);
        let all = self.segments.iter().zip(continuations);
        all.flat_map(|(segment, own)| std::iter::repeat_n(own.max(1) as f32, segment.len)).collect()
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
        Ok(self.append(tokens, tokens.len() as i64, None))
    }

    /// Appends tokens that continue segment `parent` and returns the new segment's number.
    ///
    /// # Errors
    /// [`Error::Input`] if there is no such segment, or it is a continuation itself.
    pub fn push_after(&mut self, parent: usize, tokens: &[u32]) -> Result<usize> {
        let length = self.root(parent)?.len + tokens.len();
        let parent = self.parent(parent, length as i64);
        Ok(self.append(tokens, length as i64, Some(parent)))
    }

    /// Appends a `response` to segment `parent` and notes in `targets` what predicts each of its tokens.
    ///
    /// The last token predicts nothing that is asked for, so it is not fed, unless this is [`Packed::whole`].
    ///
    /// # Errors
    /// [`Error::Input`] if the response is empty, or as [`Packed::push_after`].
    pub fn push_response(&mut self, parent: usize, response: &[u32], targets: &mut Targets) -> Result<usize> {
        let Some((_, before_last)) = response.split_last() else {
            return Err(Error::Input {
                what: "length of a response",
                found: "0".to_owned(),
                expected: "at least one token".to_owned(),
            });
        };
        let length = (self.root(parent)?.len + response.len()) as i64;
        let fed = if self.is_whole { response } else { before_last };
        let parent = self.parent(parent, length);
        let prompt = self.segments[parent];
        let segment = self.append(fed, length, Some(parent));
        let start = self.segments[segment].start;
        targets.rows.push((prompt.start + prompt.len) as i64 - 1);
        targets.rows.extend((start..start + before_last.len()).map(|row| row as i64));
        targets.tokens.extend(response.iter().map(|&t| i64::from(t)));
        targets.owners.extend(std::iter::repeat_n(targets.responses as i64, response.len()));
        targets.responses += 1;
        Ok(segment)
    }

    /// Appends one token of a sequence whose earlier tokens are in a cache.
    pub(crate) fn push_at(&mut self, token: u32, position: i64) {
        self.append(&[token], position + 1, None);
        if let Some(last) = self.positions.last_mut() {
            *last = position;
        }
    }

    /// Appends a sequence whose rotary frequencies are those of one of `length` tokens.
    pub(crate) fn push_as(&mut self, tokens: &[u32], length: i64) {
        self.append(tokens, length, None);
    }

    /// The segments, each with the length of its sequence.
    ///
    /// # Errors
    /// [`Error::Input`] where a segment is continued to two lengths that `rule` tells apart.
    pub(crate) fn lengths(&self, rule: LengthRule) -> Result<impl Iterator<Item = (&Segment, i64)>> {
        for (segment, sequence) in self.segments.iter().zip(&self.sequences) {
            let first = segment.parent.map_or(sequence.length, |parent| self.sequences[parent].length);
            if rule.class(first) != rule.class(sequence.length) {
                return Err(Error::Input {
                    what: "lengths of sequences with one prompt",
                    found: format!("{first} and {}", sequence.length),
                    expected:
                        "lengths of the same rotary frequencies: begin with `Packed::of`, which lays out such prompts \
                               for each"
                            .to_owned(),
                });
            }
        }
        Ok(self.segments.iter().zip(self.sequences.iter().map(|sequence| sequence.length)))
    }

    /// Segment `parent`, which must continue no other.
    fn root(&self, parent: usize) -> Result<Segment> {
        match self.segments.get(parent) {
            Some(segment @ Segment { parent: None, .. }) => Ok(*segment),
            found => Err(Error::Input {
                what: "segment to continue",
                found: format!("{found:?}"),
                expected: "a segment that continues no other".to_owned(),
            }),
        }
    }

    /// The segment with the tokens of `parent` whose continuations have the rotary frequencies of `length` tokens; made, if
    /// there is none.
    fn parent(&mut self, parent: usize, length: i64) -> usize {
        if !self.sequences[parent].is_continued {
            let sequence = &mut self.sequences[parent];
            (sequence.length, sequence.is_continued) = (length, true);
            return parent;
        }
        let is_like = |other: usize| {
            let other = self.sequences[other].length;
            self.rules.iter().all(|rule| rule.class(other) == rule.class(length))
        };
        let mut known = std::iter::once(parent).chain(self.sequences[parent].copies.iter().copied());
        if let Some(like) = known.find(|&other| is_like(other)) {
            return like;
        }
        let copy = self.append_copy(self.segments[parent], length);
        if let Some(&name) = self.names.get(&parent) {
            self.names.insert(copy, name);
        }
        self.sequences[parent].copies.push(copy);
        copy
    }

    fn append_copy(&mut self, of: Segment, length: i64) -> usize {
        let start = self.tokens.len();
        self.tokens.extend_from_within(of.start..of.start + of.len);
        self.positions.extend((0..of.len).map(|p| p as i64));
        self.segments.push(Segment { start, ..of });
        self.sequences.push(Sequence { length, is_continued: true, copies: Vec::new() });
        self.segments.len() - 1
    }

    fn append(&mut self, tokens: &[u32], length: i64, parent: Option<usize>) -> usize {
        let start = self.tokens.len();
        let offset = parent.map_or(0, |parent| self.segments[parent].len);
        self.tokens.extend(tokens.iter().map(|&t| i64::from(t)));
        self.positions.extend((offset..offset + tokens.len()).map(|p| p as i64));
        self.segments.push(Segment { start, len: tokens.len(), parent });
        self.sequences.push(Sequence { length, is_continued: false, copies: Vec::new() });
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
    fn a_prompt_is_laid_out_for_each_side_of_a_context() {
        let long = crate::config::RopeScaling::LongRope {
            short_factor: vec![1.0],
            long_factor: vec![2.0],
            attention_factor: 1.0,
            original_max_position_embeddings: 5,
            reads_again: false,
        };
        let mut config = crate::tiny::config();
        config.ropes[0].scaling = long.clone();
        let rule = long.length_rule().unwrap();
        let pack = |mut packed: Packed| {
            let mut targets = Targets::default();
            let prompt = packed.push(&[10, 11, 12]).unwrap();
            packed.name(prompt, 4);
            // Five tokens, six, five and seven: the last one of each is not fed.
            for response in [&[20, 21][..], &[30, 31, 32], &[40, 41], &[50, 51, 52, 53]] {
                packed.push_response(prompt, response, &mut targets).unwrap();
            }
            (packed, targets)
        };
        let (packed, targets) = pack(Packed::of(&config));
        assert_eq!(packed.tokens(), [10, 11, 12, 20, 10, 11, 12, 30, 31, 40, 50, 51, 52]);
        assert_eq!(packed.positions(), [0, 1, 2, 3, 0, 1, 2, 3, 4, 3, 3, 4, 5]);
        assert_eq!(targets.rows, [2, 3, 6, 7, 8, 2, 9, 6, 10, 11, 12]);
        let lengths: Vec<i64> = packed.lengths(rule).unwrap().map(|(_, length)| length).collect();
        assert_eq!(lengths, [5, 5, 6, 6, 5, 7]);
        assert_eq!(packed.dropout_keys()[..3], packed.dropout_keys()[4..7]);
        // A pack that knows no model shares the prompt, and such a model refuses it.
        let (shared, _) = pack(Packed::new());
        assert_eq!(shared.len(), 10);
        let error = shared.lengths(rule).map(|_| ()).unwrap_err().to_string();
        assert!(
            error.starts_with("lengths of sequences with one prompt is 5 and 6, expected lengths of the same"),
            "{error}"
        );
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
