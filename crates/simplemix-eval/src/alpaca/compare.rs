//! Comparison of models with each other on the same instructions.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::alpaca::annotation::{Annotation, Annotations, Instruction};
use crate::alpaca::tables::GlmWeights;
use crate::logistic::sigmoid;
use crate::stats::{holm, mean, paired_t_test, standard_error};

/// Comparison of two models on the instructions that both were judged on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Name of the first model.
    pub model: String,
    /// Name of the second model.
    pub other: String,
    /// Number of instructions with a verdict on both models.
    pub n: usize,
    /// Win rate of the first model minus that of the second on these instructions, in points.
    pub difference: f64,
    /// Standard error of the difference.
    pub standard_error: f64,
    /// Two-sided p-value of the paired t-test.
    pub p_value: f64,
    /// The p-value after Holm's correction over all pairs of models.
    pub p_holm: f64,
    /// Win rate of the first model against the second at equal lengths, as the weights predict it; `None` without
    /// weights.
    pub length_controlled_winrate: Option<f64>,
}

/// Compares all pairs of models, in the order given, with the weights of each model and the difficulties of all
/// instructions.
pub fn compare(models: &[&Annotations], weights: &[Option<GlmWeights>], difficulty: &[f64]) -> Vec<Comparison> {
    let outcomes: Vec<BTreeMap<Key<'_>, f64>> = models.iter().map(|model| outcomes(model)).collect();
    let mut found = Vec::new();
    for (i, model) in models.iter().enumerate() {
        for (j, other) in models.iter().enumerate().skip(i + 1) {
            let shared = outcomes[i].iter().filter_map(|(key, y)| Some(y - outcomes[j].get(key)?));
            let differences: Vec<f64> = shared.map(|d| 100.0 * d).collect();
            let both = weights.get(i).copied().flatten().zip(weights.get(j).copied().flatten());
            found.push(Comparison {
                model: model.model.clone(),
                other: other.model.clone(),
                n: differences.len(),
                difference: mean(&differences),
                standard_error: standard_error(&differences),
                p_value: paired_t_test(&differences),
                p_holm: 1.0,
                length_controlled_winrate: both.map(|(a, b)| head_to_head(a, b, difficulty)),
            });
        }
    }
    let corrected = holm(&found.iter().map(|c| c.p_value).collect::<Vec<_>>());
    found.iter_mut().zip(corrected).for_each(|(comparison, p)| comparison.p_holm = p);
    found
}

/// Win rate in percent, as `predict_winrate` of the official package computes it.
fn head_to_head(model: GlmWeights, other: GlmWeights, difficulty: &[f64]) -> f64 {
    let chance = |d: &f64| sigmoid((model.difficulty - other.difficulty) * d + model.model - other.model);
    100.0 * mean(&difficulty.iter().map(chance).collect::<Vec<_>>())
}

/// Identity of a row: the instruction, or else the index.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Key<'a> {
    Instruction(&'a Instruction),
    Row(usize),
}

fn outcomes(model: &Annotations) -> BTreeMap<Key<'_>, f64> {
    let key = |row: &Annotation| row.outcome().is_some();
    let judged = model.rows.iter().filter(|row| key(row));
    let mut found = BTreeMap::new();
    for row in judged {
        let key = row.instruction.as_ref().map_or(Key::Row(row.row), Key::Instruction);
        if let Some(outcome) = row.outcome() {
            found.entry(key).or_insert(outcome);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str, verdicts: &[(i64, f64)]) -> Annotations {
        let row = |(row, (id, preference)): (usize, &(i64, f64))| Annotation {
            row,
            instruction: Some(Instruction::Number(*id)),
            preference: Some(*preference),
            lengths: None,
            category: None,
        };
        Annotations {
            model: name.into(),
            annotator: None,
            baseline: None,
            rows: verdicts.iter().enumerate().map(row).collect(),
            refused: 0,
        }
    }

    #[test]
    fn models_are_compared_on_shared_instructions() {
        let a = model("a", &[(0, 2.0), (1, 1.5), (2, 2.0), (7, 1.0)]);
        let b = model("b", &[(2, 1.0), (1, 1.0), (0, 1.0), (5, 2.0)]);
        let weights = GlmWeights { length: 0.0, difficulty: 0.0, model: 1.0 };
        let found = compare(&[&a, &b], &[Some(weights), Some(GlmWeights::default())], &[0.3, -2.0]);
        assert_eq!((found.len(), found[0].n), (1, 3));
        assert!((found[0].difference - 250.0 / 3.0).abs() < 1e-12);
        // scipy: ttest_1samp([1, .5, 1], 0).pvalue = 0.03774955
        assert!((found[0].p_value - 0.037_749_55).abs() < 1e-7 && found[0].p_holm == found[0].p_value);
        assert!((found[0].length_controlled_winrate.unwrap() - 73.105_857_863).abs() < 1e-8);
    }
}
