//! Token ids of a prompt, as a server reads it and as the model to be trained does.

use std::path::Path;

use simplemix_data::{PairTokenizer, TokenizeOptions};

use super::client::ServerClient;
use super::request::Ask;
use crate::error::{Error, Result};
use crate::generator::Prompt;

/// Compares the server's token ids of a prompt with those of the model to be trained. The text for the user, if they differ
/// or the server tells nothing about them.
pub(super) fn compare_ids(
    client: &ServerClient,
    tokenizer: &Path,
    prompt: &Prompt,
    stopped: &dyn Fn() -> bool,
) -> Result<Option<String>> {
    let inputs = &prompt.inputs;
    let ours =
        PairTokenizer::from_dir(tokenizer, TokenizeOptions::default())?.encode_prompt_with(&prompt.prompt, inputs)?;
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
    let at = format!("prompt `{}`, read by the server and by {}", prompt.id, tokenizer.display());
    let because = "other token ids make samples off-policy: see chat template, special tokens and system message";
    Ok(match (told.or_else(|| client.tokenize(&prompt.prompt, inputs)), count) {
        (Some(theirs), _) if theirs == ours => None,
        (Some(theirs), _) => Some(format!("{at}: {}; {because}", difference(&theirs, &ours))),
        (None, Some(count)) if count == ours.len() => None,
        (None, Some(count)) => Some(format!("{at}: {count} tokens there, {} here; {because}", ours.len())),
        (None, None) => {
            Some(format!("{at}: the server tells neither token ids nor their number, so they are not compared"))
        }
    })
}

/// The first place at which two lists of token ids differ.
fn difference(theirs: &[u32], ours: &[u32]) -> String {
    let place = theirs.iter().zip(ours).take_while(|(a, b)| a == b).count();
    let of = |ids: &[u32]| ids.get(place).map_or_else(|| "the end".to_owned(), |id| format!("id {id}"));
    let (there, here) = (of(theirs), of(ours));
    format!("token {place} is {there} there, {here} here, of {} and {}", theirs.len(), ours.len())
}
