//! Token ids of a prompt, as a server reads it and as the model to be trained does.

use std::path::Path;

use simplemix_data::{PairTokenizer, TokenizeOptions};

use super::client::ServerClient;
use super::request::Ask;
use crate::error::{Error, Result};
use crate::generator::Prompt;

/// Token ids of a prompt, as far as a server tells.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct TheirIds {
    ids: Option<Vec<u32>>,
    /// Number of tokens.
    count: Option<usize>,
}

/// Compares the server's token ids of a prompt with those of the model to be trained. The text for the user, if they differ
/// or the server tells nothing about them.
pub(super) fn compare_ids(
    client: &ServerClient,
    tokenizer: &Path,
    prompt: &Prompt,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<String>> {
    let ours = our_ids(tokenizer, prompt)?;
    Ok(their_ids(client, prompt, stopped)?.against(&ours, tokenizer, prompt))
}

/// Token ids that the model to be trained has for a prompt.
pub(super) fn our_ids(tokenizer: &Path, prompt: &Prompt) -> Result<Vec<u32>> {
    let tokenizer = PairTokenizer::from_dir(tokenizer, TokenizeOptions::default())?;
    Ok(tokenizer.encode_prompt_with(&prompt.prompt, &prompt.inputs)?)
}

/// Asks a server for its token ids of a prompt.
pub(super) fn their_ids(client: &ServerClient, prompt: &Prompt, stopped: &dyn Fn() -> bool) -> Result<TheirIds> {
    let inputs = &prompt.inputs;
    let ask = Ask {
        max_tokens: Some(1),
        temperature: Some(0.0),
        prompt_ids: true,
        lenient: true,
        inputs: inputs.clone(),
        ..Ask::default()
    };
    let reply = match client.ask(&prompt.prompt, &ask, stopped) {
        Ok(reply) => Some(reply),
        // The request for a sample tells why, or skips the prompt.
        Err(Error::Server { status: Some(400 | 413 | 422), .. }) => None,
        Err(error) => return Err(error),
    };
    let (told, count) = reply.map_or((None, None), |reply| (reply.prompt_ids, reply.prompt_tokens));
    Ok(TheirIds { ids: told.or_else(|| client.tokenize(&prompt.prompt, inputs)), count })
}

impl TheirIds {
    /// The text for the user, if these are not the ids that the model to be trained has, or nothing is known of them.
    pub(super) fn against(&self, ours: &[u32], tokenizer: &Path, prompt: &Prompt) -> Option<String> {
        let at = format!("prompt `{}`, read by the server and by {}", prompt.id, tokenizer.display());
        let because = "other token ids make samples off-policy: see chat template, special tokens and system message";
        match (&self.ids, self.count) {
            (Some(theirs), _) if theirs == ours => None,
            (Some(theirs), _) => Some(format!("{at}: {}; {because}", difference(theirs, ours, ["there", "here"]))),
            (None, Some(count)) if count == ours.len() => None,
            (None, Some(count)) => Some(format!("{at}: {count} tokens there, {} here; {because}", ours.len())),
            (None, None) => {
                Some(format!("{at}: the server tells neither token ids nor their number, so they are not compared"))
            }
        }
    }

    /// Difference between what two servers tell, `names`; `None` as far as both tell the same.
    pub(super) fn differs_from(&self, other: &Self, names: [&str; 2]) -> Option<String> {
        match (&self.ids, &other.ids, self.count, other.count) {
            (Some(one), Some(two), ..) => (one != two).then(|| difference(one, two, names)),
            (_, _, Some(one), Some(two)) if one != two => {
                Some(format!("{one} tokens {}, {two} {}", names[0], names[1]))
            }
            _ => None,
        }
    }
}

/// The first place at which two lists of token ids differ, with words for where each list is from.
fn difference(theirs: &[u32], ours: &[u32], [there, here]: [&str; 2]) -> String {
    let place = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let of = |ids: &[u32]| ids.get(place).map_or_else(|| "the end".to_owned(), |id| format!("id {id}"));
    let (their, our) = (of(theirs), of(ours));
    format!("token {place} is {their} {there}, {our} {here}, of {} and {}", theirs.len(), ours.len())
}
