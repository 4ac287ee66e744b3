//! Formats, each read from a few rows written by hand.

use std::sync::Arc;

use arrow::array::{ArrayRef, LargeStringArray, RecordBatch};
use arrow::ipc::CompressionType;
use arrow::ipc::writer::FileWriter;
use simplemix_data::{
    Form, Format, Message, Pair, PairReader, PairWriter, Policy, Problem, ReadOptions, Text, WriteOptions, read_pairs,
    read_pairs_with_report, schema,
};

use crate::common::{arrow_bytes, file};

fn read(name: &str, text: &str) -> (Vec<Pair>, simplemix_data::ReadReport) {
    let (_dir, path) = file(name, text);
    read_pairs_with_report(&path, &ReadOptions::default()).unwrap()
}

fn messages(turns: &[(&str, &str)]) -> Text {
    Text::Messages(turns.iter().map(|(role, content)| Message::new(*role, *content)).collect())
}

#[test]
fn explicit_text() {
    let (pairs, report) = read("sums.part.jsonl", r#"{"prompt": "2+2?", "chosen": " 4", "rejected": " 5", "id": 7}"#);
    assert_eq!(report.format, Format::ExplicitText);
    assert_eq!(pairs, [Pair::new("2+2?".into(), " 4".into(), " 5".into(), "sums", Policy::Off)]);
}

#[test]
fn explicit_messages_with_origin_and_scores() {
    let row = r#"{"prompt": [{"content": "q", "role": "user"}], "rejected": [{"role": "assistant", "content": "r"}],
        "chosen": [{"role": "assistant", "content": "c", "name": null}], "source": "s", "policy": "on",
        "generator": "g", "task": "math", "score_chosen": 2, "score_rejected": 1.5}"#;
    let (pairs, report) = read("a.json", &format!("[{row}]"));
    assert_eq!(report.format, Format::ExplicitMessages);
    let pair = &pairs[0];
    assert_eq!(pair.prompt, messages(&[("user", "q")]));
    assert_eq!((pair.source.as_str(), pair.policy, pair.generator.as_deref()), ("s", Policy::On, Some("g")));
    assert_eq!((pair.task.as_deref(), pair.margin()), (Some("math"), Some(0.5)));
}

#[test]
fn implicit_text_is_cut_at_the_space_before_the_difference() {
    let (pairs, report) = read("a.jsonl", r#"{"chosen": "Sky is blue.", "rejected": "Sky is green."}"#);
    assert_eq!(report.format, Format::ImplicitText);
    assert_eq!(pairs[0].prompt, "Sky is".into());
    assert_eq!((&pairs[0].chosen, &pairs[0].rejected), (&" blue.".into(), &" green.".into()));
}

#[test]
fn implicit_texts_that_trl_would_cut_wrongly_are_refused() {
    let lines = [
        r#"{"chosen": "Same.", "rejected": "Same."}"#,
        r#"{"chosen": "Q? Yes", "rejected": "Q? Yes, sure"}"#,
        r#"{"chosen": "No ", "rejected": "Yes "}"#,
    ];
    let (pairs, report) = read("a.jsonl", &lines.join("\n"));
    assert!(pairs.is_empty());
    let reasons: Vec<Problem> = report.refused.iter().map(|(problem, _)| problem).collect();
    assert_eq!(reasons, [Problem::IdenticalSides, Problem::OneSideIsPrefix, Problem::NoSharedPrompt]);
}

#[test]
fn implicit_messages() {
    let row = r#"{"chosen": [{"role":"system","content":"s"},{"role":"user","content":"q"},{"role":"assistant","content":"c"}],
        "rejected": [{"role":"system","content":"s"},{"role":"user","content":"q"},{"role":"assistant","content":"r"}]}"#;
    let (pairs, report) = read("a.json", &format!("[{row}]"));
    assert_eq!(report.format, Format::ImplicitMessages);
    assert_eq!(pairs[0].prompt, messages(&[("system", "s"), ("user", "q")]));
    assert_eq!(pairs[0].rejected, messages(&[("assistant", "r")]));
}

#[test]
fn ultrafeedback_binarised_repeats_its_prompt_in_the_turns() {
    let row = r#"{"prompt": "q", "prompt_id": "1", "chosen": [{"content":"q","role":"user"},{"content":"c","role":"assistant"}],
        "rejected": [{"content":"q","role":"user"},{"content":"r","role":"assistant"}], "score_chosen": 8.5, "score_rejected": 7.0}"#;
    let (pairs, report) = read("a.json", &format!("[{row}]"));
    assert_eq!(report.format, Format::PromptAndMessages);
    assert_eq!(pairs[0].prompt, messages(&[("user", "q")]));
    assert_eq!(pairs[0].margin(), Some(1.5));
}

#[test]
fn llama_factory_ranking() {
    let row = r#"{"conversations": [{"from":"system","value":"s"},{"from":"human","value":"q"}],
        "chosen": {"from":"gpt","value":"c"}, "rejected": {"from":"gpt","value":"r"}}"#;
    let (pairs, report) = read("dpo_en_demo.json", &format!("[{row}]"));
    assert_eq!(report.format, Format::ShareGptRanking);
    assert_eq!(pairs[0].prompt, messages(&[("system", "s"), ("user", "q")]));
    assert_eq!(pairs[0].chosen, messages(&[("assistant", "c")]));
    assert_eq!(pairs[0].source, "dpo_en_demo");
}

#[test]
fn byte_order_mark_carriage_returns_and_blank_lines_do_not_matter() {
    let row = r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#;
    let (pairs, _) = read("a.jsonl", &format!("\u{feff}{row}\r\n\r\n  \n{row}"));
    assert_eq!(pairs.len(), 2);
}

#[test]
fn unusable_rows_are_counted_with_their_numbers() {
    let lines = [
        r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#,
        r#"{"prompt": "a", "chosen": " b", "rejected": "b "}"#,
        r#"{"prompt": "a", "chosen": null, "rejected": "b"}"#,
        r#"{"prompt": " ", "chosen": "a", "rejected": "b"}"#,
        r#"{"prompt": "a", "chosen": "b", "rejected": 3}"#,
        r#"{"prompt": "a", "chosen": "b", "rejected": ""}"#,
    ];
    let (_dir, path) = file("a.jsonl", lines.join("\n"));
    let options = ReadOptions::default().with_format(Format::ExplicitText);
    let (pairs, report) = read_pairs_with_report(&path, &options).unwrap();
    assert_eq!((pairs.len(), report.rows, report.pairs), (1, 6, 1));
    let refused: Vec<_> = report.refused.iter().map(|(problem, rows)| (problem.name(), rows.first_rows[0])).collect();
    let expected =
        [("identical-sides", 1), ("empty-prompt", 3), ("empty-chosen", 2), ("empty-rejected", 5), ("wrong-type", 4)];
    assert_eq!(refused, expected);
}

#[test]
fn columns_of_other_names_can_be_told() {
    let row = r#"{"question": "2 + 2?", "better": " 4", "worse": " 5", "kept": 7}"#;
    let (_dir, path) = file("odd.jsonl", row);
    assert!(read_pairs(&path, &ReadOptions::default()).is_err());
    let mut options = ReadOptions::default();
    for (name, from) in [("prompt", "question"), ("chosen", "better"), ("rejected", "worse")] {
        options.columns.insert(name.to_owned(), from.to_owned());
    }
    let pairs = read_pairs(&path, &options).unwrap();
    assert_eq!((&pairs[0].prompt, &pairs[0].chosen), (&Text::from("2 + 2?"), &Text::from(" 4")));
    // Further columns are carried along.
    let batch = PairReader::open(&path, &options).unwrap().next().unwrap().unwrap();
    assert!(batch.column_by_name("kept").is_some());
    options.columns.insert("task".to_owned(), "none".to_owned());
    let error = read_pairs(&path, &options).unwrap_err().to_string();
    assert!(error.contains("`none`") && error.contains("a column to read as `task`"), "{error}");
}

#[test]
fn a_key_given_twice_counts_the_last_time() {
    let (pairs, _) = read("a.jsonl", r#"{"prompt": "a", "chosen": "x", "rejected": "c", "chosen": "b"}"#);
    assert_eq!(pairs[0].chosen, Text::from("b"), "as Python's json");
}

#[test]
fn numbers_beyond_64_bits_nul_and_leftovers_of_pandas() {
    let row = r#"{"prompt": "a\u0000", "chosen": "b", "rejected": "c", "score_chosen": 36893488147419103232,
        "score_rejected": -1e300, "__index_level_0__": 18446744073709551616}"#;
    let (pairs, _) = read("a.jsonl", &row.replace('\n', " "));
    assert_eq!(pairs[0].prompt, Text::from("a\0"));
    assert_eq!((pairs[0].score_chosen, pairs[0].score_rejected), (Some(36893488147419103232.0), Some(-1e300)));
}

#[test]
fn turns_that_make_no_pair_are_refused_by_reason() {
    let row = |prompt: &str, chosen: &str, rejected: &str| {
        let text = format!(r#"{{"prompt": [{prompt}], "chosen": [{chosen}], "rejected": [{rejected}]}}"#);
        text.replace("u:", r#"{"role": "user", "content": "#)
            .replace("a:", r#"{"role": "assistant", "content": "#)
            .replace(';', "}")
    };
    let rows = [
        row(r#"u:"q";"#, r#"a:"b";"#, r#"a:"c";"#),
        row(r#"u:"q";"#, r#"a:"b";, u:"x";"#, r#"a:"c";"#),
        row(r#"u:"q";"#, r#"a:"b";"#, ""),
        row(r#"u:"q";"#, r#"{"role": null, "content": "b"}"#, r#"a:"c";"#),
        row(r#"u:"q";"#, r#"a:null;"#, r#"a:"c";"#),
    ];
    let (pairs, report) = read("a.jsonl", &rows.join("\n"));
    assert_eq!(pairs.len(), 1);
    let refused: Vec<_> = report.refused.iter().map(|(problem, rows)| (problem.name(), rows.first_rows[0])).collect();
    let expected = [("empty-rejected", 2), ("missing-role", 3), ("missing-content", 4), ("last-turn-not-assistant", 1)];
    assert_eq!(refused, expected);
}

#[test]
fn several_turns_after_the_shared_ones_are_kept() {
    let turn = |role: &str, text: &str| format!(r#"{{"role": "{role}", "content": "{text}"}}"#);
    let side = |last: &str| [turn("user", "q"), turn("assistant", last), turn("user", "r"), turn("assistant", "z")];
    let row = format!(r#"{{"chosen": [{}], "rejected": [{}]}}"#, side("a").join(","), side("b").join(","));
    let (pairs, _) = read("a.jsonl", &row);
    assert_eq!(pairs[0].prompt, messages(&[("user", "q")]));
    assert_eq!(pairs[0].chosen, messages(&[("assistant", "a"), ("user", "r"), ("assistant", "z")]));
}

#[test]
fn long_columns_come_in_batches_far_from_arrows_limit() {
    let long = "a".repeat(30 << 20);
    let rows = 5;
    let text =
        |last: &str| -> ArrayRef { Arc::new(LargeStringArray::from_iter_values(vec![format!("{long}{last}"); rows])) };
    let short: ArrayRef = Arc::new(LargeStringArray::from_iter_values(vec!["q"; rows]));
    let columns = [("prompt", short), ("chosen", text("b")), ("rejected", text("c"))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let (_dir, path) = file("a.arrow", "");
    let mut writer = FileWriter::try_new(std::fs::File::create(&path).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let batches: Vec<usize> =
        PairReader::open(&path, &ReadOptions::default()).unwrap().map(|batch| batch.unwrap().num_rows()).collect();
    assert_eq!(batches, [2, 2, 1], "a batch closes at 64 MiB of text");
}

#[test]
fn compressed_arrow_is_read_as_pandas_writes_it() {
    let long = "word ".repeat(500);
    let column = |text: &str| -> ArrayRef { Arc::new(LargeStringArray::from(vec![format!("{long}{text}"); 20])) };
    let columns = [("prompt", column("q")), ("chosen", column("a")), ("rejected", column("b"))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    for compression in [CompressionType::LZ4_FRAME, CompressionType::ZSTD] {
        for stream in [false, true] {
            let bytes = arrow_bytes(&batch, compression, stream);
            assert!(bytes.len() < 20 * long.len(), "{compression:?}");
            let (_dir, path) = file("a.feather", bytes);
            let pairs = read_pairs(&path, &ReadOptions::default()).unwrap();
            assert_eq!((pairs.len(), &pairs[19].rejected), (20, &Text::Plain(format!("{long}b"))));
        }
    }
}

#[test]
fn rewards_of_the_reference_are_read_from_every_container_and_written_back() {
    let dir = tempfile::tempdir().unwrap();
    // The columns of QRPO's published sets; items that are no numbers are left out and counted, an empty list is none.
    let rows = [
        r#"{"prompt": "a", "chosen": "x", "rejected": "y", "chosen_rewards": 2.5, "rejected_rewards": 1, "ref_rewards": [1, 0.5, "2", null]}"#,
        r#"{"prompt": "b", "chosen": "x", "rejected": "y", "ref_rewards": []}"#,
        r#"{"prompt": "c", "chosen": "x", "rejected": "y", "ref_rewards": 3}"#,
        r#"{"prompt": "d", "chosen": "x", "rejected": "y"}"#,
    ];
    let path = dir.path().join("rows.jsonl");
    std::fs::write(&path, rows.join("\n")).unwrap();
    let (pairs, report) = read_pairs_with_report(&path, &ReadOptions::default()).unwrap();
    let rewards: Vec<&[f64]> = pairs.iter().map(|pair| &pair.ref_rewards[..]).collect();
    assert_eq!(rewards, [&[1.0, 0.5, 2.0][..], &[], &[], &[]]);
    assert_eq!((pairs[0].score_chosen, pairs[0].score_rejected), (Some(2.5), Some(1.0)));
    assert_eq!(report.unread_scores, 2, "the null in the list, and the number in place of one");

    // In messages too, where JSON has them in later rows alone.
    let late: Vec<String> =
        (0..400).map(|i| format!(r#"{{"prompt": "p{i}", "chosen": "x", "rejected": "y"}}"#)).collect();
    let late = format!("{}\n{}", late.join("\n"), rows[0]);
    for (form, text) in [
        (None, rows.join("\n")),
        (Some(Form::Messages), rows.join("\n")),
        (None, late.clone()),
        (Some(Form::Messages), late),
    ] {
        std::fs::write(&path, text).unwrap();
        let mut options = ReadOptions::default();
        options.form = form;
        let read = |path: &std::path::Path| read_pairs(path, &options).unwrap();
        let pairs = read(&path);
        for name in ["pairs.parquet", "pairs.arrow", "pairs.jsonl"] {
            let written = dir.path().join(name);
            let mut reader = PairReader::open(&path, &options).unwrap();
            let mut writer = PairWriter::create(&written, &WriteOptions::default()).unwrap();
            reader.by_ref().for_each(|batch| writer.write_batch(&batch.unwrap()).unwrap());
            assert_eq!(writer.finish().unwrap(), pairs.len() as u64);
            assert_eq!(read(&written), pairs, "{name}");
            let mut writer = PairWriter::create(&written, &WriteOptions::default()).unwrap();
            writer.write_pairs(&pairs).unwrap();
            writer.finish().unwrap();
            assert_eq!(read(&written), pairs, "{name}");
            assert!(
                !PairReader::open(&written, &options)
                    .unwrap()
                    .schema()
                    .fields()
                    .iter()
                    .any(|field| field.name().starts_with("original"))
            );
        }
    }
    assert!(pairs.iter().any(|pair| !pair.ref_rewards.is_empty()));

    // Rewards that come after the columns are settled are no loss in silence.
    let mut writer = PairWriter::create(dir.path().join("late.parquet"), &WriteOptions::default()).unwrap();
    writer.write_pairs(&pairs[3..]).unwrap();
    let error = writer.write_pairs(&pairs[..1]).unwrap_err().to_string();
    assert!(error.contains("`ref_rewards`") && error.contains("which the first pairs do not have"), "{error}");
}

/// Five rows, the second without a chosen text.
fn five_rows(path: &std::path::Path) {
    let row = |i: usize| {
        let chosen = if i == 1 { String::new() } else { format!("c{i}") };
        serde_json::json!({"prompt": format!("p{i}"), "chosen": chosen, "rejected": "r"}).to_string() + "\n"
    };
    std::fs::write(path, (0..5).map(row).collect::<String>()).unwrap();
}

#[test]
fn chosen_pairs_are_numbered_among_the_usable_ones_and_all_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.jsonl");
    five_rows(&path);
    let mut reader = PairReader::open(&path, &ReadOptions::default()).unwrap();
    assert_eq!(reader.declared_pairs().unwrap(), None, "JSON does not tell");
    reader.keep_only(|number| number % 2 == 1);
    let batches: Vec<_> = reader.by_ref().map(Result::unwrap).collect();
    let kept: Vec<_> = batches.iter().flat_map(|batch| schema::pairs_from_batch(batch).unwrap()).collect();
    assert_eq!(kept.iter().map(|pair| pair.chosen.clone()).collect::<Vec<_>>(), ["c2".into(), "c4".into()]);
    assert_eq!((reader.report().rows, reader.report().pairs), (5, 4));
}

#[test]
fn parquet_declares_its_pairs_and_a_format_of_several_a_row_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let (lines, path) = (dir.path().join("a.jsonl"), dir.path().join("a.parquet"));
    five_rows(&lines);
    let mut writer = PairWriter::create(&path, &WriteOptions::default()).unwrap();
    writer.write_pairs(&read_pairs(&lines, &ReadOptions::default()).unwrap()).unwrap();
    writer.finish().unwrap();
    let reader = PairReader::open(&path, &ReadOptions::default()).unwrap();
    assert_eq!(reader.declared_pairs().unwrap(), Some(4));
}
