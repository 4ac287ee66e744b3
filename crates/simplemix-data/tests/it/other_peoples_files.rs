//! Kinds of files that users of other programs reported: each is read as it is meant, or refused by name.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Float64Type, UInt64Type};
use parquet::arrow::ArrowWriter;
use serde_json::{Value, json};
use simplemix_data::{
    Container, Error, ExtraColumns, Form, Format, Message, Pair, PairReader, PairWriter, Problem, ReadOptions,
    ReadReport, RowReader, Text, WriteOptions, inputs, read_pairs, read_pairs_with_report,
};

use crate::common::file;

fn lines(rows: &[Value]) -> String {
    rows.iter().map(|row| format!("{row}\n")).collect()
}

fn read_text(name: &str, text: &str) -> (Vec<Pair>, ReadReport) {
    let (_dir, path) = file(name, text);
    read_pairs_with_report(&path, &ReadOptions::default()).unwrap()
}

fn read(rows: &[Value]) -> (Vec<Pair>, ReadReport) {
    read_text("a.jsonl", &lines(rows))
}

fn refusal(rows: &[Value]) -> Error {
    let (_dir, path) = file("a.jsonl", lines(rows));
    read_pairs(&path, &ReadOptions::default()).unwrap_err()
}

fn messages(turns: &[(&str, &str)]) -> Text {
    Text::Messages(turns.iter().map(|(role, content)| Message::new(*role, *content)).collect())
}

/// All rows as one batch, with the columns that are carried.
fn batch(name: &str, text: &str) -> RecordBatch {
    let (_dir, path) = file(name, text);
    let mut reader = PairReader::open(&path, &ReadOptions::default()).unwrap();
    let batches: Vec<RecordBatch> = reader.by_ref().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&reader.schema(), &batches).unwrap()
}

#[test]
fn a_system_column_becomes_the_first_turn() {
    let text = json!({"system": "Be brief.", "prompt": "q", "chosen": "a", "rejected": "b"});
    let (pairs, report) = read(&[text.clone(), json!({"system": "", "prompt": "r", "chosen": "a", "rejected": "b"})]);
    assert_eq!((report.format, report.form), (Format::Orca, Form::Messages));
    assert_eq!(pairs[0].prompt, messages(&[("system", "Be brief."), ("user", "q")]));
    assert_eq!(pairs[1].prompt, messages(&[("user", "r")]));
    let turn = |role: &str, content: &str| json!([{"role": role, "content": content}]);
    let row = |system: &str| {
        json!({"system_prompt": system, "prompt": turn("user", "q"), "chosen": turn("assistant", "a"),
            "rejected": turn("assistant", "b")})
    };
    let (pairs, _) = read(&[row("Be brief.")]);
    assert_eq!(pairs[0].prompt, messages(&[("system", "Be brief."), ("user", "q")]));
    // Two system prompts that differ.
    let mut other = row("Be brief.");
    other["prompt"] = json!([{"role": "system", "content": "Be long."}, {"role": "user", "content": "q"}]);
    let (pairs, report) = read(&[row("Be brief."), other]);
    assert_eq!((pairs.len(), report.refused.count(Problem::UnreadColumn)), (1, 1));
    // Without a column that says anything, text stays text.
    let (_, report) = read(&[json!({"system": " ", "prompt": "q", "chosen": "a", "rejected": "b"})]);
    assert_eq!(report.format, Format::ExplicitText);
    // A format that is named is read as it stands.
    let (_dir, path) = file("a.jsonl", lines(&[text]));
    let options = ReadOptions::default().with_format(Format::ExplicitText);
    let batch = PairReader::open(&path, &options).unwrap().next().unwrap().unwrap();
    assert_eq!(batch.column_by_name("system").unwrap().as_string::<i32>().value(0), "Be brief.");
}

#[test]
fn other_names_of_a_question_are_read() {
    for name in ["question", "query", "input"] {
        let (pairs, report) = read(&[json!({name: "2 + 2?", "chosen": "4", "rejected": "5"})]);
        assert_eq!((report.format, &pairs[0].prompt), (Format::Orca, &messages(&[("user", "2 + 2?")])), "{name}");
    }
}

#[test]
fn a_column_of_the_prompt_that_is_not_read_is_an_error_that_names_it() {
    let turns = json!([{"role": "user", "content": "an earlier question"}, {"role": "assistant", "content": "yes"}]);
    for (name, value) in [
        ("context", json!("The river is 5 km long.")),
        ("history", json!([["an earlier question", "yes"]])),
        ("trajectory", turns.clone()),
        ("messages", turns),
        ("chat_history", json!("Human: hello")),
        ("input", json!("a text to sum up")),
    ] {
        let with_prompt = json!({"prompt": "How long?", "chosen": "5 km", "rejected": "3 km", name: value});
        let mut without = json!({"chosen": "It is 5 km", "rejected": "It is 3 km"});
        without[name] = value.clone();
        for row in [with_prompt, without] {
            if name == "input" && row.get("prompt").is_none() {
                continue;
            }
            let with_map = row.get("prompt").is_none();
            let error = refusal(&[row]);
            assert!(matches!(&error, Error::UnreadColumn { column, .. } if column == name), "{name}: {error}");
            let advice = match (with_map, name) {
                (true, _) => format!("the line prompt = \"{name}\""),
                (false, "history") => "the line instruction = \"prompt\"".to_owned(),
                (false, _) => "put its text into the prompt".to_owned(),
            };
            assert!(error.to_string().contains(&advice), "{error}");
        }
    }
    // The advice works.
    let mapped = |row: Value, name: &str, from: &str| {
        let (_dir, path) = file("a.jsonl", row.to_string());
        let mut options = ReadOptions::default();
        options.columns.insert(name.to_owned(), from.to_owned());
        read_pairs(&path, &options).unwrap().remove(0).prompt
    };
    let turns = json!([{"from": "human", "value": "q"}]);
    let row = json!({"conversations": turns, "chosen": "It is 5 km", "rejected": "It is 3 km"});
    assert_eq!(mapped(row, "prompt", "conversations"), messages(&[("user", "q")]));
    let row = json!({"prompt": "r", "history": [["q", "a"]], "chosen": "5 km", "rejected": "3 km"});
    assert_eq!(mapped(row, "instruction", "prompt"), messages(&[("user", "q"), ("assistant", "a"), ("user", "r")]));
    // Prose that no format has a name for, where the prompt would be found inside the responses.
    let ask = |text: &str| json!({"ask": text, "chosen": "It is so", "rejected": "It is not so"});
    let error = refusal(&[ask("Is it so today?"), ask("Was it so yesterday?")]);
    assert!(matches!(&error, Error::UnreadColumn { column, .. } if column == "ask"), "{error}");
}

#[test]
fn a_column_that_repeats_the_pair_is_left_aside() {
    let turns = |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]);
    let row = json!({"prompt": "q", "prompt_id": "x", "messages": turns("a"), "chosen": turns("a"), "rejected": turns("b"),
        "score_chosen": 8.0, "score_rejected": 3.0});
    let (pairs, report) = read(&[row]);
    assert_eq!((report.format, pairs.len()), (Format::PromptAndMessages, 1));
}

#[test]
fn a_row_that_says_more_in_such_a_column_is_refused_and_counted() {
    let row = |context: Value| json!({"prompt": "q", "chosen": "a", "rejected": "b", "context": context});
    let mut rows = vec![row(Value::Null); 400];
    rows[300] = row(json!("The river is 5 km long."));
    rows[301] = row(json!("q"));
    let (pairs, report) = read(&rows);
    assert_eq!((pairs.len(), report.refused.count(Problem::UnreadColumn)), (399, 1));
}

#[test]
fn a_text_prompt_that_the_messages_lack_is_refused() {
    let turns = |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]);
    let row = |prompt: &str| json!({"prompt": prompt, "chosen": turns("a"), "rejected": turns("b")});
    let (pairs, report) = read(&[row("q"), row(" q\n"), row("Something else")]);
    assert_eq!((pairs.len(), report.refused.count(Problem::DifferentPrompts)), (2, 1));
}

#[test]
fn messages_that_repeat_the_prompt_are_cut() {
    let turn = |role: &str, content: &str| json!({"role": role, "content": content});
    let side = |answer: &str| json!([turn("user", "q"), turn("assistant", answer)]);
    let prompt = json!([turn("system", "s"), turn("user", "q")]);
    let (pairs, _) = read(&[json!({"prompt": prompt, "chosen": side("a"), "rejected": side("b")})]);
    assert_eq!(
        (&pairs[0].chosen, &pairs[0].rejected),
        (&messages(&[("assistant", "a")]), &messages(&[("assistant", "b")]))
    );
    // Texts after a prompt of messages.
    let (pairs, report) = read(&[json!({"prompt": prompt, "chosen": "a", "rejected": "b"})]);
    assert_eq!((report.format, &pairs[0].chosen), (Format::ExplicitMessages, &messages(&[("assistant", "a")])));
}

#[test]
fn one_odd_row_does_not_change_the_format() {
    let transcript = |answer: &str| format!("\n\nHuman: q\n\nAssistant: {answer}");
    let mut rows = vec![json!({"chosen": transcript("a"), "rejected": transcript("b")}); 9];
    rows[4] = json!({"chosen": "Human: q\n\nAssistant: a", "rejected": "Human: q\n\nAssistant: b"});
    rows[5] = json!({"chosen": "It is so", "rejected": "It is not so"});
    let (pairs, report) = read(&rows);
    assert_eq!((report.format, pairs.len(), report.refused.total()), (Format::HhTranscripts, 8, 1));
    assert_eq!(pairs[4].prompt, messages(&[("user", "q")]));

    let mut rows = vec![json!({"prompt": "q", "chosen": "a", "rejected": "b"}); 9];
    rows[0] = json!({"prompt": [{"role": "user", "content": "q"}], "chosen": 3, "rejected": ["b"]});
    rows[1] = json!(["prompt", "chosen"]);
    let (pairs, report) = read(&rows);
    assert_eq!((report.format, pairs.len(), report.refused.count(Problem::WrongType)), (Format::ExplicitText, 7, 2));

    let turns = |text: &str| json!([{"role": "assistant", "content": text}]);
    let mut rows = vec![json!({"prompt": "q", "chosen": turns("a"), "rejected": turns("b")}); 9];
    rows[8] = json!({"prompt": "q", "chosen": "a", "rejected": "b"});
    let (pairs, report) = read(&rows);
    assert_eq!((report.format, pairs.len(), report.refused.total()), (Format::PromptAndMessages, 8, 1));
}

#[test]
fn nulls_and_empty_lists_at_the_start_do_not_decide() {
    let mut rows = vec![json!({"prompt": null, "chosen": "a", "rejected": "b"}); 300];
    rows.extend(vec![json!({"prompt": "q", "chosen": "a", "rejected": "b"}); 5]);
    let (pairs, report) = read(&rows);
    assert_eq!((report.format, pairs.len()), (Format::ExplicitText, 5));
    assert_eq!(report.refused.count(Problem::EmptyPrompt), 300);
    let turns = |role: &str, text: &str| json!([{"role": role, "content": text}]);
    let mut rows = vec![json!({"prompt": turns("user", "q"), "chosen": [], "rejected": []}); 300];
    rows.push(
        json!({"prompt": turns("user", "q"), "chosen": turns("assistant", "a"), "rejected": turns("assistant", "b")}),
    );
    let (pairs, report) = read(&rows);
    assert_eq!((report.format, pairs.len()), (Format::ExplicitMessages, 1));
    assert_eq!(report.refused.count(Problem::EmptyChosen), 300);
}

#[test]
fn turns_as_text_are_read_as_json_and_refused_as_python_prints_them() {
    let turns =
        |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]).to_string();
    let (pairs, report) = read(&[json!({"prompt": "q", "chosen": turns("a"), "rejected": turns("b")})]);
    assert_eq!((report.format, &pairs[0].chosen), (Format::PromptAndMessages, &messages(&[("assistant", "a")])));
    let printed = |answer: &str| {
        format!("[{{'role': 'user', 'content': 'q'}}, {{'role': 'assistant', 'content': \"{answer}\"}}]")
    };
    let error = refusal(&[json!({"prompt": "q", "chosen": printed("it's"), "rejected": printed("no")})]);
    assert!(error.to_string().contains("`chosen` is messages as Python prints them"), "{error}");
    // Among texts, single rows of either are refused; a response that is other JSON is a response.
    let plain = json!({"prompt": "q", "chosen": "{\"a\": [1]}", "rejected": "b"});
    let mut rows = vec![plain; 6];
    rows[2] = json!({"prompt": "q", "chosen": turns("a"), "rejected": "b"});
    rows[3] = json!({"prompt": "q", "chosen": "a", "rejected": printed("b")});
    let (pairs, report) = read(&rows);
    assert_eq!((pairs.len(), report.refused.count(Problem::TurnsAsText)), (4, 2));
}

#[test]
fn large_integers_keep_their_value() {
    let row = |hash: &str| format!("{{\"prompt\": \"q\", \"chosen\": \"a\", \"rejected\": \"b\", \"hash\": {hash}}}\n");
    let unsigned = batch("a.jsonl", &(row("123456789012345678") + &row("18446744073709551615")));
    let hashes = unsigned.column_by_name("hash").unwrap().as_primitive::<UInt64Type>();
    assert_eq!((hashes.value(0), hashes.value(1)), (123456789012345678, u64::MAX));
    // No number type holds these together.
    for (rows, expected) in [
        (["-1", "18446744073709551615"], ["-1", "18446744073709551615"]),
        (["9007199254740993", "0.5"], ["9007199254740993", "0.5"]),
        (["5", "36893488147419103232"], ["5", "\"36893488147419103232\""]),
    ] {
        let text = batch("a.jsonl", &rows.map(row).concat());
        let column = text.column_by_name("hash").unwrap().as_string::<i32>().clone();
        assert_eq!([column.value(0), column.value(1)], expected);
    }
}

#[test]
fn a_column_that_goes_on_as_another_type_is_widened() {
    let rows = |last: Value| {
        let row = |value: Value| json!({"prompt": "q", "chosen": "a", "rejected": "b", "extra": value});
        let mut rows = vec![row(json!(1)); 400];
        rows[399] = row(last);
        rows[398]["late"] = json!(true);
        lines(&rows)
    };
    let fractions = batch("a.jsonl", &rows(json!(0.5)));
    let extra = fractions.column_by_name("extra").unwrap().as_primitive::<Float64Type>();
    assert_eq!((extra.value(0), extra.value(399)), (1.0, 0.5));
    let (_dir, path) = file("a.jsonl", rows(json!(2)));
    let mut options = ReadOptions::default();
    options.extra_columns = ExtraColumns::Drop;
    assert_eq!(PairReader::open(&path, &options).unwrap().left_out(), ["extra"]);
    assert!(PairReader::open(&path, &ReadOptions::default()).unwrap().left_out().is_empty());
    assert!(fractions.column_by_name("late").unwrap().as_boolean().value(398), "a column that comes late");
    let text = batch("a.jsonl", &rows(json!("n/a")));
    let extra = text.column_by_name("extra").unwrap().as_string::<i32>();
    assert_eq!((extra.value(0), extra.value(399)), ("1", "\"n/a\""));
    let missing = batch("a.jsonl", &rows(json!("X")).replace("\"X\"", "NaN"));
    assert!(missing.column_by_name("extra").unwrap().is_null(399));
    assert_eq!(missing.column_by_name("extra").unwrap().data_type(), &DataType::Int64);
}

#[test]
fn numbers_as_python_writes_them_and_scores_as_text() {
    let rows = r#"{"prompt": "a", "chosen": "x", "rejected": "y", "score_chosen": "4.5", "score_rejected": 1}
{"prompt": "b", "chosen": "x", "rejected": "y", "score_chosen": NaN, "score_rejected": Infinity}
{"prompt": "c", "chosen": "x", "rejected": "y", "score_chosen": "N/A", "score_rejected": "1e3"}
{"prompt": NaN, "chosen": "x", "rejected": "y", "score_chosen": 1, "score_rejected": null}
"#;
    let (pairs, report) = read_text("a.jsonl", rows);
    let scores: Vec<_> = pairs.iter().map(|pair| (pair.score_chosen, pair.score_rejected)).collect();
    assert_eq!(scores, [(Some(4.5), Some(1.0)), (None, None), (None, Some(1000.0))]);
    assert_eq!((report.unread_scores, report.refused.count(Problem::EmptyPrompt)), (1, 1));
    assert!(report.to_string().ends_with("scores that are no numbers: 1"), "{report}");
}

#[test]
fn json_is_told_by_its_text_whatever_its_name() {
    let row = json!({"prompt": "q", "chosen": "a", "rejected": "b {\"}"});
    let pretty = serde_json::to_string_pretty(&row).unwrap();
    for (text, container, pairs) in [
        (format!("\n\n{row}\n\n\n{row}\n"), Container::JsonLines, 2),
        (format!("{}{row}", " \n".repeat(5000)), Container::JsonLines, 1),
        (pretty.clone(), Container::JsonObjects, 1),
        (format!("\u{feff}{pretty}\n{pretty}\n\n"), Container::JsonObjects, 2),
        (format!("  [{row},\n{pretty}]\n"), Container::JsonArray, 2),
    ] {
        for name in ["a.json", "a.jsonl", "a.txt"] {
            let (read, report) = read_text(name, &text);
            assert_eq!((report.container, read.len()), (container, pairs), "{name}: {text}");
        }
    }
    let (_dir, path) = file("a.jsonl", format!("{pretty}\n{{\"prompt\":\n"));
    let error = read_pairs(&path, &ReadOptions::default()).unwrap_err().to_string();
    assert!(error.ends_with("found the end of the file, expected `}`, the end of the object"), "{error}");
    let (_dir, path) = file("a.jsonl", " \n\n\n");
    assert!(matches!(read_pairs(&path, &ReadOptions::default()), Err(Error::Empty { what: "rows", .. })));
}

#[test]
fn rows_inside_a_column_and_tables_by_columns_are_refused_with_advice() {
    let row = json!({"prompt": "q", "chosen": "a", "rejected": "b"});
    let inside = refusal(&[json!({"version": "1", "data": [row]})]).to_string();
    assert!(inside.ends_with("the column `data` holds the rows, expected a file of these rows alone"), "{inside}");
    for table in [
        json!({"prompt": ["q", "r"], "chosen": ["a", "b"], "rejected": ["c", "d"]}),
        json!({"prompt": {"0": "q"}, "chosen": {"0": "a"}, "rejected": {"0": "b"}}),
    ] {
        let error = refusal(&[table]).to_string();
        assert!(error.contains("`chosen` is ") && error.ends_with("(with pandas, orient=\"records\")"), "{error}");
    }
}

#[test]
fn a_row_that_is_no_text_costs_the_row_also_in_files_of_prompts() {
    let (_dir, path) = file("a.jsonl", "{\"prompt\": \"x \\ud83d\"}\n3\n{\"prompt\": \"y\"}\n");
    let mut reader = RowReader::open(&path).unwrap();
    assert_eq!(reader.next().unwrap().unwrap()["prompt"], "y");
    assert_eq!((reader.row(), reader.next().is_none()), (2, true));
    let refused = reader.refused();
    assert_eq!((refused.count(Problem::LoneSurrogate), refused.count(Problem::WrongType)), (1, 1));
}

/// A Parquet file with turns as JSON text, and columns that JSON has no type for.
#[test]
fn columns_of_any_type_are_carried_and_written_as_json() {
    let turns =
        |answer: &str| json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]).to_string();
    let at = TimestampMicrosecondArray::from(vec![1_704_164_645_000_000]).with_timezone("America/New_York");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("chosen", Arc::new(StringArray::from(vec![turns("a")]))),
        ("rejected", Arc::new(StringArray::from(vec![turns("b")]))),
        ("at", Arc::new(at)),
        ("n", Arc::new(Int64Array::from(vec![9007199254740993]))),
    ];
    let rows = RecordBatch::try_from_iter(columns).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.parquet");
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    let read = PairReader::open(&path, &ReadOptions::default()).unwrap().next().unwrap().unwrap();
    assert_eq!(read.column_by_name("at").unwrap().data_type(), rows.column(2).data_type());
    let out = dir.path().join("a.jsonl");
    let mut writer = PairWriter::create(&out, &WriteOptions::default()).unwrap();
    writer.write_batch(&read).unwrap();
    writer.finish().unwrap();
    let row: Value = serde_json::from_str(&std::fs::read_to_string(&out).unwrap()).unwrap();
    assert_eq!((&row["at"], &row["n"]), (&json!("2024-01-02T03:04:05Z"), &json!(9007199254740993_i64)));
    let row = RowReader::open(&path).unwrap().next().unwrap().unwrap();
    assert_eq!(row["at"], "2024-01-02T03:04:05Z");
}

#[test]
fn shards_without_rows_are_left_aside_beside_others() {
    let dir = tempfile::tempdir().unwrap();
    let columns: Vec<(&str, ArrayRef)> = ["prompt", "chosen", "rejected"]
        .map(|name| (name, Arc::new(StringArray::from(vec!["x"])) as ArrayRef))
        .to_vec();
    let rows = RecordBatch::try_from_iter(columns).unwrap().slice(0, 0);
    let path = dir.path().join("a.parquet");
    let mut writer = ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), rows.schema(), None).unwrap();
    writer.write(&rows).unwrap();
    writer.close().unwrap();
    assert_eq!(inputs(dir.path()).unwrap(), std::slice::from_ref(&path), "alone it is an error of its reader");
    assert!(matches!(read_pairs(&path, &ReadOptions::default()), Err(Error::Empty { what: "rows", .. })));
    for (name, text) in [("b.json", "[]"), ("c.jsonl", "\n\n"), ("d.jsonl", "{}\n"), ("e.jsonl", "")] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let names = ["d.jsonl", "e.jsonl"].map(|name| dir.path().join(name));
    assert_eq!(inputs(dir.path()).unwrap(), names, "a file without bytes is damaged");
}
