use super::*;
use crate::Prompt;
use crate::server::reply::TokenLogp;
use crate::server::yardstick::Before;

/// An own response of words, with log-probabilities under the model and the one before.
fn own(words: &[&str], logps: &[f64], before: Option<(&[f64], &str)>) -> OwnResponse {
    OwnResponse {
        prompt: Prompt::new("p", "q"),
        prompt_ids: vec![1, 2],
        ids: (0..words.len() as u32).collect(),
        tokens: words.iter().map(|word| (*word).to_owned()).collect(),
        text: words.concat(),
        logps: logps.to_vec(),
        before: before.map(|(logps, text)| Before { logps: logps.to_vec(), text: text.to_owned() }),
    }
}

fn reply(words: &[&str], logps: Option<&[f64]>) -> Reply {
    let token = |(word, logp): (&&str, &f64)| TokenLogp { token: (*word).to_owned(), logp: Some(*logp), top: vec![] };
    Reply {
        id: None,
        model: None,
        text: Some(words.concat()),
        finish: None,
        tokens: None,
        prompt_tokens: None,
        prompt_ids: None,
        response_ids: None,
        logps: logps.map(|logps| words.iter().zip(logps).map(token).collect()),
        apart: vec![],
    }
}

const WORDS: [&str; 8] = [" a", " b", " c", " d", " e", " f", " g", " h"];
const NEW: [f64; 8] = [-1.0, -0.5, -0.25, -2.0, -0.75, -1.5, -0.125, -1.0];
const OLD: [f64; 8] = [-1.2, -0.4, -0.35, -1.8, -0.95, -1.4, -0.225, -0.8];

/// `NEW` plus a share of the way back to `OLD` and noise of alternating sign.
fn between(share: f64, noise: f64) -> Vec<f64> {
    let sign = |at: usize| if at.is_multiple_of(2) { noise } else { -noise };
    (0..8).map(|at| OLD[at] + share * (NEW[at] - OLD[at]) + sign(at)).collect()
}

fn judged(found: &[f64], before: Option<(&[f64], &str)>, tolerance: f64) -> Result<ServedReport, String> {
    let own = own(&WORDS, &NEW, before);
    judge(&[(&own, reply(&WORDS, Some(found)))], tolerance)
        .map_err(|wrong| format!("{} | {}", wrong.found, wrong.expected))
}

fn same_text() -> String {
    WORDS.concat()
}

#[test]
fn new_weights_are_told_from_old_ones_and_from_others() {
    let text = same_text();
    let before = Some((&OLD[..], text.as_str()));
    let report = judged(&NEW, before, 0.25).unwrap();
    assert_eq!((report.evidence, report.compared_tokens), (Evidence::LogProbabilities, 8));
    assert!((report.share.unwrap() - 1.0).abs() < 1e-9 && report.share_error.unwrap() < 1e-3, "{report:?}");
    // Means by hand: -7.125 / 8, and (0.04 * 4 + 0.01 * 4) / 8 = 0.025 as the mean square of the step.
    assert!((report.expected_logp.unwrap() + 0.890_625).abs() < 1e-12);
    assert!((report.difference_to_before.unwrap() - 0.025_f64.sqrt()).abs() < 1e-12, "{report:?}");
    // Noise of another element type.
    assert_eq!(judged(&between(1.0, 0.01), before, 0.25).unwrap().evidence, Evidence::LogProbabilities);
    let old = judged(&OLD, before, 0.25).unwrap_err();
    assert!(old.contains("responds by old weights") && old.contains("share of the new weights 0.00"), "{old}");
    assert!(old.contains("mean log-probability -0.8906") && old.contains("| -0.8906 and a share of 1"), "{old}");
    assert!(judged(&between(0.0, 0.01), before, 0.25).unwrap_err().contains("old weights"));
    // An adapter at twice its scale.
    assert!(judged(&between(2.0, 0.01), before, 0.25).unwrap_err().contains("other weights"));
    // Half of the new weights.
    assert!(judged(&between(0.6, 0.01), before, 0.25).unwrap_err().contains("other weights"));
    let far: Vec<f64> = NEW.iter().map(|logp| logp - 1.0).collect();
    assert!(judged(&far, before, 0.25).unwrap_err().contains("at most 0.25"));
    assert!(judged(&far, None, 0.25).unwrap_err().contains("other weights"));
    assert_eq!(judged(&NEW, None, 0.25).unwrap().evidence, Evidence::Same);
}

/// Where noise is as large as what training has changed, nothing is claimed.
#[test]
fn what_noise_hides_is_said_and_not_claimed() {
    let text = same_text();
    let report = judged(&between(1.0, 0.2), Some((&OLD, &text)), 0.25).unwrap();
    assert!(report.evidence == Evidence::NotTold && report.share_error.unwrap() > MOST_ERROR, "{report:?}");
    assert!(report.notices[0].contains("That the new weights respond is not shown"), "{:?}", report.notices);
    let same = judged(&NEW, Some((&NEW, &text)), 0.25).unwrap();
    assert_eq!((same.evidence, same.share), (Evidence::NotTold, None));
    // The text of the model before is another one from the fourth word on.
    let report = judged(&between(1.0, 0.2), Some((&OLD, " a b c x y")), 0.25).unwrap();
    assert_eq!((report.evidence, report.notices), (Evidence::Texts, vec![]));
}

#[test]
fn texts_tell_where_a_server_tells_no_log_probabilities() {
    let text_of = |words: &[&str], before: Option<&str>| {
        let own = own(&WORDS, &NEW, before.map(|text| (&OLD[..], text)));
        judge(&[(&own, reply(words, None))], 0.25).map_err(|wrong| wrong.found)
    };
    let old = [" a", " b", " x", " y"];
    assert_eq!(text_of(&WORDS, Some(" a b x y")).unwrap().evidence, Evidence::Texts);
    assert!(text_of(&old, Some(" a b x y")).unwrap_err().contains("responds by old weights"));
    assert!(text_of(&[], Some("")).unwrap_err().contains("responds by old weights"));
    let report = text_of(&WORDS, Some(&same_text())).unwrap();
    assert_eq!(report.evidence, Evidence::NotTold);
    assert!(report.notices[0].contains("the server tells no log-probabilities"), "{:?}", report.notices);
    assert!(report.notices[1].contains("is not shown"), "{:?}", report.notices);
    assert_eq!(text_of(&WORDS, None).unwrap().evidence, Evidence::Same);
    assert!(text_of(&["z"], None).unwrap_err().contains("0 of 15 characters"));
}

/// Responses that are others from the first token on: hardly a number can be compared, and that says enough.
#[test]
fn other_responses_are_other_weights() {
    let own = own(&WORDS, &NEW, Some((&OLD, " x y")));
    let found = judge(&[(&own, reply(&[" x", " y"], Some(&[-0.5, -0.5])))], 0.25).unwrap_err().found;
    assert!(found.contains("0 of 8 tokens") && found.contains("with the model before for 1"), "{found}");
}

#[test]
fn tokens_are_the_same_by_ids_or_by_text() {
    assert!(is_same_text(" the", "the") && is_same_text("<|im_end|>", "") && is_same_text("\u{fffd}", "é"));
    assert!(!is_same_text(" the", " then"));
    let own = own(&WORDS[..2], &NEW[..2], None);
    let with_ids = |ids: &[u32]| Reply { response_ids: Some(ids.to_vec()), ..reply(&WORDS[..2], Some(&NEW[..2])) };
    assert_eq!(agreed(&own, &with_ids(&[0, 1])).len(), 2);
    assert_eq!(agreed(&own, &with_ids(&[0, 7])).len(), 1);
    // Ids of another number of tokens say nothing.
    assert_eq!(agreed(&own, &with_ids(&[7])).len(), 2);
}
