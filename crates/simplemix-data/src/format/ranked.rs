//! Formats with several scored or ranked responses to a prompt, and the rules that make pairs of them.

use std::str::FromStr;

use crate::cell::{Cell, List, Struct};
use crate::draft::{Draft, DraftText};
use crate::format::meta::number;
use crate::format::transcript::{extra_id_turns, human_assistant_turns};
use crate::format::trl::prompt_and_messages;
use crate::format::turns::{answer, text, turns, user};
use crate::problem::Problem;

/// Rule that makes pairs of a list of scored responses. Responses without a score are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RankedRule {
    /// One pair per prompt: the best against the worst response; of equal ones the first.
    #[default]
    BestWorst,
    /// One pair per prompt: the best response against a worse one, drawn by a hash of its text, so the same in every run.
    BestOther,
    /// All pairs whose scores differ by more than a gap.
    AllPairs {
        /// Gap that the scores must exceed, in the units of the score; 0 leaves out ties only.
        min_gap: f64,
    },
}

impl FromStr for RankedRule {
    type Err = String;

    /// Parses `best-worst`, `best-other`, `all`, or `all:GAP` for all pairs whose scores differ by more than a gap of 0 or more; the
    /// error says so.
    ///
    /// ```
    /// use simplemix_data::RankedRule;
    /// assert_eq!("all:1.5".parse(), Ok(RankedRule::AllPairs { min_gap: 1.5 }));
    /// assert!("all:-1".parse::<RankedRule>().is_err());
    /// ```
    fn from_str(rule: &str) -> Result<Self, String> {
        let gap = rule.strip_prefix("all:").and_then(|gap| gap.parse().ok()).filter(|gap: &f64| *gap >= 0.0);
        match (rule, gap) {
            ("best-worst", _) => Ok(Self::BestWorst),
            ("best-other", _) => Ok(Self::BestOther),
            ("all", _) => Ok(Self::AllPairs { min_gap: 0.0 }),
            (_, Some(min_gap)) => Ok(Self::AllPairs { min_gap }),
            _ => Err("expected best-worst, best-other, all or all:GAP".to_owned()),
        }
    }
}

/// A scored response; a higher score is better.
pub(crate) struct Candidate<'a> {
    pub(crate) response: DraftText<'a>,
    pub(crate) score: f64,
    pub(crate) model: Option<&'a str>,
}

/// Adds the pairs that `rule` makes of the responses.
pub(crate) fn pair_up<'a>(
    prompt: &DraftText<'a>,
    candidates: &[Candidate<'a>],
    rule: RankedRule,
    pairs: &mut Vec<Draft<'a>>,
) -> Result<(), Problem> {
    // The sort is stable: of equal responses, the first in the file counts as better.
    let mut order: Vec<&Candidate<'a>> = candidates.iter().filter(|candidate| !candidate.score.is_nan()).collect();
    order.sort_by(|a, b| b.score.total_cmp(&a.score));
    let (Some(best), Some(last)) = (order.first(), order.last()) else { return Err(Problem::Unlabelled) };
    if order.len() < 2 {
        return Err(Problem::Unlabelled);
    }
    if best.score <= last.score {
        return Err(Problem::Tie);
    }
    let worst = order.iter().find(|candidate| candidate.score == last.score).unwrap_or(last);
    match rule {
        RankedRule::BestWorst => pairs.push(draft(prompt, best, worst)),
        RankedRule::BestOther => {
            let others: Vec<_> = order.iter().filter(|candidate| candidate.score < best.score).collect();
            let drawn = others.iter().min_by_key(|candidate| candidate.response.digest()).unwrap_or(&worst);
            pairs.push(draft(prompt, best, drawn));
        }
        RankedRule::AllPairs { min_gap } => {
            for (i, better) in order.iter().enumerate() {
                let worse = order[i + 1..].iter().filter(|worse| better.score - worse.score > min_gap);
                pairs.extend(worse.map(|worse| draft(prompt, better, worse)));
            }
        }
    }
    Ok(())
}

fn draft<'a>(prompt: &DraftText<'a>, chosen: &Candidate<'a>, rejected: &Candidate<'a>) -> Draft<'a> {
    let mut draft = Draft::new(prompt.clone(), chosen.response.clone(), rejected.response.clone());
    draft.score_chosen = Some(chosen.score);
    draft.score_rejected = Some(rejected.score);
    draft.models = [chosen.model, rejected.model];
    draft
}

fn list<'a>(row: Struct<'a>, name: &str) -> Result<List<'a>, Problem> {
    match row.get(name) {
        Cell::List(list) => Ok(list),
        Cell::Null => Err(Problem::Unlabelled),
        _ => Err(Problem::WrongType),
    }
}

/// UltraFeedback: `completions` of `instruction`. The system prompt differs between responses, so it is left out of the
/// prompt.
pub(crate) fn ultra_feedback<'a>(row: Struct<'a>, rule: RankedRule, pairs: &mut Vec<Draft<'a>>) -> Result<(), Problem> {
    let candidate = |answer_cell: Cell<'a>| {
        let fields = answer_cell.as_struct()?;
        Some(Candidate {
            response: answer(fields.get("response"), Problem::EmptyChosen).ok()?,
            // Some ratings are text, and `N/A` stands for missing ones.
            score: number(fields.first(&["fine-grained_score", "overall_score"]))?,
            model: fields.get("model").as_str(),
        })
    };
    let candidates: Vec<_> = list(row, "completions")?.iter().filter_map(candidate).collect();
    pair_up(&user(row.get("instruction"))?, &candidates, rule, pairs)
}

/// Nectar: `answers` with ranks from 1, the best.
pub(crate) fn nectar<'a>(row: Struct<'a>, rule: RankedRule, pairs: &mut Vec<Draft<'a>>) -> Result<(), Problem> {
    let candidate = |answer_cell: Cell<'a>| {
        let fields = answer_cell.as_struct()?;
        Some(Candidate {
            response: answer(fields.get("answer"), Problem::EmptyChosen).ok()?,
            score: -number(fields.get("rank"))?,
            model: fields.get("model").as_str(),
        })
    };
    let candidates: Vec<_> = list(row, "answers")?.iter().filter_map(candidate).collect();
    let prompt = human_assistant_turns(text(row.get("prompt"), Problem::EmptyPrompt)?);
    pair_up(&DraftText::Messages(prompt), &candidates, rule, pairs)
}

/// NeMo-RL: `completions` with ranks from 0, the best.
pub(crate) fn nemo_rl<'a>(row: Struct<'a>, rule: RankedRule, pairs: &mut Vec<Draft<'a>>) -> Result<(), Problem> {
    let candidate = |completion: Cell<'a>| {
        let fields = completion.as_struct()?;
        let response = DraftText::Messages(turns(fields.get("completion")).ok()?);
        Some(Candidate { response, score: -number(fields.get("rank"))?, model: None })
    };
    let candidates: Vec<_> = list(row, "completions")?.iter().filter_map(candidate).collect();
    pair_up(&DraftText::Messages(turns(row.get("context"))?), &candidates, rule, pairs)
}

/// HelpSteer: rows of one prompt, each a response with its `helpfulness`.
pub(crate) fn help_steer_ratings<'a>(
    group: Struct<'a>,
    rule: RankedRule,
    pairs: &mut Vec<Draft<'a>>,
) -> Result<(), Problem> {
    let rows = list(group, super::GROUP)?;
    let candidate = |row: Cell<'a>| {
        let row = row.as_struct()?;
        let response = answer(row.get("response"), Problem::EmptyChosen).ok()?;
        Some(Candidate { response, score: number(row.get("helpfulness"))?, model: None })
    };
    let candidates: Vec<_> = rows.iter().filter_map(candidate).collect();
    let prompt = text(group.get("prompt"), Problem::EmptyPrompt)?;
    pair_up(&DraftText::Messages(extra_id_turns(prompt)), &candidates, rule, pairs)
}

/// SimPO: the file names best and worst; the scores come from the rewards of all responses.
pub(crate) fn simpo_scored(row: Struct<'_>) -> Result<Draft<'_>, Problem> {
    let mut draft = prompt_and_messages(row)?;
    if let Cell::List(scores) = row.get("all_rm_scores") {
        let scores = || scores.iter().filter_map(number);
        draft.score_chosen = scores().reduce(f64::max);
        draft.score_rejected = scores().reduce(f64::min);
        if draft.score_chosen.is_some() && draft.score_chosen == draft.score_rejected {
            return Err(Problem::Tie);
        }
    }
    Ok(draft)
}
