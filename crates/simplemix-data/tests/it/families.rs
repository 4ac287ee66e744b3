//! Formats of published preference data: each is detected from rows with the columns and types of the published sets.

use serde_json::{Value, json};
use simplemix_data::{
    Error, Format, Message, Pair, Policy, PolicyRule, Problem, RankedRule, ReadOptions, ReadReport, Text,
    read_pairs_with_report,
};

use crate::common::file;

fn read_with(rows: &[Value], options: &ReadOptions) -> (Vec<Pair>, ReadReport) {
    let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
    let (_dir, path) = file("set.jsonl", lines.join("\n"));
    read_pairs_with_report(&path, options).unwrap()
}

fn read(rows: &[Value]) -> (Vec<Pair>, ReadReport) {
    read_with(rows, &ReadOptions::default())
}

fn ranked(rule: RankedRule) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.ranked = rule;
    options
}

fn messages(turns: &[(&str, &str)]) -> Text {
    Text::Messages(turns.iter().map(|(role, content)| Message::new(*role, *content)).collect())
}

fn said(text: &Text) -> &str {
    match text {
        Text::Plain(text) => text,
        Text::Messages(turns) => &turns.last().unwrap().content,
    }
}

fn scores(pair: &Pair) -> (Option<f64>, Option<f64>) {
    (pair.score_chosen, pair.score_rejected)
}

#[test]
fn simpo_scored_takes_the_extreme_rewards_and_refuses_ties() {
    let row = |scores: Value, rejected: &str| {
        json!({"prompt_id": 3, "prompt": "q", "all_generated_responses": ["a", "b"], "all_rm_scores": scores,
            "chosen": [{"content": "q", "role": "user"}, {"content": "a", "role": "assistant"}],
            "rejected": [{"content": "q", "role": "user"}, {"content": rejected, "role": "assistant"}]})
    };
    let (pairs, report) =
        read(&[row(json!([0.2, 0.1, 0.15]), "b"), row(json!([0.1, 0.1]), "b"), row(json!([0.1, 0.1]), "a")]);
    assert_eq!(report.format, Format::SimpoScored);
    assert_eq!(scores(&pairs[0]), (Some(0.2), Some(0.1)));
    assert_eq!((report.refused.count(Problem::Tie), report.refused.count(Problem::IdenticalSides)), (1, 1));
}

#[test]
fn tulu_and_olmo_mixes_say_who_wrote_the_responses() {
    let row = |source: &str, chosen: &str, rejected: &str| {
        json!({"id": "x-1", "source": source, "prompt": "q", "chosen_model": chosen, "rejected_model": rejected,
            "chosen_rating": 5.0, "rejected_rating": 2,
            "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
            "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]})
    };
    let rows =
        [row("tulu-3-sft-reused-off-policy", "m1", "m2"), row("tulu-3-wildchat-reused-on-policy-8b", "us", "us")];
    let (pairs, report) = read(&rows);
    assert_eq!(report.format, Format::PromptAndMessages);
    assert_eq!((pairs[0].policy, pairs[1].policy), (Policy::Off, Policy::On));
    assert_eq!((pairs[0].generator.as_deref(), pairs[1].generator.as_deref()), (None, Some("us")));
    assert_eq!((pairs[0].source.as_str(), scores(&pairs[0])), ("tulu-3-sft-reused-off-policy", (Some(5.0), Some(2.0))));

    let mut options = ReadOptions::default();
    options.policy = PolicyRule::Models(vec!["us".to_owned()]);
    let (pairs, _) = read_with(&[row("s", "us", "us"), row("on-policy", "us", "m2")], &options);
    assert_eq!((pairs[0].policy, pairs[1].policy), (Policy::On, Policy::Off));
}

#[test]
fn argillas_cleaned_set_has_hyphens_in_its_names() {
    let row = json!({"source": "evol_instruct", "prompt": "q", "chosen-rating": 4.5, "rejected-rating": 2.0,
        "chosen-model": "m1", "rejected-model": "m2",
        "chosen": [{"content": "q", "role": "user"}, {"content": "a", "role": "assistant"}],
        "rejected": [{"content": "q", "role": "user"}, {"content": "b", "role": "assistant"}]});
    let (pairs, report) = read(&[row]);
    assert_eq!((report.format, scores(&pairs[0])), (Format::PromptAndMessages, (Some(4.5), Some(2.0))));
}

#[test]
fn one_turn_structs_beside_a_text_prompt_are_answers() {
    let row = json!({"prompt": "q", "chosen": {"role": "assistant", "content": "a"},
        "rejected": {"role": "assistant", "content": "b"}});
    let (pairs, report) = read(&[row]);
    assert_eq!(report.format, Format::PromptAndMessages);
    assert_eq!((&pairs[0].prompt, said(&pairs[0].chosen)), (&messages(&[("user", "q")]), "a"));
}

fn ultra_feedback_row() -> Value {
    let completion = |model: &str, response: &str, fine: Value, overall: f64| {
        json!({"model": model, "principle": "helpfulness", "custom_system_prompt": "s", "response": response,
            "annotations": {"helpfulness": {"Rating": "4"}}, "overall_score": overall, "fine-grained_score": fine})
    };
    json!({"source": "sharegpt", "instruction": "q", "models": ["a", "b", "c", "d"],
        "correct_answers": ["None"], "incorrect_answers": ["None"], "completions": [
            completion("a", "middling", json!(3.0), 10.0), completion("b", "good", json!("4.5"), 8.0),
            completion("c", "bad", json!(1.25), 1.0), completion("d", "unrated", json!("N/A"), 7.0)]})
}

#[test]
fn ultrafeedback_pairs_best_with_worst_by_the_fine_grained_score() {
    let (pairs, report) = read(&[ultra_feedback_row()]);
    assert_eq!(report.format, Format::UltraFeedback);
    assert_eq!((said(&pairs[0].chosen), said(&pairs[0].rejected)), ("good", "bad"));
    assert_eq!(scores(&pairs[0]), (Some(4.5), Some(1.25)));
    assert_eq!(pairs[0].source, "sharegpt");
}

#[test]
fn ranked_lists_give_all_pairs_over_a_gap_or_one_drawn_by_content() {
    let (pairs, report) = read_with(&[ultra_feedback_row()], &ranked(RankedRule::AllPairs { min_gap: 1.6 }));
    let texts: Vec<_> = pairs.iter().map(|pair| (said(&pair.chosen), said(&pair.rejected))).collect();
    assert_eq!(texts, [("good", "bad"), ("middling", "bad")]);
    assert_eq!((report.rows, report.pairs), (1, 2));
    let (first, _) = read_with(&[ultra_feedback_row()], &ranked(RankedRule::BestOther));
    let (again, _) = read_with(&[ultra_feedback_row()], &ranked(RankedRule::BestOther));
    assert_eq!(first, again);
    assert_eq!(said(&first[0].chosen), "good");
}

#[test]
fn argilla_ratings() {
    let row = json!({"source": "s", "instruction": "q", "chosen_response": "a", "rejected_response": "b",
        "chosen_avg_rating": 4.75, "rejected_avg_rating": 3.0, "chosen_model": "m"});
    let (pairs, report) = read(&[row]);
    assert_eq!((report.format, scores(&pairs[0])), (Format::ArgillaRatings, (Some(4.75), Some(3.0))));
}

#[test]
fn hh_transcripts_are_split_at_the_last_assistant_of_chosen() {
    let rows = [
        json!({"chosen": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: yes",
            "rejected": "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: no"}),
        json!({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: other\n\nAssistant: c"}),
    ];
    let (pairs, report) = read(&rows);
    assert_eq!(report.format, Format::HhTranscripts);
    assert_eq!(pairs[0].prompt, messages(&[("user", "a"), ("assistant", "b"), ("user", "c")]));
    assert_eq!((said(&pairs[0].chosen), said(&pairs[0].rejected)), ("yes", "no"));
    assert_eq!(report.refused.count(Problem::DifferentPrompts), 1);
}

#[test]
fn nectar_ranks_from_one() {
    let row = json!({"prompt": "\n\nHuman: q\n\nAssistant: ", "turns": 1, "num_responses": 2, "good_natured": true,
        "source": ["lmsys-chat-1m"], "answers": [
            {"answer": "b", "model": "m2", "rank": 2.0}, {"answer": "a", "model": "m1", "rank": 1.0}]});
    let (pairs, report) = read(&[row]);
    assert_eq!(report.format, Format::Nectar);
    assert_eq!(pairs[0].prompt, messages(&[("user", "q")]));
    assert_eq!((said(&pairs[0].chosen), scores(&pairs[0])), ("a", (Some(-1.0), Some(-2.0))));
}

#[test]
fn open_assistant_trees_give_a_pair_for_each_ranked_turn() {
    let row = |id: &str, parent: Value, tree: &str, role: &str, text: &str, rank: Value, deleted: bool| {
        json!({"message_id": id, "parent_id": parent, "message_tree_id": tree, "role": role, "text": text,
            "rank": rank, "deleted": deleted, "lang": "en", "labels": {"name": ["q"], "value": [0.5]}})
    };
    let rows = [
        row("r", Value::Null, "r", "prompter", "q", Value::Null, false),
        row("a", json!("r"), "r", "assistant", "good", json!(0), false),
        row("b", json!("r"), "r", "assistant", "bad", json!(2), false),
        row("c", json!("r"), "r", "assistant", "worse but deleted", json!(3), true),
        row("d", json!("a"), "r", "prompter", "and?", Value::Null, false),
        row("e", json!("d"), "r", "assistant", "e0", json!(0), false),
        row("f", json!("d"), "r", "assistant", "e1", json!(1), false),
        row("s", Value::Null, "s", "prompter", "alone", Value::Null, false),
    ];
    let (pairs, report) = read(&rows);
    assert_eq!((report.format, report.rows, pairs.len()), (Format::OpenAssistant, 8, 2));
    assert_eq!((said(&pairs[0].chosen), said(&pairs[0].rejected)), ("good", "bad"));
    assert_eq!(pairs[1].prompt, messages(&[("user", "q"), ("assistant", "good"), ("user", "and?")]));
    assert_eq!(
        report.refused.iter().next().unwrap().1.first_rows,
        [7],
        "the row where the tree without answers starts"
    );
}

#[test]
fn shp_prefers_by_label() {
    let row = |label: i64| {
        json!({"post_id": "x", "domain": "askcooking_train", "upvote_ratio": 0.9, "history": "q", "human_ref_A": "a",
            "human_ref_B": "b", "labels": label, "score_A": 10, "score_B": 4, "score_ratio": 2.5, "seconds_difference": 1.0})
    };
    let (pairs, report) = read(&[row(1), row(0), row(7)]);
    assert_eq!((report.format, report.refused.count(Problem::Unlabelled)), (Format::Shp, 1));
    assert_eq!((said(&pairs[0].chosen), scores(&pairs[0])), ("a", (Some(10.0), Some(4.0))));
    assert_eq!((said(&pairs[1].chosen), scores(&pairs[1])), ("b", (Some(4.0), Some(10.0))));
    assert_eq!(pairs[0].task.as_deref(), Some("askcooking_train"));
}

#[test]
fn helpsteer_ratings_are_grouped_by_prompt() {
    let row = |prompt: &str, response: &str, helpfulness: i64| {
        json!({"prompt": prompt, "response": response, "helpfulness": helpfulness, "correctness": 3, "coherence": 4,
            "complexity": 1, "verbosity": 1})
    };
    let rows =
        [row("q", "a", 1), row("q", "b", 4), row("t", "c", 2), row("t", "d", 2), row("u", "e", 3), row("u", "f", 0)];
    let (pairs, report) = read(&rows);
    assert_eq!((report.format, report.rows, pairs.len()), (Format::HelpSteerRatings, 6, 2));
    assert_eq!((said(&pairs[0].chosen), said(&pairs[1].chosen)), ("b", "e"));
    let ties = report.refused.iter().next().unwrap();
    assert_eq!((ties.0, ties.1.first_rows.as_slice()), (Problem::Tie, [2].as_slice()));
}

#[test]
fn helpsteer2_preferences_read_their_turn_marks() {
    let row = |strength: i64| {
        json!({"split": "train", "prompt": "q\n<extra_id_1>Assistant\na\n<extra_id_1>User\nr", "response_1": "one",
            "response_2": "two", "preference_strength": strength})
    };
    let (pairs, report) = read(&[row(-2), row(1), row(0)]);
    assert_eq!((report.format, report.refused.count(Problem::Tie)), (Format::HelpSteer2Preference, 1));
    assert_eq!(pairs[0].prompt, messages(&[("user", "q"), ("assistant", "a"), ("user", "r")]));
    assert_eq!((said(&pairs[0].chosen), said(&pairs[1].chosen)), ("one", "two"));
    assert_eq!(pairs[0].margin(), Some(2.0));
}

#[test]
fn helpsteer3() {
    let row = json!({"domain": "code", "language": "python", "context": [{"role": "user", "content": "q"}],
        "response1": "one", "response2": "two", "overall_preference": 3});
    let (pairs, report) = read(&[row]);
    assert_eq!(report.format, Format::HelpSteer3);
    assert_eq!((said(&pairs[0].chosen), pairs[0].task.as_deref()), ("two", Some("code")));
}

#[test]
fn pku_has_two_labels_that_may_disagree() {
    let row = json!({"prompt": "q", "response_0": "zero", "response_1": "one", "prompt_source": "s",
        "is_response_0_safe": true, "is_response_1_safe": false, "better_response_id": 1, "safer_response_id": 0});
    let (pairs, report) = read(std::slice::from_ref(&row));
    assert_eq!((report.format, said(&pairs[0].chosen)), (Format::PkuBetter, "one"));
    let (pairs, _) = read_with(&[row], &ReadOptions::default().with_format(Format::PkuSafer));
    assert_eq!(said(&pairs[0].chosen), "zero");
}

#[test]
fn orca_with_and_without_a_system_prompt() {
    let row = |system: &str| json!({"system": system, "question": "q", "chosen": "a", "rejected": "b"});
    let (pairs, report) = read(&[row("s"), row("")]);
    assert_eq!(report.format, Format::Orca);
    assert_eq!(pairs[0].prompt, messages(&[("system", "s"), ("user", "q")]));
    assert_eq!(pairs[1].prompt, messages(&[("user", "q")]));
}

#[test]
fn alpaca_ranking_joins_instruction_and_input() {
    let row = json!({"instruction": "do", "input": "this", "chosen": "a", "rejected": "b", "history": [["h", "i"]]});
    let (pairs, report) = read(&[row]);
    assert_eq!(report.format, Format::AlpacaRanking);
    assert_eq!(pairs[0].prompt, messages(&[("user", "h"), ("assistant", "i"), ("user", "do\nthis")]));
}

#[test]
fn nemo_rl_ranks_from_zero() {
    let completion =
        |rank: i64, text: &str| json!({"rank": rank, "completion": [{"role": "assistant", "content": text}]});
    let row =
        json!({"context": [{"role": "user", "content": "q"}], "completions": [completion(1, "b"), completion(0, "a")]});
    let (pairs, report) = read(&[row]);
    assert_eq!((report.format, said(&pairs[0].chosen), said(&pairs[0].rejected)), (Format::NemoRl, "a", "b"));
}

#[test]
fn turns_kept_as_json_text_are_parsed() {
    let turns =
        |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]).to_string();
    let (pairs, report) = read(&[json!({"chosen": turns("a"), "rejected": turns("b")})]);
    assert_eq!(report.format, Format::ImplicitMessages);
    assert_eq!((&pairs[0].prompt, said(&pairs[0].rejected)), (&messages(&[("user", "q")]), "b"));
}

#[test]
fn turns_as_a_struct_of_lists_are_read() {
    let turns = |answer: &str| json!({"role": ["user", "assistant"], "content": ["q", answer]});
    let (pairs, report) = read(&[json!({"chosen": turns("a"), "rejected": turns("b")})]);
    assert_eq!((report.format, said(&pairs[0].chosen)), (Format::ImplicitMessages, "a"));
}

#[test]
fn unpaired_and_fine_tuning_sets_are_refused_with_a_reason() {
    let refusal = |row: Value| {
        let (_dir, path) = file("a.jsonl", row.to_string());
        match read_pairs_with_report(&path, &ReadOptions::default()).unwrap_err() {
            Error::UnknownFormat { hint, .. } => hint,
            error => panic!("{error}"),
        }
    };
    assert!(refusal(json!({"prompt": "q", "completion": "a", "label": true})).contains("KTO"));
    assert!(refusal(json!({"messages": [{"role": "user", "content": "q"}]})).contains("fine-tuning"));
}

#[test]
fn the_format_comes_from_many_rows_not_from_the_first() {
    let turns = |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]);
    let rows = [
        json!({"prompt": null, "chosen": [], "rejected": null}),
        json!({"prompt": null, "chosen": turns("a"), "rejected": turns("b")}),
    ];
    let (pairs, report) = read(&rows);
    assert_eq!((report.format, pairs.len()), (Format::ImplicitMessages, 1));
    assert_eq!(report.refused.count(Problem::EmptyChosen), 1);
}

#[test]
fn every_name_of_a_format_reads_back() {
    for format in Format::ALL {
        assert_eq!(format.name().parse(), Ok(format));
    }
    assert!("no-such".parse::<Format>().unwrap_err().contains("hh-transcripts"));
}
