//! Near-duplicate texts, by MinHash (Broder 1997) and banding (Leskovec, Rajaraman and Ullman, Mining of
//! Massive Datasets, section 3.4).

use std::collections::HashMap;

/// Hash functions per signature. An estimated similarity of 0.8 has a standard error of 0.05.
const HASHES: usize = 64;
/// Hashes per band. Two texts are compared if all hashes of a band agree; at similarity 0.8, one pair in 4,000 is missed.
const BAND: usize = 4;
/// Words per shingle.
const SHINGLE: usize = 3;
/// Texts of a bucket that a new one is compared with, the latest ones; keeps the time for boilerplate linear.
const COMPARED: usize = 32;

/// Finds, for each added text, the earlier ones whose sets of three-word shingles are similar.
///
/// Case, punctuation and white space are ignored. Needs about 0.7 kB per text.
#[derive(Debug, Clone)]
pub(crate) struct NearDuplicates {
    threshold: f64,
    signatures: Vec<[u32; HASHES]>,
    buckets: HashMap<(u8, u64), Vec<u32>>,
}

impl NearDuplicates {
    /// Smallest estimated Jaccard similarity of similar texts.
    pub(crate) fn new(threshold: f64) -> Self {
        Self { threshold, signatures: Vec::new(), buckets: HashMap::new() }
    }

    /// Adds a text and returns the numbers of the similar ones, counted from 0 in the order they were added.
    pub(crate) fn add(&mut self, text: &str) -> Vec<u32> {
        let number = u32::try_from(self.signatures.len()).unwrap_or(u32::MAX);
        let signature = signature(text);
        let mut similar = Vec::new();
        for (band, hashes) in signature.chunks_exact(BAND).enumerate() {
            let key = hashes.iter().fold(0, |key, hash| mix(key ^ u64::from(*hash)));
            let bucket = self.buckets.entry((band as u8, key)).or_default();
            for &other in bucket.iter().rev().take(COMPARED) {
                if !similar.contains(&other) && estimate(&signature, &self.signatures[other as usize]) >= self.threshold
                {
                    similar.push(other);
                }
            }
            bucket.push(number);
        }
        self.signatures.push(signature);
        similar
    }
}

/// Share of the hash functions with the same minimum.
fn estimate(a: &[u32; HASHES], b: &[u32; HASHES]) -> f64 {
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / HASHES as f64
}

fn signature(text: &str) -> [u32; HASHES] {
    let mut words: Vec<u64> = text
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(|word| word.to_lowercase().bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte))))
        .collect();
    if words.is_empty() {
        // Punctuation only: similar to an identical text alone.
        words.push(text.bytes().fold(1, |hash, byte| mix(hash ^ u64::from(byte))));
    }
    let seeds: [u64; HASHES] = std::array::from_fn(|i| mix(i as u64));
    let mut least = [u32::MAX; HASHES];
    for shingle in words.windows(SHINGLE.min(words.len())) {
        let shingle = shingle.iter().fold(0, |hash, word| mix(hash ^ word));
        for (least, seed) in least.iter_mut().zip(seeds) {
            *least = (*least).min((mix(shingle ^ seed) >> 32) as u32);
        }
    }
    least
}

/// SplitMix64's step (Steele, Lea and Flood 2014).
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn text(words: impl IntoIterator<Item = usize>) -> String {
        words.into_iter().map(|word| format!("w{word}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn estimates_are_the_jaccard_similarity_of_shingles() {
        let exact = |a: &[usize], b: &[usize]| {
            let shingles = |words: &[usize]| words.windows(3).map(<[usize]>::to_vec).collect::<BTreeSet<_>>();
            let (a, b) = (shingles(a), shingles(b));
            a.intersection(&b).count() as f64 / a.union(&b).count() as f64
        };
        for changed in [0, 5, 20, 60] {
            let error: f64 = (0..40)
                .map(|i| {
                    let a: Vec<usize> = (i * 1000..i * 1000 + 100).collect();
                    let b: Vec<usize> = a.iter().map(|w| if w % 100 < changed { w + 500 } else { *w }).collect();
                    estimate(&signature(&text(a.clone())), &signature(&text(b.clone()))) - exact(&a, &b)
                })
                .sum();
            // The mean of forty estimates has a standard error of 0.01 at most.
            assert!((error / 40.0).abs() < 0.03, "{changed} words changed: {error}");
        }
    }

    #[test]
    fn small_changes_are_found_among_many_texts_and_large_ones_are_not() {
        let mut near = NearDuplicates::new(0.8);
        for i in 0..2000 {
            assert!(near.add(&text(i * 50..i * 50 + 60)).is_empty(), "a fifth of the words are shared");
        }
        assert_eq!(near.add(&format!("  {}!", text(500..560).to_uppercase())), [10]);
        assert_eq!(near.add(&text((1000..1060).chain([1]))), [20]);
        assert!(near.add("!?").is_empty());
        assert!(near.add("?!").is_empty());
        assert_eq!(near.add("!?"), [2002]);
    }
}
