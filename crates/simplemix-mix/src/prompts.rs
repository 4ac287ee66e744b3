//! Mixtures by prompt: the source from which each prompt comes, and the order of the rows that share a prompt.
//!
//! Prompts are given as numbers, such as hashes of their text: `prompts[i]` is the prompt of row `i`. The results are
//! rows, either for [`crate::Mixture::with_rows`] or in their final order.

use std::collections::HashMap;

use crate::permutation::{Permutation, mix};
use crate::weight::Weight;

/// Rows that each source keeps so that every prompt comes from a single source.
///
/// A prompt that several sources have goes to one of them at random, in the ratio of their weights. The choice depends
/// on the seed and the prompt only, so that rows of other prompts do not change it.
///
/// # Examples
/// ```
/// use simplemix_mix::{Weight, prompts};
/// let half = Weight::whole(1);
/// let kept = prompts::disjoint(&[&[1, 2, 2], &[2, 3]], &[half, half], 7);
/// // Prompt 2 stays on one side, with all its rows there.
/// assert!(kept == [vec![0], vec![0, 1]] || kept == [vec![0, 1, 2], vec![1]]);
/// ```
pub fn disjoint(sources: &[&[u64]], weights: &[Weight], seed: u64) -> Vec<Vec<u64>> {
    let mut owners: HashMap<u64, u64> = HashMap::new();
    for (source, prompts) in sources.iter().enumerate() {
        for &prompt in *prompts {
            *owners.entry(prompt).or_default() |= 1 << source.min(63);
        }
    }
    let owner = |prompt: u64| {
        let has = owners.get(&prompt).copied().unwrap_or(0);
        let chances: Vec<(usize, f64)> =
            weights.iter().enumerate().filter(|(i, _)| has >> i & 1 == 1).map(|(i, w)| (i, value(*w))).collect();
        let sum: f64 = chances.iter().map(|(_, chance)| chance).sum();
        let mut left = (mix(mix(seed) ^ prompt) >> 11) as f64 / (1u64 << 53) as f64 * sum;
        chances
            .iter()
            .find(|(_, chance)| {
                left -= chance;
                left < 0.0
            })
            .or(chances.last())
            .map(|&(i, _)| i)
    };
    sources
        .iter()
        .enumerate()
        .map(|(source, prompts)| {
            rows(prompts).filter(|&(_, prompt)| owner(prompt) == Some(source)).map(|(row, _)| row).collect()
        })
        .collect()
}

/// Rows `(a, b)` of two sources with the same prompt. Each row comes at most once, and the rows of a prompt are matched
/// in their order.
///
/// # Examples
/// ```
/// use simplemix_mix::prompts;
/// assert_eq!(prompts::paired(&[5, 6, 6], &[6, 7, 5]), [(0, 2), (1, 0)]);
/// ```
pub fn paired(a: &[u64], b: &[u64]) -> Vec<(u64, u64)> {
    let mut waiting: HashMap<u64, std::collections::VecDeque<u64>> = HashMap::new();
    for (row, prompt) in rows(b) {
        waiting.entry(prompt).or_default().push_back(row);
    }
    rows(a).filter_map(|(row, prompt)| Some((row, waiting.get_mut(&prompt)?.pop_front()?))).collect()
}

/// Puts the two rows of each prompt next to each other, in a keyed order, with the prompts in a keyed order too.
///
/// Gives pairs `(source, row)` with source 0 or 1.
///
/// # Examples
/// ```
/// use simplemix_mix::prompts;
/// let order: Vec<(usize, u64)> = prompts::adjacent(&[(0, 2)], 7).collect();
/// assert!(order == [(0, 0), (1, 2)] || order == [(1, 2), (0, 0)]);
/// ```
pub fn adjacent(pairs: &[(u64, u64)], seed: u64) -> impl Iterator<Item = (usize, u64)> + '_ {
    let order = Permutation::new(pairs.len() as u64, seed, 0);
    (0..pairs.len() as u64).flat_map(move |i| {
        let (a, b) = pairs[order.at(i) as usize];
        if mix(mix(seed) ^ i) & 1 == 0 { [(0, a), (1, b)] } else { [(1, b), (0, a)] }
    })
}

/// Puts the two rows of each prompt half of the mixture apart, so that no batch of up to `pairs.len() - 1` rows holds
/// both.
///
/// Gives pairs `(source, row)`, with sources 0 and 1 in turn.
///
/// # Examples
/// ```
/// use simplemix_mix::prompts;
/// let order: Vec<(usize, u64)> = prompts::apart(&[(0, 0), (1, 1)], 7).collect();
/// assert_ne!(order[0].1, order[1].1);
/// ```
pub fn apart(pairs: &[(u64, u64)], seed: u64) -> impl Iterator<Item = (usize, u64)> + '_ {
    let n = pairs.len() as u64;
    let order = Permutation::new(n, seed, 0);
    (0..n).flat_map(move |i| {
        let (a, b) = (pairs[order.at(i) as usize].0, pairs[order.at((i + n / 2) % n) as usize].1);
        [(0, a), (1, b)]
    })
}

/// A pair whose responses come from different sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crossed {
    /// Source and row of the chosen response.
    pub chosen: (usize, u64),
    /// Source and row of the rejected response.
    pub rejected: (usize, u64),
}

/// Mixes at the level of responses: for every prompt that both sources have, the chosen response of one source is
/// paired with the rejected response of the other. The chosen response comes from `a` with probability `a's weight /
/// sum of both`.
///
/// The paper does not train on such pairs: their responses come from different policies.
///
/// # Examples
/// ```
/// use simplemix_mix::{Weight, prompts};
/// let pairs = prompts::crossed(&[5, 6], &[6, 7], [Weight::whole(1), Weight::whole(0)], 7);
/// assert_eq!((pairs[0].chosen, pairs[0].rejected), ((0, 1), (1, 0)));
/// ```
pub fn crossed(a: &[u64], b: &[u64], weights: [Weight; 2], seed: u64) -> Vec<Crossed> {
    let share = value(weights[0]) / (value(weights[0]) + value(weights[1]));
    paired(a, b)
        .into_iter()
        .map(|(in_a, in_b)| {
            let drawn = (mix(mix(seed) ^ a[in_a as usize] ^ mix(in_a)) >> 11) as f64 / (1u64 << 53) as f64;
            let (chosen, rejected) = if drawn < share { ((0, in_a), (1, in_b)) } else { ((1, in_b), (0, in_a)) };
            Crossed { chosen, rejected }
        })
        .collect()
}

fn rows(prompts: &[u64]) -> impl Iterator<Item = (u64, u64)> + '_ {
    prompts.iter().enumerate().map(|(row, &prompt)| (row as u64, prompt))
}

fn value(weight: Weight) -> f64 {
    let (above, below) = weight.parts();
    above as f64 / below as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn weights(a: u64, b: u64) -> [Weight; 2] {
        [Weight::whole(a), Weight::whole(b)]
    }

    #[test]
    fn no_prompt_comes_from_two_sources_and_none_is_lost() {
        let (a, b): (Vec<u64>, Vec<u64>) = ((0..2000).map(|i| i / 2).collect(), (500..1500).collect());
        let kept = disjoint(&[&a, &b], &weights(1, 3), 5);
        let prompts = |rows: &[u64], of: &[u64]| rows.iter().map(|&row| of[row as usize]).collect::<HashSet<u64>>();
        let (from_a, from_b) = (prompts(&kept[0], &a), prompts(&kept[1], &b));
        assert!(from_a.is_disjoint(&from_b));
        assert_eq!(from_a.len() + from_b.len(), 1500);
        // A quarter of the 500 shared prompts stays with a: 125, deviation 9.7.
        let shared = from_a.iter().filter(|p| (500..1000).contains(*p)).count();
        assert!((80..170).contains(&shared), "{shared}");
    }

    #[test]
    fn rows_of_a_prompt_stand_together_or_far_apart() {
        let pairs: Vec<(u64, u64)> = (0..100).map(|i| (i, 1000 + i)).collect();
        let rows: Vec<(usize, u64)> = adjacent(&pairs, 3).collect();
        for two in rows.chunks(2) {
            assert_ne!(two[0].0, two[1].0);
            assert_eq!(two[0].1 % 1000, two[1].1 % 1000);
        }
        assert!(rows.iter().step_by(2).any(|r| r.0 == 0) && rows.iter().step_by(2).any(|r| r.0 == 1));
        let far: Vec<(usize, u64)> = apart(&pairs, 3).collect();
        assert_eq!(far.iter().collect::<HashSet<_>>().len(), 200);
        for i in 0..100u64 {
            let place = |row: u64| far.iter().position(|r| r.1 == row).unwrap();
            assert!(place(i).abs_diff(place(1000 + i)) >= 99);
        }
    }

    #[test]
    fn crossed_pairs_take_each_side_by_its_share() {
        let prompts: Vec<u64> = (0..1000).collect();
        let crossed = crossed(&prompts, &prompts, weights(1, 3), 9);
        let from_a = crossed.iter().filter(|pair| pair.chosen.0 == 0).count();
        assert!((190..310).contains(&from_a), "{from_a}");
        assert!(crossed.iter().all(|pair| pair.chosen.0 != pair.rejected.0));
    }
}
