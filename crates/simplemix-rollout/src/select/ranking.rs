//! Rules that choose pairs by rank and gap.

use super::{Choice, NoPair, Scored, Select, SelectSettings};

/// Responses to a prompt in order of their scores, not all of them equal.
pub(super) struct Ranking<'a> {
    responses: &'a [Scored<'a>],
    pub(super) settings: &'a SelectSettings,
    pub(super) scores: Vec<f64>,
    /// Indices, best score first.
    best: Vec<usize>,
    /// Indices, worst score first.
    worst: Vec<usize>,
}

impl<'a> Ranking<'a> {
    pub(super) fn new(responses: &'a [Scored<'a>], settings: &'a SelectSettings) -> Result<Self, NoPair> {
        let mut scores = Vec::with_capacity(responses.len());
        for response in responses {
            scores.push(response.score.filter(|score| score.is_finite()).ok_or(NoPair::NotANumber)?);
        }
        if settings.uses_reference() && !responses.iter().any(|response| response.is_reference) {
            return Err(NoPair::NoReference);
        }
        if responses.len() < 2 {
            return Err(NoPair::TooFew);
        }
        let length = |i: usize| responses[i].text.len();
        let shorter = |a: usize, b: usize| length(a).cmp(&length(b)).then(a.cmp(&b));
        let mut best: Vec<usize> = (0..responses.len()).collect();
        best.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(shorter(a, b)));
        let mut worst: Vec<usize> = (0..responses.len()).collect();
        worst.sort_by(|&a, &b| scores[a].total_cmp(&scores[b]).then(shorter(a, b)));
        if scores[best[0]] <= scores[worst[0]] {
            return Err(NoPair::AllAlike);
        }
        Ok(Self { responses, settings, scores, best, worst })
    }

    /// The pair if its gap is within the bounds and its texts differ, otherwise the reason.
    pub(super) fn allowed(&self, choice: Choice) -> Result<Choice, NoPair> {
        let Choice { chosen, rejected } = choice;
        let gap = self.gap(choice);
        if gap < self.settings.min_gap || gap <= 0.0 {
            Err(NoPair::GapTooSmall)
        } else if self.responses[chosen].text.trim() == self.responses[rejected].text.trim() {
            Err(NoPair::SameText)
        } else if self.settings.max_gap.is_some_and(|max| gap > max) {
            Err(NoPair::GapTooLarge)
        } else {
            Ok(choice)
        }
    }

    /// Difference of the scores of a pair.
    pub(super) fn gap(&self, choice: Choice) -> f64 {
        self.scores[choice.chosen] - self.scores[choice.rejected]
    }

    pub(super) fn best_worst(&self) -> Result<Vec<Choice>, NoPair> {
        self.allowed(Choice { chosen: self.best[0], rejected: self.worst[0] }).map(|pair| vec![pair])
    }

    pub(super) fn across_threshold(&self) -> Result<Vec<Choice>, NoPair> {
        // Settings with this rule and no threshold are refused by `SelectSettings::check`; NaN gives no pair.
        let threshold = self.settings.threshold.unwrap_or(f64::NAN);
        let good = self.best.iter().filter(|&&i| self.scores[i] >= threshold);
        let bad = self.worst.iter().filter(|&&i| self.scores[i] < threshold);
        let pairs = good.zip(bad).map(|(&chosen, &rejected)| Choice { chosen, rejected }).collect();
        self.first_allowed(pairs, self.settings.most_pairs(), NoPair::OneSideOfThreshold)
    }

    /// At most `most` pairs, largest gaps first.
    pub(super) fn by_gap(&self, most: usize) -> Result<Vec<Choice>, NoPair> {
        let is_dno = self.settings.select == Select::Dno;
        let mut pairs: Vec<Choice> = self
            .best
            .iter()
            .flat_map(|&chosen| self.worst.iter().map(move |&rejected| Choice { chosen, rejected }))
            .filter(|&choice| self.gap(choice) > 0.0)
            .filter(|choice| !(is_dno && self.responses[choice.rejected].is_reference))
            .collect();
        // The sort is stable, so that equal gaps stay in the order of the best responses.
        pairs.sort_by(|&x, &y| self.gap(y).total_cmp(&self.gap(x)));
        self.first_allowed(pairs, most, NoPair::AllAlike)
    }

    /// The first `most` pairs that are allowed; if there is none, the reason against the first that is not.
    fn first_allowed(&self, pairs: Vec<Choice>, most: usize, none: NoPair) -> Result<Vec<Choice>, NoPair> {
        let checked: Vec<Result<Choice, NoPair>> = pairs.into_iter().map(|pair| self.allowed(pair)).collect();
        let reason = checked.iter().find_map(|pair| pair.err()).unwrap_or(none);
        let kept: Vec<Choice> = checked.into_iter().filter_map(Result::ok).take(most).collect();
        if kept.is_empty() { Err(reason) } else { Ok(kept) }
    }
}
