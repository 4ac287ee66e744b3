//! Whether a server responds by the weights of the round: name, token ids, log-probabilities.
//!
//! The server's likeliest responses to the first prompts are compared with the model's own ([`Yardstick`]), for as long as the tokens
//! are the same. With `a` the log-probabilities of these tokens under the round's model, `b` under the one before, and `s` the
//! server's, the least-squares share `t` of `s - b` in `a - b` is 1 for the new weights and 0 for the old ones. Its standard error
//! follows from what `t` leaves unexplained, which is the noise of another element type and other kernels. Where it is above 1/8, the
//! two models are no four standard errors from the middle, and nothing is claimed. Nobody needs to know the noise beforehand.

use serde::{Deserialize, Serialize};

use super::client::ServerClient;
use super::reply::Reply;
use super::request::Ask;
use super::yardstick::{OwnResponse, Yardstick};
use crate::error::{Error, Result};

/// Standard error of the share up to which the weights are told from the old ones.
const MOST_ERROR: f64 = 1.0 / 8.0;
/// Share of the tokens that has to agree before log-probabilities count. Near ties, which other kernels decide in another way, end
/// the agreement of some responses, not of all at their first tokens.
const LEAST_AGREEMENT: f64 = 0.125;
/// Distance of the share from 1 that quantised weights may add to four standard errors.
const MOST_OFFSET: f64 = 0.25;
/// Noise that is assumed at least, in nats: numbers are f32.
const LEAST_NOISE: f64 = 1e-5;

/// Account of the weights by which a server responded in a round.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct ServedReport {
    /// Way in which the server got the weights.
    pub by: String,
    /// Name of the model in requests.
    pub model: String,
    /// Evidence that these weights responded.
    pub evidence: Evidence,
    /// Tokens compared.
    pub compared_tokens: u64,
    /// Mean log-probability of these tokens in this process, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_logp: Option<f64>,
    /// The server's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub found_logp: Option<f64>,
    /// That of the model before, in this process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before_logp: Option<f64>,
    /// Root of the mean squared difference of a token's log-probability between the server and this process, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<f64>,
    /// That between the server and the model before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference_to_before: Option<f64>,
    /// Share of the way from the old weights to the new ones: 0 for the old, 1 for the new.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share: Option<f64>,
    /// Standard error of the share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub share_error: Option<f64>,
    /// Facts about the server that the user should read.
    pub notices: Vec<String>,
}

/// Evidence of the weights by which a server responded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Nothing: `verify` is false.
    #[default]
    NotVerified,
    /// Log-probabilities are the model's own; there is no model before to tell it from.
    Same,
    /// Log-probabilities are the model's own, and not those of the model before.
    LogProbabilities,
    /// Texts are the model's own where those of the model before are others.
    Texts,
    /// The responses fit the model, and the one before as well.
    NotTold,
}

/// Compares the server's responses with the model's own. Returns the account; the error of a server with other weights.
pub(super) fn verify(
    client: &ServerClient,
    yardstick: &Yardstick,
    tolerance: f64,
    stopped: &dyn Fn() -> bool,
) -> Result<ServedReport> {
    let mut pairs = Vec::new();
    let mut told_ids = false;
    for own in &yardstick.responses {
        let reply = ask(client, own, stopped)?;
        check_name(client, &reply)?;
        told_ids |= check_ids(client, own, &reply)?;
        pairs.push((own, reply));
    }
    let mut report = judge(&pairs, tolerance).map_err(|wrong| wrong.of(client))?;
    if !told_ids {
        report
            .notices
            .push(format!("{}: the server tells neither token ids of a prompt nor their number", shown(client)));
    }
    client.model().clone_into(&mut report.model);
    Ok(report)
}

fn shown(client: &ServerClient) -> String {
    client.address().shown()
}

/// The server's likeliest response to the prompt.
fn ask(client: &ServerClient, own: &OwnResponse, stopped: &dyn Fn() -> bool) -> Result<Reply> {
    let ask = Ask {
        max_tokens: Some(own.ids.len().max(1)),
        temperature: Some(0.0),
        logprobs: true,
        prompt_ids: true,
        inputs: own.prompt.inputs.clone(),
        ..Ask::neutral()
    };
    client.ask(&own.prompt.prompt, &ask, stopped)
}

fn wrong(client: &ServerClient, found: String, expected: String) -> Error {
    Error::Weights { url: shown(client), found, expected }
}

/// Checks that the model of the name that was asked for responded.
fn check_name(client: &ServerClient, reply: &Reply) -> Result<()> {
    match &reply.model {
        Some(name) if name != client.model() => {
            let expected = format!("the model that was asked for, `{}`", client.model());
            Err(wrong(client, format!("responses are those of the model `{name}`"), expected))
        }
        _ => Ok(()),
    }
}

/// Checks the token ids of the prompt, or their number. Whether the server tells one of them.
fn check_ids(client: &ServerClient, own: &OwnResponse, reply: &Reply) -> Result<bool> {
    let told = reply.prompt_ids.clone().or_else(|| client.tokenize(&own.prompt.prompt, &own.prompt.inputs));
    let (ours, id) = (&own.prompt_ids, &own.prompt.id);
    let advice =
        "as the model's own template and tokenizer read it: see chat template, special tokens and system message";
    match (told, reply.prompt_tokens) {
        (Some(theirs), _) if theirs != *ours => {
            let place = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
            let of = |ids: &[u32]| ids.get(place).map_or_else(|| "the end".to_owned(), |id| format!("id {id}"));
            let found = format!("token {place} of prompt `{id}` is {}, of {} tokens", of(&theirs), theirs.len());
            Err(wrong(client, found, format!("{}, of {} tokens, {advice}", of(ours), ours.len())))
        }
        (None, Some(count)) if count != ours.len() => {
            Err(wrong(client, format!("prompt `{id}` has {count} tokens"), format!("{}, {advice}", ours.len())))
        }
        (told, count) => Ok(told.is_some() || count.is_some()),
    }
}

/// Other weights than the round's, in words.
#[derive(Debug)]
struct Wrong {
    found: String,
    expected: String,
}

impl Wrong {
    fn of(self, client: &ServerClient) -> Error {
        wrong(client, self.found, self.expected)
    }
}

/// A token that both have written: log-probability by the server, in this process, and under the model before.
#[derive(Debug, Clone, Copy)]
struct Point {
    found: f64,
    expected: f64,
    before: Option<f64>,
}

/// Judges the server's replies to the prompts of own responses.
fn judge(pairs: &[(&OwnResponse, Reply)], tolerance: f64) -> Result<ServedReport, Wrong> {
    let total: usize = pairs.iter().map(|(own, _)| own.ids.len()).sum();
    let has_logps = pairs.iter().any(|(_, reply)| reply.logps.as_ref().is_some_and(|logps| !logps.is_empty()));
    let points: Vec<Point> = pairs.iter().flat_map(|(own, reply)| agreed(own, reply)).collect();
    let texts = Texts::of(pairs);
    if !has_logps {
        return judge_texts(&texts, "the server tells no log-probabilities, so that texts were compared");
    }
    if (points.len() as f64) < LEAST_AGREEMENT * total as f64 {
        let found = format!("{} of {total} tokens of its likeliest responses are the model's", points.len());
        let expected = "nearly all, by the weights of the round's model";
        return Err(Wrong { found: format!("{found}{}", texts.favour()), expected: expected.to_owned() });
    }
    judge_numbers(&points, &texts, tolerance)
}

/// Tokens at the start of both responses that are the same.
fn agreed(own: &OwnResponse, reply: &Reply) -> Vec<Point> {
    let logps = reply.logps.as_deref().unwrap_or_default();
    let ids = reply.response_ids.as_ref().filter(|ids| ids.len() == logps.len());
    let is_same = |at: usize| match ids {
        Some(ids) => ids[at] == own.ids[at],
        None => is_same_text(&own.tokens[at], &logps[at].token),
    };
    let count = (0..own.ids.len().min(logps.len())).take_while(|&at| is_same(at)).count();
    let before = |at: usize| own.before.as_ref().map(|before| before.logps[at]);
    let point = |at: usize| Some(Point { found: logps[at].logp?, expected: own.logps[at], before: before(at) });
    (0..count).filter_map(point).collect()
}

/// Whether two spellings are of one token: servers write the space before a word or leave it out, and nothing for a special token.
fn is_same_text(ours: &str, theirs: &str) -> bool {
    theirs.is_empty() || ours.trim() == theirs.trim() || ours.contains('\u{fffd}') || theirs.contains('\u{fffd}')
}

/// Root of the mean square.
fn root_mean_square(differences: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = differences.fold((0.0, 0.0), |(count, sum), x| (count + 1.0, sum + x * x));
    if count == 0.0 { 0.0 } else { f64::sqrt(sum / count) }
}

fn judge_numbers(points: &[Point], texts: &Texts, tolerance: f64) -> Result<ServedReport, Wrong> {
    let mean = |of: &dyn Fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let (found, expected) = (mean(&|point| point.found), mean(&|point| point.expected));
    let difference = root_mean_square(points.iter().map(|point| point.found - point.expected));
    let share = Share::of(points);
    let mut report = ServedReport {
        evidence: Evidence::Same,
        compared_tokens: points.len() as u64,
        expected_logp: Some(expected),
        found_logp: Some(found),
        difference: Some(difference),
        ..ServedReport::default()
    };
    if let Some(share) = &share {
        report.before_logp = Some(mean(&|point| point.before.unwrap_or_default()));
        report.difference_to_before = Some(share.difference_to_before);
        (report.share, report.share_error) = (share.share, share.error);
    }
    let numbers = numbers(&report);
    let expectation = |what: &str| {
        let before =
            report.before_logp.map_or_else(String::new, |before| format!("; the model before has {before:.4}"));
        format!("{expected:.4} and {what}, by the weights of the round's model{before}")
    };
    let told = share.as_ref().and_then(|share| share.share.zip(share.error)).filter(|(_, error)| *error <= MOST_ERROR);
    match told {
        Some((share, _)) if share < 0.5 => {
            let found = format!("responds by old weights: {numbers}");
            return Err(Wrong { found, expected: expectation("a share of 1") });
        }
        Some((share, error)) if (share - 1.0).abs() > MOST_OFFSET + 4.0 * error => {
            let found = format!("responds by other weights: {numbers}");
            return Err(Wrong { found, expected: expectation("a share of 1") });
        }
        _ if difference > tolerance => {
            let found = format!("responds by other weights: {numbers}");
            return Err(Wrong { found, expected: expectation(&format!("at most {tolerance} (`weights.tolerance`)")) });
        }
        Some(_) => report.evidence = Evidence::LogProbabilities,
        None if share.is_some() => {
            // Texts may tell what these numbers do not.
            match judge_texts(texts, "") {
                Ok(text) => report.evidence = text.evidence,
                Err(wrong) => return Err(Wrong { found: format!("{}; {numbers}", wrong.found), ..wrong }),
            }
            if report.evidence != Evidence::Texts {
                report.notices.push(not_told(&format!("{numbers}, within its noise")));
            }
        }
        None => {}
    }
    Ok(report)
}

fn numbers(report: &ServedReport) -> String {
    let number = |number: Option<f64>| number.unwrap_or(f64::NAN);
    let share = match (report.share, report.share_error) {
        (Some(share), Some(error)) => format!(", share of the new weights {share:.2} (standard error {error:.2})"),
        _ => String::new(),
    };
    format!(
        "mean log-probability {:.4} of {} tokens, root mean square difference {:.4} nats{share}",
        number(report.found_logp),
        report.compared_tokens,
        number(report.difference)
    )
}

fn not_told(numbers: &str) -> String {
    format!(
        "the server's responses fit the round's model and the one before: {numbers}. That the new weights respond is not shown; \
         training may have changed too little"
    )
}

/// Least-squares share of the new weights in what the server has over the old ones.
struct Share {
    share: Option<f64>,
    error: Option<f64>,
    difference_to_before: f64,
}

impl Share {
    /// None without a model before.
    fn of(points: &[Point]) -> Option<Self> {
        let steps: Option<Vec<(f64, f64)>> =
            points.iter().map(|point| Some((point.found - point.before?, point.expected - point.before?))).collect();
        let steps = steps.filter(|steps| !steps.is_empty())?;
        let difference_to_before = root_mean_square(steps.iter().map(|(found, _)| *found));
        let length: f64 = steps.iter().map(|(_, new)| new * new).sum();
        if length == 0.0 {
            return Some(Self { share: None, error: None, difference_to_before });
        }
        let share = steps.iter().map(|(found, new)| found * new).sum::<f64>() / length;
        let left: f64 = steps.iter().map(|(found, new)| (found - share * new).powi(2)).sum();
        let noise = (left / (steps.len() as f64 - 1.0).max(1.0)).sqrt().max(LEAST_NOISE);
        Some(Self { share: Some(share), error: Some(noise / length.sqrt()), difference_to_before })
    }
}

/// Prompts by whose text the server's is.
#[derive(Debug, Default)]
struct Texts {
    /// Prompts compared, and characters of the own texts.
    prompts: u64,
    characters: usize,
    /// Characters at the start that are the server's too.
    same: usize,
    has_before: bool,
    /// Prompts for which the server goes along with the round's model longer than with the one before, and the other way round.
    new: u64,
    old: u64,
}

impl Texts {
    fn of(pairs: &[(&OwnResponse, Reply)]) -> Self {
        let mut all = Self::default();
        for (own, reply) in pairs {
            let text = reply.text.as_deref().unwrap_or_default();
            let same = |other: &str| {
                text.trim_start().chars().zip(other.trim_start().chars()).take_while(|(a, b)| a == b).count()
            };
            // A text that ends where the other one does goes along with it further than one that does not.
            let along = |other: &str| same(other) + usize::from(text.trim_start() == other.trim_start());
            all.prompts += 1;
            all.characters += own.text.trim_start().chars().count();
            all.same += same(&own.text);
            if let Some(before) = &own.before {
                all.has_before = true;
                all.new += u64::from(along(&own.text) > along(&before.text));
                all.old += u64::from(along(&own.text) < along(&before.text));
            }
        }
        all
    }

    /// Words for the model that the texts are nearer to.
    fn favour(&self) -> String {
        let Self { new, old, prompts, .. } = self;
        if !self.has_before {
            return String::new();
        }
        format!(
            "; its texts go along with the round's model for {new} of {prompts} prompts, with the model before for {old}"
        )
    }
}

/// Judges by texts alone.
fn judge_texts(texts: &Texts, because: &str) -> Result<ServedReport, Wrong> {
    let Texts { prompts, characters, same, has_before, new, old } = texts;
    let expected = "the likeliest responses of the round's model";
    if old > new {
        let found = format!(
            "responds by old weights: its likeliest responses go along with the model before for {old} of {prompts} prompts, with the \
             round's model for {new}"
        );
        return Err(Wrong { found, expected: expected.to_owned() });
    }
    if (*same as f64) < LEAST_AGREEMENT * *characters as f64 {
        let found =
            format!("{same} of {characters} characters of its likeliest responses are the model's{}", texts.favour());
        return Err(Wrong { found, expected: format!("nearly all: {expected}") });
    }
    let numbers =
        format!("{same} of {characters} characters of its likeliest responses are the model's{}", texts.favour());
    let evidence = match () {
        () if !has_before => Evidence::Same,
        () if new > old => Evidence::Texts,
        () => Evidence::NotTold,
    };
    let mut notices: Vec<String> = (!because.is_empty()).then(|| format!("{because}: {numbers}")).into_iter().collect();
    if evidence == Evidence::NotTold && !because.is_empty() {
        notices.push(not_told("no prompt tells them apart"));
    }
    Ok(ServedReport { evidence, notices, ..ServedReport::default() })
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
