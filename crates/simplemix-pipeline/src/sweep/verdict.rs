//! The best values of a sweep: means over seeds, intervals, and whether the best is told apart from the next.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use simplemix_eval::{bootstrap_mean, half_width_95, mean, paired_t_test};

use super::metric::BestBy;

/// Replicates of the bootstrap over prompts.
const REPLICATES: u32 = 1000;

/// Largest probability of a difference by chance at which two settings are called different.
const LEVEL: f64 = 0.05;

/// A run that is done, as it is compared.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// Index of the run.
    pub(super) run: usize,
    /// Index of the random seed.
    pub(super) seed: usize,
    /// Index of each other axis' value.
    pub(super) choice: Vec<usize>,
    /// Names and values of the keys that vary, without the seed.
    pub(super) values: Vec<(String, String)>,
    /// The metric.
    pub(super) value: f64,
    /// Scores by prompt, where the metric is their mean.
    pub(super) scores: Option<BTreeMap<String, f64>>,
}

/// Values of all keys but the seed, with the metric over their seeds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Configuration {
    /// Names and values of the keys that vary.
    pub values: Vec<(String, String)>,
    /// Names of the runs that are done, one for each seed.
    pub runs: Vec<String>,
    /// Mean of the metric over the runs.
    pub mean: f64,
    /// 95 % interval of the mean, where there is more than one seed, or a score for each prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_95: Option<[f64; 2]>,
    /// Values that the interval is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_over: Option<Over>,
    /// Index of each axis' value, without the seed.
    #[serde(skip)]
    pub(super) choice: Vec<usize>,
    #[serde(skip)]
    pub(super) members: Vec<usize>,
}

/// Repetitions that an interval is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Over {
    /// Runs with different seeds, by Student's t.
    Seeds,
    /// Prompts of the evaluation, by the bootstrap; the noise of training is not in it.
    Prompts,
}

/// Groups runs that differ in their seed only, the best first.
pub(super) fn configurations(measured: &[Measured], names: &[&str], best_by: &BestBy) -> Vec<Configuration> {
    let mut groups: BTreeMap<&[usize], Vec<usize>> = BTreeMap::new();
    for (at, run) in measured.iter().enumerate() {
        groups.entry(&run.choice).or_default().push(at);
    }
    let mut all: Vec<Configuration> =
        groups.into_values().map(|members| configuration(measured, members, names)).collect();
    // Equal means stay in the order of the axes.
    all.sort_by(|a, b| match best_by.is_lowest {
        true => a.mean.total_cmp(&b.mean),
        false => b.mean.total_cmp(&a.mean),
    });
    all
}

fn configuration(measured: &[Measured], members: Vec<usize>, names: &[&str]) -> Configuration {
    let values: Vec<f64> = members.iter().map(|&at| measured[at].value).collect();
    let first = &measured[members[0]];
    let centre = mean(&values);
    let (interval_95, interval_over) = match (values.len(), &first.scores) {
        (1, Some(scores)) if scores.len() > 1 => {
            let scores: Vec<f64> = scores.values().copied().collect();
            (Some(bootstrap_mean(&scores, REPLICATES, 0)), Some(Over::Prompts))
        }
        (1, _) => (None, None),
        _ => {
            let half = half_width_95(&values);
            (Some([centre - half, centre + half]), Some(Over::Seeds))
        }
    };
    Configuration {
        values: first.values.clone(),
        runs: members.iter().map(|&at| names[measured[at].run].to_owned()).collect(),
        mean: centre,
        interval_95,
        interval_over,
        choice: first.choice.clone(),
        members,
    }
}

/// A sentence if the best settings are not told apart from the next, or could not be.
pub(super) fn doubt(measured: &[Measured], best: &Configuration, next: &Configuration) -> Option<String> {
    let pairs: Vec<(&Measured, &Measured)> = best
        .members
        .iter()
        .filter_map(|&a| {
            let other = next.members.iter().find(|&&b| measured[b].seed == measured[a].seed)?;
            Some((&measured[a], &measured[*other]))
        })
        .collect();
    let next = words(&next.values);
    if pairs.len() > 1 {
        let differences: Vec<f64> = pairs.iter().map(|(a, b)| a.value - b.value).collect();
        let p = paired_t_test(&differences);
        return (p > LEVEL).then(|| {
            format!(
                "the best is not told apart from the next, {next}: p = {p:.3} over {} seeds (paired t-test)",
                pairs.len()
            )
        });
    }
    let scores = pairs.first().and_then(|(a, b)| Some((a.scores.as_ref()?, b.scores.as_ref()?)));
    let differences = scores.map(|(a, b)| a.iter().filter_map(|(id, a)| Some(a - b.get(id)?)).collect::<Vec<f64>>());
    match differences.filter(|differences| differences.len() > 1) {
        Some(differences) => {
            let [low, high] = bootstrap_mean(&differences, REPLICATES, 0);
            let prompts = differences.len();
            (low <= 0.0 && high >= 0.0).then(|| {
                format!(
                    "the best is not told apart from the next, {next}: the difference over {prompts} prompts lies between \
                     {low:.4} and {high:.4} (95 %, bootstrap), without the noise of training"
                )
            })
        }
        None => Some(format!(
            "whether the best differs from the next, {next}, cannot be said: give several seeds, such as --vary seed=1,2,3"
        )),
    }
}

/// Values in words: `size 1000, beta 0.1`.
pub(super) fn words(values: &[(String, String)]) -> String {
    match values {
        [] => "the base".to_owned(),
        values => values.iter().map(|(label, value)| format!("{label} {value}")).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(run: usize, choice: usize, seed: usize, value: f64, scores: Option<&[f64]>) -> Measured {
        let scores = scores.map(|all| all.iter().enumerate().map(|(i, score)| (i.to_string(), *score)).collect());
        let values = vec![("beta".to_owned(), choice.to_string())];
        Measured { run, seed, choice: vec![choice], values, value, scores }
    }

    fn by(text: &str) -> BestBy {
        text.parse().unwrap()
    }

    #[test]
    fn the_best_is_the_mean_over_seeds_with_students_interval() {
        let runs = [run(0, 0, 0, 1.0, None), run(1, 0, 1, 2.0, None), run(2, 0, 2, 4.0, None), run(3, 1, 0, 2.0, None)];
        let names = ["a", "b", "c", "d"];
        let found = configurations(&runs, &names, &by("score"));
        assert_eq!((found[0].runs.len(), found[0].mean, found[1].interval_over), (3, 7.0 / 3.0, None));
        // scipy: t.ppf(0.975, 2) * sem([1, 2, 4]) = 3.794583
        let [low, high] = found[0].interval_95.unwrap();
        assert!((high - 7.0 / 3.0 - 3.794583).abs() < 1e-5 && (7.0 / 3.0 - low - 3.794583).abs() < 1e-5);
        assert_eq!(configurations(&runs, &names, &by("eval_loss"))[0].runs, ["d"]);
        assert!(doubt(&runs, &found[0], &found[1]).unwrap().contains("cannot be said: give several seeds"));
    }

    #[test]
    fn seeds_or_prompts_tell_the_best_apart() {
        // scipy: ttest_rel([1, 2, 3, 4.5], [0.5, 2.5, 1, 3]).pvalue = 0.21257296
        let seeds = |choice: usize, values: &[f64]| -> Vec<Measured> {
            values.iter().enumerate().map(|(seed, value)| run(seed, choice, seed, *value, None)).collect()
        };
        let names = ["a"; 8];
        let of = |runs: &[Measured]| {
            let found = configurations(runs, &names, &by("score"));
            doubt(runs, &found[0], &found[1])
        };
        let unsure = [seeds(0, &[1.0, 2.0, 3.0, 4.5]), seeds(1, &[0.5, 2.5, 1.0, 3.0])].concat();
        assert!(of(&unsure).unwrap().contains("p = 0.213 over 4 seeds"), "{:?}", of(&unsure));
        let sure = [seeds(0, &[1.0, 2.0, 3.0, 4.0]), seeds(1, &[0.0, 1.1, 2.0, 3.0])].concat();
        assert_eq!(of(&sure), None);
        // One prompt in ten differs, or nine in ten.
        let prompts = |right: usize| -> Vec<f64> { (0..10).map(|i| f64::from(u8::from(i < right))).collect() };
        let compared = |a: usize, b: usize| {
            [run(0, 0, 0, 0.1 * a as f64, Some(&prompts(a))), run(1, 1, 0, 0.1 * b as f64, Some(&prompts(b)))]
        };
        assert!(of(&compared(5, 4)).unwrap().contains("over 10 prompts"));
        assert_eq!(of(&compared(9, 0)), None);
        let found = configurations(&compared(9, 0), &names, &by("score"));
        assert_eq!((found[0].interval_over, found[1].interval_95), (Some(Over::Prompts), Some([0.0, 0.0])));
    }
}
