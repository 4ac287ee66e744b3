//! Part of a pool that one model samples: before anything is sampled, the quotas say to which prompts.
//!
//! The draw is that of [`pool`](crate::pool()): a model that samples can respond to every prompt, a model whose responses are in a
//! file has those only. So each model samples what the pool then keeps, and no response is sampled in vain.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use crate::candidates::survey_with;
use crate::error::{Error, Result};
use crate::journal::json;
use crate::pool::{PoolMember, Quota, in_order};
use crate::prompts::short_hash;

/// Part of a pool that one model samples.
///
/// # Examples
/// ```
/// use simplemix_rollout::PoolShare;
/// // Two of four models respond to each prompt; this is the share of one of them.
/// let share = PoolShare {
///     generator: "a".to_owned(),
///     samplers: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
///     take: vec!["2:a,b,c,d".parse()?],
///     candidates: Vec::new(),
///     seed: 42,
/// };
/// assert_eq!(share.most_responses(), 2);
/// # Ok::<(), simplemix_rollout::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolShare {
    /// Name of the model in the pool.
    pub generator: String,
    /// Names of all models that sample, this one too.
    pub samplers: Vec<String>,
    /// Numbers of responses that each prompt keeps, as the pool has them.
    pub take: Vec<Quota>,
    /// Files with the responses of models that do not sample.
    #[serde(default)]
    pub candidates: Vec<PoolMember>,
    /// Random seed of the pool.
    pub seed: u64,
}

impl PoolShare {
    /// Largest number of responses to a prompt; 0 if no quota names the model.
    pub fn most_responses(&self) -> usize {
        self.quota().map_or(0, |(_, quota)| usize::try_from(quota.responses).unwrap_or(usize::MAX))
    }

    /// The quota that names the model, with its number.
    fn quota(&self) -> Option<(usize, &Quota)> {
        self.take.iter().enumerate().find(|(_, quota)| quota.generators.contains(&self.generator))
    }
}

/// A share with the responses that are there.
pub(crate) struct Assigned<'a> {
    share: &'a PoolShare,
    /// Responses with text in the files, by prompt and by place of the model in the quota.
    ready: HashMap<[u8; 16], Vec<u32>>,
    hashes: Vec<String>,
}

impl<'a> Assigned<'a> {
    /// Reads the files of the share.
    ///
    /// # Errors
    /// [`Error::Setting`] for a model of the quota that neither samples nor has a response, and any error of reading.
    pub(crate) fn new(share: &'a PoolShare) -> Result<Self> {
        let mut assigned = Self { share, ready: HashMap::new(), hashes: Vec::new() };
        let Some((_, quota)) = share.quota() else { return Ok(assigned) };
        let mut known = vec![false; quota.generators.len()];
        for member in &share.candidates {
            let survey = survey_with(&member.path, |group| {
                for row in group.rows.iter().filter(|row| row.has_text() && !row.is_reference) {
                    let name = member.generator.as_ref().or(row.generator.as_ref());
                    let Some(place) = quota.generators.iter().position(|other| Some(other) == name) else { continue };
                    known[place] = true;
                    let counts = assigned.ready.entry(short_hash(&group.prompt.id));
                    counts.or_insert_with(|| vec![0; quota.generators.len()])[place] += 1;
                }
            })?;
            assigned.hashes.push(survey.hash);
        }
        let is_known = |(name, known): (&String, bool)| {
            known
                || share.samplers.contains(name)
                || share.candidates.iter().any(|member| member.generator.as_ref() == Some(name))
        };
        match quota.generators.iter().zip(known).find(|&(name, known)| !is_known((name, known))) {
            None => Ok(assigned),
            Some((name, _)) => Err(Error::Setting {
                key: "take",
                found: format!("{quota}, where `{name}` has no response"),
                expected: "models that sample, or whose responses are in the files of the pool",
            }),
        }
    }

    /// Responses that the model gives to the prompt of this id.
    pub(crate) fn responses(&self, id: &str) -> usize {
        let Some((number, quota)) = self.share.quota() else { return 0 };
        let order = in_order(quota, number, id, self.share.seed);
        let ready = self.ready.get(&short_hash(id));
        let has = |name: &str, turn: u64| {
            let place = quota.generators.iter().position(|other| other == name);
            let count = place.and_then(|place| ready.map(|counts| counts[place])).unwrap_or(0);
            self.share.samplers.iter().any(|sampler| sampler == name) || turn < u64::from(count)
        };
        // The first response of each model, then the second of each, as the pool draws them.
        let all = (0..quota.responses).flat_map(|turn| {
            let has = &has;
            order.iter().filter(move |name| has(name, turn))
        });
        let drawn = all.take(usize::try_from(quota.responses).unwrap_or(usize::MAX));
        drawn.filter(|name| **name == self.share.generator).count()
    }

    /// Everything that the share depends on.
    pub(crate) fn key(&self) -> String {
        let PoolShare { generator, samplers, take, candidates, seed } = self.share;
        let names: Vec<&Option<String>> = candidates.iter().map(|member| &member.generator).collect();
        json(&(generator, samplers, take, names, seed, &self.hashes))
    }
}

#[cfg(test)]
mod tests {
    use simplemix_data::Unwatched;

    use super::*;
    use crate::pool::{PoolSettings, pool};

    fn share(generator: &str, samplers: &[&str], take: &[&str]) -> PoolShare {
        PoolShare {
            generator: generator.to_owned(),
            samplers: samplers.iter().map(|&name| name.to_owned()).collect(),
            take: take.iter().map(|quota| quota.parse().unwrap()).collect(),
            candidates: Vec::new(),
            seed: 7,
        }
    }

    fn rows(name: &str, prompts: impl Iterator<Item = (usize, usize)>) -> String {
        let row = |prompt: usize, turn: usize| {
            let response = format!("{name} {prompt} {turn}");
            serde_json::json!({"prompt": format!("Say {prompt}."), "prompt_id": prompt.to_string(), "response": response})
        };
        prompts.flat_map(|(prompt, count)| (0..count).map(move |turn| row(prompt, turn).to_string() + "\n")).collect()
    }

    /// The models sample what the pool keeps, to the last response, with files that have some prompts only.
    #[test]
    fn nothing_is_sampled_that_the_pool_does_not_keep() {
        let dir = tempfile::tempdir().unwrap();
        let take = ["3:a,b,file", "1:c,policy"];
        let file = dir.path().join("file.jsonl");
        // The file has two responses to every third prompt, and none to the others.
        std::fs::write(&file, rows("file", (0..90).filter(|i| i % 3 == 0).map(|i| (i, 2)))).unwrap();
        let ready = PoolMember { generator: Some("file".to_owned()), path: file };
        let mut members = vec![ready.clone()];
        let mut sampled = 0;
        let mut of_prompt = vec![0; 90];
        for name in ["a", "b", "c", "policy"] {
            let share = PoolShare { candidates: vec![ready.clone()], ..share(name, &["a", "b", "c", "policy"], &take) };
            let assigned = Assigned::new(&share).unwrap();
            let counts: Vec<(usize, usize)> = (0..90).map(|i| (i, assigned.responses(&i.to_string()))).collect();
            assert!(counts.iter().all(|(_, count)| *count <= share.most_responses()));
            sampled += counts.iter().map(|(_, count)| count).sum::<usize>();
            counts.iter().for_each(|(i, count)| of_prompt[*i] += count);
            let path = dir.path().join(format!("{name}.jsonl"));
            std::fs::write(&path, rows(name, counts.into_iter())).unwrap();
            members.push(PoolMember { generator: Some(name.to_owned()), path });
        }
        // One response to each of 30 prompts is in the file; the other 60 have three of a and b.
        assert_eq!(sampled, 4 * 90 - 30);
        let mut settings = PoolSettings::new(members, dir.path().join("pool.jsonl"));
        (settings.take, settings.seed) = (take.map(|quota| quota.parse().unwrap()).to_vec(), 7);
        let report = pool(&settings, &mut Unwatched).unwrap();
        assert_eq!((report.kept, report.responses), (90, 360));
        assert_eq!(report.responses - report.by_generator["file"], sampled as u64);
        // Only second responses of the file are there in vain.
        assert_eq!((report.not_drawn, report.by_generator["file"]), (30, 30));
        assert!((0..90).all(|i| of_prompt[i] == if i % 3 == 0 { 3 } else { 4 }), "{of_prompt:?}");
    }

    #[test]
    fn a_quota_above_its_models_takes_each_in_turn() {
        for (generator, total) in [("a", 5), ("b", 5)] {
            let share = share(generator, &["a", "b"], &["5:a,b"]);
            let assigned = Assigned::new(&share).unwrap();
            let counts: Vec<usize> = (0..40).map(|i| assigned.responses(&i.to_string())).collect();
            // Two or three of five, and either of them for some prompts.
            assert!(counts.iter().all(|count| [2, 3].contains(count)) && counts.contains(&2) && counts.contains(&3));
            assert_eq!(share.most_responses(), total);
        }
        let none = share("z", &["a", "b"], &["1:a,b"]);
        assert_eq!((Assigned::new(&none).unwrap().responses("1"), none.most_responses()), (0, 0));
    }

    #[test]
    fn a_model_without_any_response_is_named() {
        let error = Assigned::new(&share("a", &["a"], &["1:a,nobody"])).err().unwrap().to_string();
        assert_eq!(
            error,
            "`take` is 1:a,nobody, where `nobody` has no response, expected models that sample, or whose responses are in the files \
             of the pool"
        );
    }
}
