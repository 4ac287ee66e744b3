//! Several servers that share the requests of a collection, of unequal speed, failing, dying and coming back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use simplemix_data::{Unwatched, Watch};
use simplemix_rollout::{
    CandidateSink, Error, GenerateReport, GenerateSettings, Generator, Job, Prompt, PromptSettings, Result, Sampled,
    SamplingConfig, ServerGenerator, ServerSettings, Servers, SeveralServers, generate,
};

use super::Told;
use super::support::{Does, Mock, REASONS, Seen, echo, faulty};

/// Prompts and samples of each.
const PROMPTS: usize = 40;
const SAMPLES: usize = 3;
const ALL: usize = PROMPTS * SAMPLES;

/// Short waits.
fn settings(mock: &Mock) -> ServerSettings {
    ServerSettings { retries: 2, ..super::settings(mock) }
}

fn sampled(dir: &Path, model: &mut dyn Generator, watch: &mut dyn Watch) -> Result<GenerateReport> {
    let prompts: String =
        (0..PROMPTS).map(|i| format!("{{\"id\": \"p{i}\", \"prompt\": \"question {i}\"}}\n")).collect();
    std::fs::write(dir.join("prompts.jsonl"), prompts).unwrap();
    let settings = GenerateSettings {
        prompts: PromptSettings { files: vec![dir.join("prompts.jsonl")], messages: true, ..PromptSettings::default() },
        sampling: SamplingConfig { samples: SAMPLES, seed: 5, max_new_tokens: 16, ..SamplingConfig::simplemix() },
        output: dir.join("candidates.parquet"),
        overwrite: false,
        share: None,
    };
    generate(&settings, model, watch)
}

fn run(dir: &Path, servers: &[ServerSettings], watch: &mut dyn Watch) -> Result<GenerateReport> {
    sampled(dir, &mut SeveralServers::new(&Servers::from(servers.to_vec()))?, watch)
}

fn bytes(dir: &Path) -> Vec<u8> {
    std::fs::read(dir.join("candidates.parquet")).unwrap()
}

/// The file that one server without a fault gives.
fn expected() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    sampled(dir.path(), &mut ServerGenerator::new(settings(&Mock::start(echo))).unwrap(), &mut Unwatched).unwrap();
    bytes(dir.path())
}

/// Whether a request is one for a sample.
fn is_sample(seen: &Seen) -> bool {
    seen.body["seed"].is_u64()
}

/// Seeds of the samples that a server was asked for, in order.
fn seeds(mock: &Mock) -> Vec<u64> {
    mock.seen().iter().filter_map(|seen| seen.body["seed"].as_u64()).collect()
}

fn counts(report: &GenerateReport, mocks: &[&Mock]) -> Vec<u64> {
    let known: BTreeMap<String, u64> = report.servers.clone();
    mocks.iter().map(|mock| known.get(&mock.url()).copied().unwrap_or_default()).collect()
}

#[test]
fn unequal_servers_share_the_requests_and_write_the_file_of_one() {
    let slow = |millis| move |seen: &Seen| Does::Waits(Duration::from_millis(millis), Box::new(echo(seen)));
    let mocks = [Mock::start(slow(2)), Mock::start(slow(20)), Mock::start(slow(80))];
    let dir = tempfile::tempdir().unwrap();
    let report = run(dir.path(), &mocks.each_ref().map(settings), &mut Unwatched).unwrap();
    let counts = counts(&report, &mocks.each_ref());
    assert_eq!(counts, mocks.each_ref().map(|mock| seeds(mock).len() as u64));
    assert_eq!((counts.iter().sum::<u64>(), report.candidates), (ALL as u64, ALL as u64));
    assert!(counts[0] > 2 * counts[1] && counts[1] > counts[2] && counts[2] > 0, "{counts:?}");
    let asked: BTreeSet<u64> = mocks.iter().flat_map(seeds).collect();
    assert_eq!(asked.len(), ALL, "no request was sent twice");
    assert!(bytes(dir.path()) == expected());
    assert!(report.failed.is_empty() && report.notices.is_empty(), "{report:?}");
    // With the file there, its report alone is read.
    let again = run(dir.path(), &[settings(&mocks[0])], &mut Unwatched).unwrap();
    assert_eq!((again.candidates, seeds(&mocks[0]).len() as u64), (ALL as u64, counts[0]));
}

#[test]
fn what_a_server_that_dies_had_not_done_goes_to_the_others() {
    let dying = Mock::start(|seen| match seen.number {
        0..12 => Does::Waits(Duration::from_millis(2), Box::new(echo(seen))),
        _ => Does::HangsUp,
    });
    let other = Mock::start(|seen| Does::Waits(Duration::from_millis(4), Box::new(echo(seen))));
    let dir = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let report = run(dir.path(), &[settings(&dying), settings(&other)], &mut told).unwrap();
    assert!(bytes(dir.path()) == expected());
    let counts = counts(&report, &[&dying, &other]);
    assert!(counts[0] > 0 && counts[0] <= 12 && counts[0] + counts[1] == ALL as u64, "{counts:?}");
    let asked = seeds(&other);
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), asked.len(), "the other was asked once for each");
    assert!(report.failed["connection"] >= 3, "{:?}", report.failed);
    let aside: Vec<&String> = told.0.iter().filter(|text| text.contains("set aside")).collect();
    assert!(
        aside.len() == 1 && aside[0].contains(&dying.url()) && aside[0].contains("tried again later"),
        "{told:?}",
        told = told.0
    );
    assert!(report.notices.contains(aside[0]));
}

#[test]
fn a_server_that_comes_back_gets_requests_again() {
    let is_away = Arc::new(AtomicBool::new(true));
    let away = is_away.clone();
    let flaky = Mock::start(move |seen| match away.load(Ordering::SeqCst) {
        true => Does::Sends(503, vec![], "loading".to_owned()),
        false => echo(seen),
    });
    let back = is_away.clone();
    let other = Mock::start(move |seen| {
        if seen.number > 20 {
            back.store(false, Ordering::SeqCst);
        }
        Does::Waits(Duration::from_millis(10), Box::new(echo(seen)))
    });
    let dir = tempfile::tempdir().unwrap();
    let mut told = Told::default();
    let report = run(dir.path(), &[settings(&flaky), settings(&other)], &mut told).unwrap();
    assert!(bytes(dir.path()) == expected());
    assert!(counts(&report, &[&flaky])[0] > 0, "{report:?}");
    let of = |word: &str| told.0.iter().filter(|text| text.contains(word)).count();
    assert_eq!((of("set aside"), of("does well again")), (1, 1), "{:?}", told.0);
}

#[test]
fn a_server_that_hangs_is_given_up_after_the_time_limit() {
    let hanging = Mock::start(|seen| match seen.number {
        0..8 => echo(seen),
        _ => Does::Waits(Duration::from_secs(60), Box::new(echo(seen))),
    });
    let other = Mock::start(|seen| Does::Waits(Duration::from_millis(2), Box::new(echo(seen))));
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let limited = |mock| ServerSettings { timeout_secs: 1.0, ..settings(mock) };
    let report = run(dir.path(), &[limited(&hanging), limited(&other)], &mut Unwatched).unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(bytes(dir.path()) == expected());
    assert!(report.failed["timeout"] >= 3, "{:?}", report.failed);
}

/// Counts what is kept.
#[derive(Default)]
struct Kept(Vec<(u64, usize)>);

impl CandidateSink for Kept {
    fn keep(&mut self, sampled: Vec<Sampled>) -> Result<()> {
        self.0.extend(sampled.iter().map(|sampled| (sampled.index, sampled.sample)));
        Ok(())
    }
}

/// Some responses of a server come after it was set aside and its requests went to the other one.
#[test]
fn a_response_that_comes_late_is_kept_once() {
    let late = Mock::start(|seen| match seen.number {
        _ if !is_sample(seen) => echo(seen),
        number if number % 2 == 0 => Does::Waits(Duration::from_millis(60), Box::new(echo(seen))),
        _ => Does::Sends(500, vec![], String::new()),
    });
    let other = Mock::start(|seen| Does::Waits(Duration::from_millis(10), Box::new(echo(seen))));
    let prompts = (0..PROMPTS).map(|i| Prompt::new(format!("p{i}"), format!("question {i}").as_str()));
    let mut jobs =
        prompts.enumerate().map(|(i, prompt)| Ok(Job { index: i as u64, prompt, samples: (0..SAMPLES).collect() }));
    let with = |mock: &Mock| ServerSettings { retries: 1, concurrency: 16, ..settings(mock) };
    let mut model = SeveralServers::new(&Servers::from(vec![with(&late), with(&other)])).unwrap();
    let mut kept = Kept::default();
    model.sample(&mut jobs, &SamplingConfig { samples: SAMPLES, ..SamplingConfig::simplemix() }, &mut kept).unwrap();
    let distinct: BTreeSet<_> = kept.0.iter().collect();
    assert_eq!((kept.0.len(), distinct.len()), (ALL, ALL));
    let sent = seeds(&late).into_iter().chain(seeds(&other)).count();
    assert!(sent > ALL, "{sent} requests: some were sent to both");
}

/// Another server, at another address, goes on where all have failed.
#[test]
fn the_work_ends_once_all_servers_have_failed_and_another_one_continues_it() {
    let dies = |after: usize| {
        move |seen: &Seen| {
            if seen.number < after { echo(seen) } else { Does::Sends(500, vec![], "out of memory".to_owned()) }
        }
    };
    let mocks = [Mock::start(dies(15)), Mock::start(dies(25))];
    let dir = tempfile::tempdir().unwrap();
    let error = run(dir.path(), &mocks.each_ref().map(settings), &mut Unwatched).unwrap_err();
    assert!(matches!(error, Error::Servers { .. }), "{error}");
    let message = error.to_string();
    assert!(message.starts_with("all 2 servers have failed: ") && message.contains("the same command"), "{message}");
    assert!(
        mocks.iter().all(|mock| message.contains(&format!("{}: status 500: out of memory", mock.url()))),
        "{message}"
    );
    assert!(!dir.path().join("candidates.parquet").exists());
    let journal = std::fs::read_to_string(dir.path().join(".candidates.parquet.partial")).unwrap();
    let done = journal.lines().filter(|line| line.starts_with('[')).count();
    assert!((20..40).contains(&done), "{done} done");
    let third = Mock::start(echo);
    let report = run(dir.path(), &[settings(&third), settings(&mocks[0])], &mut Unwatched).unwrap();
    assert_eq!(seeds(&third).len(), ALL - done);
    assert_eq!(report.servers.values().sum::<u64>(), ALL as u64, "those of the first call too: {report:?}");
    assert_eq!(report.servers.len(), 3);
    assert!(bytes(dir.path()) == expected());
}

#[test]
fn a_fifth_of_all_replies_may_be_faulty() {
    // Every fault but a reply that is late, which takes its time.
    let fault = |seen: &Seen| match seen.number % 5 {
        0 if is_sample(seen) && seen.number / 5 % 12 != 9 => seen.number / 5 % 12,
        _ => 12,
    };
    let mocks = [(); 3].map(|()| Mock::start(move |seen| faulty(fault(seen), seen)));
    let dir = tempfile::tempdir().unwrap();
    let patient = |mock| ServerSettings { retries: 8, max_reply_bytes: 5 << 18, ..settings(mock) };
    let report = run(dir.path(), &mocks.each_ref().map(patient), &mut Unwatched).unwrap();
    assert!(bytes(dir.path()) == expected());
    let mut failed = BTreeMap::new();
    for reason in mocks.iter().flat_map(Mock::seen).filter_map(|seen| REASONS.get(fault(&seen)).copied()) {
        *failed.entry(reason.to_owned()).or_default() += 1;
    }
    assert_eq!(report.failed, failed);
    assert!(failed.values().sum::<u64>() > ALL as u64 / 8, "{failed:?}");
}

#[test]
fn a_rate_limit_of_one_server_does_not_stop_the_others() {
    let limited =
        Mock::start(|_| Does::Sends(429, vec![("retry-after", "30".to_owned())], r#"{"error": "slow"}"#.to_owned()));
    let other = Mock::start(echo);
    let dir = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let with = |mock| ServerSettings { max_wait_secs: 60.0, ..settings(mock) };
    let report = run(dir.path(), &[with(&limited), with(&other)], &mut Unwatched).unwrap();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(counts(&report, &[&limited, &other]), [0, ALL as u64]);
    assert!(limited.seen().len() <= 4, "{} requests in spite of the limit", limited.seen().len());
    assert!(report.notices.is_empty(), "a limit is no failure: {:?}", report.notices);
}

/// A key that one server refuses does not end the work; a prompt that is refused does, since no server takes it.
#[test]
fn refusals_of_a_server_are_told_from_those_of_a_prompt() {
    let refusing = || Mock::start(|_| Does::Sends(401, vec![], "no such key".to_owned()));
    let (first, other) = (refusing(), Mock::start(echo));
    let dir = tempfile::tempdir().unwrap();
    let report = run(dir.path(), &[settings(&first), settings(&other)], &mut Unwatched).unwrap();
    assert_eq!(counts(&report, &[&other]), [ALL as u64]);
    assert!(report.notices[0].contains("status 401: no such key; set aside"), "{:?}", report.notices);

    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (refusing(), refusing());
    let patient = |mock| ServerSettings { retries: 8, max_wait_secs: 60.0, ..settings(mock) };
    let error = run(dir.path(), &[patient(&first), patient(&second)], &mut Unwatched).unwrap_err().to_string();
    assert!(error.starts_with("all 2 servers have failed") && error.contains("status 401: no such key"), "{error}");

    let long = || {
        Mock::start(|seen| match (is_sample(seen), seen.prompt().as_str()) {
            (true, "question 3") => Does::Sends(400, vec![], "too long".to_owned()),
            _ => echo(seen),
        })
    };
    let (first, second) = (long(), long());
    let error = run(dir.path(), &[settings(&first), settings(&second)], &mut Unwatched).unwrap_err().to_string();
    assert!(error.contains("prompt `p3`: status 400: too long"), "{error}");
}

/// A prompt at which every server fails ends the work, also while they do well with the others.
#[test]
fn a_request_that_fails_everywhere_ends_the_work() {
    let poisoned = || {
        Mock::start(|seen| match (is_sample(seen), seen.prompt().as_str()) {
            (true, "question 3") => Does::Sends(500, vec![], "crashed".to_owned()),
            _ => Does::Waits(Duration::from_millis(3), Box::new(echo(seen))),
        })
    };
    let (first, second) = (poisoned(), poisoned());
    let dir = tempfile::tempdir().unwrap();
    let with = |mock| ServerSettings { retries: 6, ..settings(mock) };
    let error = run(dir.path(), &[with(&first), with(&second)], &mut Unwatched).unwrap_err().to_string();
    assert!(error.contains("status 500: crashed"), "{error}");
}

#[test]
fn servers_with_other_models_are_refused() {
    let model = |name: &'static str, ids: &'static [u32]| {
        Mock::start(move |seen| match seen.path.as_str() {
            "/v1/models" => Does::Answers(name.to_owned()),
            "/tokenize" => Does::Sends(200, vec![], json!({ "tokens": ids }).to_string()),
            _ => echo(seen),
        })
    };
    let unnamed = |mock: &Mock| ServerSettings { model: None, ..settings(mock) };
    let refused = |first: &Mock, other: &Mock| {
        let dir = tempfile::tempdir().unwrap();
        let error = run(dir.path(), &[unnamed(first), unnamed(other)], &mut Unwatched).unwrap_err();
        assert!(error.is_input(), "{error}");
        assert_eq!(seeds(first).len() + seeds(other).len(), 0, "before any sample");
        error.to_string()
    };
    let slow = |mock: &Mock| mock.url();
    let first = model("m", &[1, 2, 3]);
    let other = model("n", &[1, 2, 3]);
    let message = refused(&first, &other);
    assert!(message.contains(&format!("{} with the model n, beside one with the model m", slow(&other))), "{message}");
    let other = model("m", &[1, 7, 3]);
    let message = refused(&first, &other);
    assert!(
        message.contains("read prompt `p0` differently: token 1 is id") && message.contains("id 7 at"),
        "{message}"
    );
    let dir = tempfile::tempdir().unwrap();
    let report = run(dir.path(), &[unnamed(&first), unnamed(&model("m", &[1, 2, 3]))], &mut Unwatched).unwrap();
    assert_eq!(report.candidates, ALL as u64);
}
