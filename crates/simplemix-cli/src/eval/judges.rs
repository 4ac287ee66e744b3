//! Judges of two responses: a model behind a server, a reward model, or the right answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use simplemix_data::{Message, Text};
use simplemix_eval::judge::{Judge, JudgeError, Verdict, letter, preference, question, read_questions};
use simplemix_eval::sigmoid;
use simplemix_model::DeviceChoice;
use simplemix_rollout::{
    Ask, Error, Group, OnRefused, Prompt, Reply, RewardScorer, RewardSettings, ServerClient, ServerSettings, is_right,
    score_all,
};

use crate::failure::{Fails, Failure, Result};
use crate::flags::flagged;

type Judged = std::result::Result<Verdict, JudgeError>;

/// AlpacaEval 2.0's judge, which replies with one token, or thinks before it; the verdict is weighted by its probability.
pub(crate) struct ServerJudge {
    client: ServerClient,
    name: String,
    /// Most tokens of a reply.
    limit: usize,
    stopped: Arc<AtomicBool>,
}

impl ServerJudge {
    pub(crate) fn new(
        settings: ServerSettings,
        name: Option<&str>,
        limit: usize,
        stopped: Arc<AtomicBool>,
    ) -> Result<Self> {
        let client = ServerClient::new(settings).map_err(flagged)?;
        let name = name.map_or_else(|| format!("weighted_alpaca_eval_{}", client.model()), str::to_owned);
        Ok(Self { client, name, limit, stopped })
    }
}

impl Judge for ServerJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn judge(&self, instruction: &str, outputs: [&str; 2]) -> Judged {
        let turns = question(instruction, outputs).into_iter().map(|turn| Message::new(turn.role, turn.content));
        // The request of alpaca_eval's weighted_alpaca_eval_gpt4_turbo.
        let max_tokens = Some(self.limit);
        let logprobs = self.client.settings().logps;
        let ask = Ask { max_tokens, temperature: Some(1.0), logprobs, top_logprobs: 5, ..Ask::default() };
        let asked = self.client.ask(&Text::Messages(turns.collect()), &ask, &|| self.stopped.load(Ordering::SeqCst));
        let reply = match asked {
            Err(Error::Server { status: Some(400 | 413 | 422), found, .. })
                if self.client.settings().on_refused == OnRefused::Skip =>
            {
                return Ok(Verdict { preference: None, raw: json!({ "refused": found }), tokens: [0, 0] });
            }
            asked => asked?,
        };
        let text = reply.text.as_deref().unwrap_or_default();
        let tokens = verdict_tokens(&reply, self.limit);
        // All replies to such a limit would be lost.
        if self.limit == 1 && tokens.is_empty() && text.trim().is_empty() {
            return Err(
                "the reply has no text within --max-tokens 1; a judge that thinks first needs a larger limit".into()
            );
        }
        let count = |tokens: Option<usize>| tokens.unwrap_or(0) as u64;
        Ok(Verdict {
            preference: preference(&tokens),
            raw: json!({ "text": text, "top_logprobs": tokens, "finish": reply.finish }),
            tokens: [count(reply.prompt_tokens), count(reply.tokens)],
        })
    }

    fn failures(&self) -> BTreeMap<String, u64> {
        self.client.failures()
    }
}

/// The likeliest tokens in place of the verdict: of the first token, or of the last one that is the letter of a judge that
/// may think first. Without log-probabilities of several tokens, the letter has probability 1.
fn verdict_tokens(reply: &Reply, limit: usize) -> Vec<(String, f64)> {
    let said = letter(reply.text.as_deref().unwrap_or_default());
    let mut tokens = reply.logps.iter().flatten();
    let place = match limit {
        1 => tokens.next(),
        _ => tokens.rev().find(|token| Some(token.token.trim()) == said),
    };
    match place {
        Some(token) if !token.top.is_empty() => token.top.clone(),
        _ => said.map(|letter| (letter.to_owned(), 0.0)).into_iter().collect(),
    }
}

/// A reward model; the verdict is Bradley and Terry's probability that the second response is better.
pub(crate) struct RewardJudge {
    scorer: Mutex<RewardScorer>,
    name: String,
}

impl RewardJudge {
    pub(crate) fn load(folder: &Path, device: DeviceChoice, name: Option<&str>) -> Result<Self> {
        let settings = RewardSettings { device, ..RewardSettings::new(folder) };
        let scorer = RewardScorer::load(settings).input()?;
        let name = name.map_or_else(|| format!("reward_{}", simplemix_model::model_name(folder)), str::to_owned);
        Ok(Self { scorer: Mutex::new(scorer), name })
    }
}

impl Judge for RewardJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn judge(&self, instruction: &str, outputs: [&str; 2]) -> Judged {
        let prompt = Prompt::new(instruction, Text::Messages(vec![Message::user(instruction)]));
        let group = Group { prompt, responses: outputs.map(str::to_owned).to_vec() };
        let mut scorer = self.scorer.lock().map_err(|_| "the reward model failed on an earlier comparison")?;
        let scores: Vec<f64> = score_all(&mut *scorer, &[group])?.into_iter().flatten().flatten().collect();
        let [first, second] = scores[..] else { return Err("the reward model gave no score for a response".into()) };
        let preference = Some(1.0 + sigmoid(second - first));
        Ok(Verdict { preference, raw: json!({ "rewards": scores }), tokens: [0, 0] })
    }
}

/// Known right answers: a response that gives the answer wins, and it is a draw if both or neither do.
pub(crate) struct ExactJudge {
    answers: BTreeMap<String, Vec<String>>,
    name: String,
}

impl ExactJudge {
    /// Reads the answers. `notices` gets what the user should know about the file.
    pub(crate) fn read(path: &Path, name: Option<&str>, notices: &mut Vec<String>) -> Result<Self> {
        let mut questions = read_questions(path, notices).input()?;
        questions.retain(|question| !question.answers.is_empty());
        let answers: BTreeMap<String, Vec<String>> =
            questions.into_iter().map(|question| (question.instruction, question.answers)).collect();
        if answers.is_empty() {
            return Err(Failure::input(format!("--answers {}: no row has `answer`, expected some", path.display())));
        }
        Ok(Self { answers, name: name.unwrap_or("exact_answer").to_owned() })
    }
}

impl Judge for ExactJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn judge(&self, instruction: &str, outputs: [&str; 2]) -> Judged {
        let Some(answers) = self.answers.get(instruction) else {
            return Ok(Verdict { preference: None, raw: json!("no right answer is known"), tokens: [0, 0] });
        };
        let right = outputs.map(|output| answers.iter().any(|answer| is_right(output, answer)));
        let preference = Some(match right {
            [true, false] => 1.0,
            [false, true] => 2.0,
            _ => 1.5,
        });
        Ok(Verdict { preference, raw: json!({ "right": right }), tokens: [0, 0] })
    }
}
