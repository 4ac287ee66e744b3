//! A run does what its settings say, or says what it does instead.

use super::*;
use simplemix_data::{PairWriter, Unwatched, WriteOptions};
use simplemix_mix::SHARES_KEY;
use simplemix_train::Error;

fn run_of(config: TrainConfig, pairs: &[Pair]) -> Run {
    let model = config.model.clone().unwrap();
    Run::with_pairs(config, &model, pairs, &[]).unwrap()
}

fn refused(config: TrainConfig, pairs: &[Pair]) -> String {
    let model = config.model.clone().unwrap();
    Run::with_pairs(config, &model, pairs, &[]).unwrap_err().to_string()
}

fn losses(finished: &Finished) -> Vec<f64> {
    finished.records().unwrap().iter().filter_map(|record| record.get("loss")).collect()
}

#[test]
fn an_epoch_is_every_pair_once_and_the_last_loss_a_mean_over_its_own_pairs() {
    let dir = Dir::new();
    // A rate that moves nothing but rounding errors of zero weights.
    let still = "objective = 'sft'\noptimizer.learning_rate = 1e-12\n";
    let config = |output: &str, batch: usize| dir.with(output, &format!("{still}batch.batch_size = {batch}"));
    let all = pairs(15);
    let whole = run_of(config("whole", 8), &all);
    assert_eq!((whole.settings().steps, whole.pairs_per_epoch()), (2, 15));
    let whole = whole.start(Resume::No, &mut Unwatched).unwrap();
    let rest = run_of(config("rest", 7), &all[8..]).start(Resume::No, &mut Unwatched).unwrap();
    let (whole, rest) = (losses(&whole), losses(&rest));
    assert_eq!((whole.len(), rest.len()), (2, 1));
    assert!((whole[1] - rest[0]).abs() < 1e-5, "{whole:?} {rest:?}");
}

#[test]
fn fewer_pairs_than_a_batch_are_one_update_an_epoch_and_a_notice() {
    let dir = Dir::new();
    let run = run_of(dir.with("few", "epochs = 2"), &pairs(3));
    assert_eq!((run.settings().steps, run.notices().len()), (2, 1));
    assert!(run.notices()[0].starts_with("3 pairs are fewer than `batch.batch_size`, 8"), "{:?}", run.notices());
    let finished = run.start(Resume::No, &mut Unwatched).unwrap();
    assert_eq!(finished.records().unwrap()[1].get("epoch"), Some(2.0));
    assert_eq!(finished.folder.notices().unwrap().len(), 1);
}

#[test]
fn a_run_without_a_learning_rate_does_not_start() {
    let dir = Dir::new();
    let error = refused(dir.with("run", "max_steps = 1\noptimizer.warmup_ratio = 0.1"), &pairs(8));
    let expected = "`optimizer.warmup_ratio` is a warm-up over 1 of 1 updates, whose learning rates are all 0, expected 0, \
                    or more updates";
    assert_eq!(error, expected);
    let frozen = "optimizer.parameter_groups = [{ names = ['*'], learning_rate_factor = 0 }]";
    let error = refused(dir.with("run", frozen), &pairs(8));
    assert!(error.starts_with("`optimizer.parameter_groups.learning_rate_factor` is 0 for every"), "{error}");
}

#[test]
fn a_run_that_changed_no_weight_fails_and_saves_no_model() {
    let dir = Dir::new();
    let run = run_of(dir.with("run", "optimizer.learning_rate = 1e-60"), &pairs(8));
    let error = run.start(Resume::No, &mut Unwatched).unwrap_err();
    assert!(matches!(error, Error::NothingTrained { updates: 1 }), "{error}");
    assert!(!dir.path("run").join("model").exists());
}

#[test]
fn weights_that_still_round_to_their_first_values_are_a_notice() {
    let dir = Dir::new();
    let notices = |output: &str, rate: f64| {
        let text = format!("dtype = 'bfloat16'\noptimizer.learning_rate = {rate:e}");
        let finished = run_of(dir.with(output, &text), &pairs(8)).start(Resume::No, &mut Unwatched).unwrap();
        finished.folder.notices().unwrap()
    };
    let small = notices("small", 1e-11);
    assert!(small.iter().any(|text| text.contains("too small for half precision")), "{small:?}");
    assert_eq!(notices("large", 1e-2), [""; 0]);
}

#[test]
fn a_resumed_run_is_the_same_run() {
    let dir = Dir::new();
    let start = |config: TrainConfig, all: &[Pair], resume: Resume, stop: u64| {
        let model = config.model.clone().unwrap();
        Run::with_pairs(config, &model, all, &[])?.start(resume, &mut StopAt(stop, Cell::new(0)))
    };
    let all = pairs(24);
    start(dir.config("run"), &all, Resume::No, 1).unwrap();
    let refused = |config: TrainConfig, all: &[Pair]| match start(config, all, Resume::Yes, 1) {
        Err(Error::Differs { differences, .. }) => differences,
        other => panic!("{other:?}"),
    };
    for (text, expected) in [
        ("batch.batch_size = 4", "`batch.batch_size` was 8 and is 4"),
        ("optimizer.learning_rate = 2e-3", "`optimizer.learning_rate` was 0.001 and is 0.002"),
        ("seed = 7", "`seed` was 42 and is 7"),
        ("loss.beta = 0.2", "`loss.beta` was 0.1 and is 0.2"),
    ] {
        assert_eq!(refused(dir.with("run", text), &all), expected);
    }
    let mut changed = all.clone();
    changed[3] = Pair::new(all[3].prompt.clone(), all[4].chosen.clone(), all[3].rejected.clone(), "off", Policy::Off);
    assert_eq!(refused(dir.config("run"), &changed), "the content of the training pairs has changed");
    tiny::write_folder(&dir.path("other"), 2).unwrap();
    let other = TrainConfig { model: Some(dir.path("other")), ..dir.config("run") };
    assert_eq!(refused(other.clone(), &all), "the content of the model has changed");

    // Settings that cannot change an update may change, and so may their number.
    let free =
        "epochs = 2\nbatch.micro_batch_tokens = 77\nmemory.activation_checkpointing = true\nlog.token_metrics = false";
    assert_eq!(start(dir.with("run", free), &all, Resume::Yes, 4).unwrap().outcome, Outcome::Stopped);
    let finished = start(dir.with("run", free), &changed, Resume::Anyway, u64::MAX).unwrap();
    assert_eq!(finished.outcome, Outcome::Finished);
    let notices = finished.folder.notices().unwrap();
    assert!(notices[0].ends_with("the content of the training pairs has changed"), "{notices:?}");

    // A finished run stays as it is.
    let weights = || std::fs::read(dir.path("run").join("model/model.safetensors")).unwrap();
    let before = weights();
    let again = start(dir.with("run", free), &changed, Resume::Yes, u64::MAX).unwrap();
    assert_eq!(
        (again.outcome, again.records().unwrap().len(), weights() == before),
        (Outcome::FinishedBefore, 0, true)
    );
    let further = start(dir.with("run", "epochs = 3"), &changed, Resume::Yes, u64::MAX).unwrap();
    assert_eq!((further.outcome, weights() == before), (Outcome::Finished, false));
}

#[test]
fn a_run_goes_on_from_the_newest_whole_checkpoint() {
    let dir = Dir::new();
    let all = pairs(24);
    let start = |output: &str, resume: Resume, stop: u64| {
        let text = "epochs = 2\ncheckpoint = { save_every_steps = 1, keep = 4 }";
        run_of(dir.with(output, text), &all).start(resume, &mut StopAt(stop, Cell::new(0)))
    };
    let weights = |output: &str| std::fs::read(dir.path(output).join("model/model.safetensors")).unwrap();
    start("whole", Resume::No, u64::MAX).unwrap();
    start("run", Resume::No, 4).unwrap();
    let at = |step: u64, file: &str| dir.path("run/checkpoints").join(format!("step-{step}")).join(file);
    let zeros = vec![0; std::fs::metadata(at(4, "model.safetensors")).unwrap().len() as usize];
    std::fs::write(at(4, "model.safetensors"), zeros).unwrap();
    std::fs::write(at(3, "progress.json"), "").unwrap();

    let finished = start("run", Resume::Yes, u64::MAX).unwrap();
    assert_eq!(finished.records().unwrap()[0].step, 3);
    assert!(weights("run") == weights("whole"));
    let notices = finished.folder.notices().unwrap();
    assert!(
        notices[0].contains("step-4/model.safetensors: damaged: its content is not what was written"),
        "{notices:?}"
    );
    assert!(notices[0].ends_with("kept as step-4.damaged, and the run goes on after update 2"), "{notices:?}");
    assert!(notices[1].contains("step-3/progress.json: damaged: it has 0 bytes, expected "), "{notices:?}");
    assert!(dir.path("run/checkpoints/step-4.damaged/model.safetensors").exists());
    assert_eq!(finished.folder.checkpoints().unwrap(), [2, 3, 4, 5]);

    // A run never starts anew in silence.
    start("lost", Resume::No, 1).unwrap();
    std::fs::remove_file(dir.path("lost/checkpoints/step-1/optimizer.safetensors")).unwrap();
    let error = start("lost", Resume::Yes, u64::MAX).unwrap_err();
    assert!(error.to_string().contains("no checkpoint is whole: "), "{error}");
    assert!(error.to_string().contains("optimizer.safetensors: damaged: it is missing; "), "{error}");
    assert!(dir.path("lost/checkpoints/step-1").exists());
}

#[test]
fn pairs_that_are_left_out_move_the_shares_and_that_is_said() {
    let dir = Dir::new();
    let mut all = pairs(12);
    for pair in all.iter_mut().filter(|pair| pair.source == "on") {
        pair.prompt = Text::Messages(vec![Message::user("word ".repeat(200))]);
    }
    let run = run_of(dir.with("run", "tokens.max_length = 64"), &all);
    let notice = run.notices().iter().find(|text| text.contains("moves the shares")).unwrap();
    assert!(notice.contains("4 of 12 pairs are left out"), "{notice}");
    assert!(notice.contains("off 0.6667 -> 1.0000, on 0.3333 -> 0.0000"), "{notice}");
    // A mixed file says what was asked for.
    let path = dir.path("mixed.parquet");
    let mut writer = PairWriter::create(&path, &WriteOptions::default()).unwrap();
    writer.write_pairs(&all).unwrap();
    writer.add_metadata(SHARES_KEY, r#"{"off":0.4,"on":0.6}"#);
    writer.finish().unwrap();
    let prepared = |length: usize| {
        let text = format!("tokens = {{ max_length = {length}, cache = false }}");
        Run::prepare(TrainConfig { train: Some(path.clone()), ..dir.with("run", &text) }).unwrap()
    };
    let run = prepared(64);
    let notice = run.notices().iter().find(|text| text.contains("moves the shares")).unwrap();
    assert!(notice.contains("off 0.6667 -> 1.0000 (asked 0.4000), on 0.3333 -> 0.0000 (asked 0.6000)"), "{notice}");
    let run = prepared(2048);
    let notice = run.notices().iter().find(|text| text.contains("not those that were asked for")).unwrap();
    assert!(notice.ends_with("off 0.6667 (asked 0.4000), on 0.3333 (asked 0.6000)"), "{notice}");
}

#[test]
fn text_is_trained_as_it_stands_unless_it_is_to_be_messages() {
    let dir = Dir::new();
    let line = r#"{"prompt": "Two and two?", "chosen": " Four.", "rejected": " Five."}"#;
    std::fs::create_dir(dir.path("shards")).unwrap();
    for (name, lines) in [("a.jsonl", 3), ("b.jsonl", 5)] {
        std::fs::write(dir.path("shards").join(name), format!("{line}\n").repeat(lines)).unwrap();
    }
    let prepared = |text: &str, train: &str| {
        let config = TrainConfig { train: Some(dir.path(train)), ..dir.with("run", text) };
        Run::prepare(config).unwrap()
    };
    let plain = prepared("tokens.cache = false", "shards");
    assert_eq!(plain.train.len(), 8, "all files of the folder");
    assert_eq!(prepared("tokens.cache = false", "shards/*.jsonl").train.len(), 8);
    assert!(plain.notices()[0].contains("8 pairs are plain text"), "{:?}", plain.notices());
    let messages = prepared("tokens = { cache = false, messages = true }", "shards");
    assert_eq!(messages.notices(), [""; 0]);
    assert!(messages.train.tokens() > plain.train.tokens());
}

#[test]
fn rows_that_are_refused_are_counted() {
    let dir = Dir::new();
    let pairs = "{\"prompt\": \"a\", \"chosen\": \" b\", \"rejected\": \" c\"}\n";
    let odd = "{\"prompt\": \"a\", \"chosen\": \" b\", \"rejected\": null}\n";
    std::fs::write(dir.path("pairs.jsonl"), pairs.repeat(5) + odd).unwrap();
    let run = Run::prepare(TrainConfig { train: Some(dir.path("pairs.jsonl")), ..dir.config("run") }).unwrap();
    let notice = run.notices().iter().find(|text| text.contains("pairs.jsonl: 6 rows read; 1 ")).cloned();
    assert!(notice.is_some(), "{:?}", run.notices());
}

#[test]
fn evaluations_and_checkpoints_may_be_due_after_each_epoch() {
    let dir = Dir::new();
    let config = |output: &str, eval: &str| {
        let text = format!("epochs = 3\n[checkpoint]\nsave_every_epoch = true\nkeep = 9\n[eval]\n{eval}\n");
        dir.with(output, &text)
    };
    let evaluated = |output: &str, eval: &str| {
        let (model, held_out) = (dir.model(), pairs(4));
        let run = Run::with_pairs(config(output, eval), &model, &pairs(12), &held_out).unwrap();
        let finished = run.start(Resume::No, &mut Unwatched).unwrap();
        assert_eq!(finished.folder.checkpoints().unwrap(), [2, 4]);
        let is_evaluation = |record: &&Record| record.get("eval_loss").is_some();
        finished.records().unwrap().iter().filter(is_evaluation).map(|record| record.step).collect::<Vec<_>>()
    };
    assert_eq!(evaluated("each", "eval_every_epoch = true"), [2, 4, 6]);
    assert_eq!(evaluated("never", "eval_at_end = false"), [0; 0]);
    let error = refused(dir.with("best", "eval.best_metric = 'eval_loss'"), &pairs(8));
    assert!(error.starts_with("`eval.best_metric` is set, expected held-out pairs"), "{error}");
}

#[test]
fn a_template_sees_one_date_in_the_whole_run() {
    let dir = Dir::new();
    let template = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    std::fs::write(dir.model().join("chat_template.jinja"), template).unwrap();
    let run = run_of(dir.config("today"), &pairs(8));
    let date = run.config().tokens.template_date.clone().unwrap();
    assert!(run.notices().iter().any(|text| text.contains(&date)), "{:?}", run.notices());
    let dated = |output: &str, date: &str| dir.with(output, &format!("tokens.template_date = '{date}'"));
    let run = run_of(dated("run", "2024-02-29"), &pairs(8));
    run.start(Resume::No, &mut StopAt(0, Cell::new(0))).unwrap();
    // Without a date in the settings, the run in the folder has one.
    assert_eq!(run_of(dir.config("run"), &pairs(8)).config().tokens.template_date.as_deref(), Some("2024-02-29"));
    let other =
        run_of(dated("run", "2024-03-01"), &pairs(8)).start(Resume::Yes, &mut Unwatched).unwrap_err().to_string();
    assert!(other.contains("`tokens.template_date` was \"2024-02-29\" and is \"2024-03-01\""), "{other}");
    assert!(refused(dated("run", "yesterday"), &pairs(8)).contains("`tokens.template_date` is `yesterday`"));
}
