//! Scores from a judge: a language model behind a server.
//!
//! A scalar judge gives a number to each response. A pairwise judge compares every two responses to a prompt in both orders,
//! which cancels its preference for a position; the score of a response is its share of won comparisons, where a tie counts
//! half.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use simplemix_data::{Message, Text};

use crate::error::{Error, Result};
use crate::scorer::{Group, ScoreSink, Scorer};
use crate::server::pool::in_parallel;
use crate::server::{Ask, ServerClient, ServerSettings};

/// Kind of verdict that a judge gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JudgeMode {
    /// A number for each response.
    #[default]
    Scalar,
    /// The better of every two responses, in both orders.
    Pairwise,
}

/// Settings of a judge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JudgeSettings {
    /// Server of the judge.
    pub server: ServerSettings,
    /// Kind of verdict.
    #[serde(default)]
    pub mode: JudgeMode,
    /// Question in place of the default one. It must contain `{prompt}` and `{response}`; for a pairwise judge `{prompt}`,
    /// `{a}` and `{b}`. The reply must contain `[[NUMBER]]`; for a pairwise judge `[[A]]`, `[[B]]`, or `[[C]]` for a tie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// Smallest and largest number of a scalar judge. A number outside counts as no score.
    #[serde(default = "scale")]
    pub scale: [f64; 2],
    /// Longest reply of the judge, in tokens.
    #[serde(default = "max_tokens")]
    pub max_tokens: usize,
    /// Sampling temperature of the judge.
    #[serde(default)]
    pub temperature: f64,
}

fn scale() -> [f64; 2] {
    [1.0, 10.0]
}

fn max_tokens() -> usize {
    512
}

const SCALAR: &str = "Rate how well the response below answers the prompt, from {least} (useless) to {most} (excellent). \
    Consider whether it is correct, helpful, complete and no longer than it has to be. Give your reason in a sentence or two, \
    then your rating in double brackets, such as [[{least}]].\n\n\
    <prompt>\n{prompt}\n</prompt>\n\n<response>\n{response}\n</response>";

const PAIRWISE: &str = "Which of the two responses below answers the prompt better? Consider whether they are correct, \
    helpful, complete and no longer than they have to be. Their order means nothing. Give your reason in a sentence or two, \
    then your verdict in double brackets: [[A]] or [[B]], or [[C]] if neither is better.\n\n\
    <prompt>\n{prompt}\n</prompt>\n\n<response A>\n{a}\n</response A>\n\n<response B>\n{b}\n</response B>";

impl JudgeSettings {
    /// Defaults for a scalar judge at `server`.
    pub fn new(server: ServerSettings) -> Self {
        Self {
            server,
            mode: JudgeMode::Scalar,
            question: None,
            scale: scale(),
            max_tokens: max_tokens(),
            temperature: 0.0,
        }
    }

    fn check(&self) -> Result<()> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        if !(self.scale.iter().all(|end| end.is_finite()) && self.scale[0] < self.scale[1]) {
            return refuse("scale", format!("{:?}", self.scale), "two numbers, the smaller one first");
        }
        if self.max_tokens == 0 {
            return refuse("max_tokens", "0".to_owned(), "at least 1");
        }
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return refuse("temperature", self.temperature.to_string(), "a number >= 0");
        }
        let (places, expected): (&[&str], _) = match self.mode {
            JudgeMode::Scalar => (&["{prompt}", "{response}"], "a text with `{prompt}` and `{response}`"),
            JudgeMode::Pairwise => (&["{prompt}", "{a}", "{b}"], "a text with `{prompt}`, `{a}` and `{b}`"),
        };
        if let Some(text) = self.question.as_ref().filter(|text| !places.iter().all(|place| text.contains(place))) {
            return refuse("question", format!("`{text}`"), expected);
        }
        Ok(())
    }

    fn question(&self) -> String {
        let default = match self.mode {
            JudgeMode::Scalar => {
                SCALAR.replace("{least}", &self.scale[0].to_string()).replace("{most}", &self.scale[1].to_string())
            }
            JudgeMode::Pairwise => PAIRWISE.to_owned(),
        };
        self.question.clone().unwrap_or(default)
    }
}

/// Scorer that asks a judge.
#[derive(Debug)]
pub struct Judge {
    client: Arc<ServerClient>,
    settings: JudgeSettings,
}

impl Judge {
    /// Checks the settings and prepares the client.
    ///
    /// # Errors
    /// [`Error::Setting`] with the first setting out of range, and those of [`ServerClient::new`].
    pub fn new(settings: JudgeSettings) -> Result<Self> {
        settings.check()?;
        Ok(Self { client: Arc::new(ServerClient::new(settings.server.clone())?), settings })
    }

    /// Questions about the responses of a group.
    fn questions(&self, index: usize, group: &Group) -> Vec<Question> {
        let prompt = prompt_text(&group.prompt.prompt);
        let count = group.responses.len();
        let subjects: Vec<(usize, usize)> = match self.settings.mode {
            JudgeMode::Scalar => (0..count).map(|at| (at, at)).collect(),
            JudgeMode::Pairwise => {
                (0..count).flat_map(|a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b).collect()
            }
        };
        let text = |(a, b): (usize, usize)| {
            let (a, b) = (group.responses[a].as_str(), group.responses[b].as_str());
            filled(&self.settings.question(), &[("{prompt}", &prompt), ("{response}", a), ("{a}", a), ("{b}", b)])
        };
        subjects.into_iter().map(|subject| Question { index, subject, text: text(subject) }).collect()
    }
}

struct Question {
    /// Index of the group.
    index: usize,
    /// Indices of the responses; equal for a scalar judge.
    subject: (usize, usize),
    text: String,
}

/// Verdicts on a group so far.
struct Verdicts {
    left: usize,
    /// Sum and number of the verdicts on each response.
    sums: Vec<(f64, u32)>,
}

impl Scorer for Judge {
    fn name(&self) -> &str {
        "judge"
    }

    fn fingerprint(&self) -> String {
        let JudgeSettings { mode, scale, max_tokens, temperature, .. } = &self.settings;
        let server = self.client.fingerprint();
        format!("{server} {mode:?} {scale:?} {max_tokens} {temperature} {}", self.settings.question())
    }

    fn score(&mut self, groups: &[Group], sink: &mut dyn ScoreSink) -> Result<()> {
        let mut verdicts: Vec<Verdicts> = Vec::with_capacity(groups.len());
        let mut questions = Vec::new();
        for (index, group) in groups.iter().enumerate() {
            let of_group = self.questions(index, group);
            verdicts.push(Verdicts { left: of_group.len(), sums: vec![(0.0, 0); group.responses.len()] });
            if of_group.is_empty() {
                sink.keep(vec![(index, vec![None; group.responses.len()])])?;
            }
            questions.extend(of_group.into_iter().map(Ok));
        }
        let (client, settings) = (self.client.clone(), self.settings.clone());
        let workers = settings.server.concurrency;
        let mode = settings.mode;
        let work = move |question: Question, stopped: &dyn Fn() -> bool| {
            let temperature = Some(settings.temperature);
            let ask = Ask { max_tokens: Some(settings.max_tokens), temperature, ..Ask::neutral() };
            let prompt = Text::Messages(vec![Message::user(question.text)]);
            // A reply without text has no verdict.
            let text = client.ask(&prompt, &ask, stopped)?.text.unwrap_or_default();
            client.notices().iter().for_each(|notice| tracing::warn!("judge: {notice}"));
            let verdict = match settings.mode {
                JudgeMode::Scalar => rating(&text, settings.scale),
                JudgeMode::Pairwise => preference(&text),
            };
            Ok((question.index, question.subject, verdict))
        };
        let sink = std::cell::RefCell::new(sink);
        let stopped = || sink.borrow().is_interrupted();
        let asked = self.client.clone();
        let done = in_parallel(workers, &mut questions.into_iter(), work, &stopped, &mut |(index, (a, b), verdict)| {
            sink.borrow_mut().failed(&asked.failures())?;
            let of_group = &mut verdicts[index];
            of_group.left -= 1;
            if let Some(verdict) = verdict {
                count(&mut of_group.sums[a], verdict);
                if mode == JudgeMode::Pairwise {
                    count(&mut of_group.sums[b], 1.0 - verdict);
                }
            }
            if of_group.left > 0 {
                return Ok(());
            }
            let mean = |(sum, count): &(f64, u32)| (*count > 0).then(|| sum / f64::from(*count));
            sink.borrow_mut().keep(vec![(index, of_group.sums.iter().map(mean).collect())])
        });
        done.and(sink.borrow_mut().failed(&asked.failures()))
    }
}

fn count(sum: &mut (f64, u32), verdict: f64) {
    *sum = (sum.0 + verdict, sum.1 + 1);
}

/// Fills the places of a template in a single pass, so that `{b}` inside a response stays as it is.
fn filled(template: &str, places: &[(&str, &str)]) -> String {
    let (mut text, mut rest) = (String::new(), template);
    while let Some(at) = rest.find('{') {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        let place = places.iter().find(|(place, _)| rest.starts_with(place));
        let (put, length) = place.map_or(("{", 1), |(place, put)| (*put, place.len()));
        text.push_str(put);
        rest = &rest[length..];
    }
    text + rest
}

/// Text of a prompt for the judge: plain text, or the turns of a conversation.
fn prompt_text(prompt: &Text) -> String {
    match prompt {
        Text::Plain(text) => text.clone(),
        Text::Messages(turns) => match turns.as_slice() {
            [only] => turn_text(only),
            turns => {
                let lines = turns.iter().map(|turn| format!("{}: {}", turn.role, turn_text(turn)));
                lines.collect::<Vec<_>>().join("\n\n")
            }
        },
    }
}

/// Content of a turn, and the tools that it calls.
fn turn_text(turn: &Message) -> String {
    match turn.fields.get("tool_calls") {
        Some(calls) if turn.content.is_empty() => calls.to_string(),
        Some(calls) => format!("{}\n{calls}", turn.content),
        None => turn.content.clone(),
    }
}

/// Text in the last double brackets; without brackets the whole text, if it is short.
fn verdict(text: &str) -> &str {
    let bracketed = text.rfind("[[").and_then(|at| text[at + 2..].split_once("]]")).map(|(inside, _)| inside);
    bracketed.unwrap_or(if text.len() <= 16 { text } else { "" }).trim().trim_end_matches('.')
}

/// Number of a scalar judge, if it is on the scale.
fn rating(text: &str, [least, most]: [f64; 2]) -> Option<f64> {
    let number = verdict(text);
    let number = number.split('/').next().unwrap_or(number).trim();
    number.parse().ok().filter(|rating| (least..=most).contains(rating))
}

/// Share of the first response: 1 if it is better, 0 if the second one is, 0.5 for a tie.
fn preference(text: &str) -> Option<f64> {
    match verdict(text) {
        "A" | "a" => Some(1.0),
        "B" | "b" => Some(0.0),
        "C" | "c" => Some(0.5),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_are_read() {
        let scale = [1.0, 10.0];
        for (text, expected) in [
            ("Good. [[8]]", Some(8.0)),
            ("[[3]], no: [[4.5]]", Some(4.5)),
            ("7", Some(7.0)),
            ("7/10", Some(7.0)),
            ("[[11]]", None),
            ("[[high]]", None),
            ("It deserves 7 points of ten, I think", None),
            ("[[NaN]]", None),
            ("", None),
        ] {
            assert_eq!(rating(text, scale), expected, "{text:?}");
        }
        assert_eq!(["so [[A]]", "[[B]] ", "C.", "both"].map(preference), [Some(1.0), Some(0.0), Some(0.5), None]);
    }

    #[test]
    fn templates_are_filled_in_a_single_pass() {
        assert_eq!(filled("{a} {x} {b}{", &[("{a}", "{b}"), ("{b}", "é")]), "{b} {x} é{");
    }

    #[test]
    fn questions_need_their_places() {
        let settings = JudgeSettings::new(ServerSettings::new("http://localhost"));
        assert!(settings.check().is_ok());
        let other = JudgeSettings { question: Some("Is {response} good?".into()), ..settings.clone() };
        assert!(
            other
                .check()
                .unwrap_err()
                .to_string()
                .contains("`question` is `Is {response} good?`, expected a text with `{prompt}`")
        );
        assert!(JudgeSettings { scale: [5.0, 1.0], ..settings }.check().is_err());
    }
}
