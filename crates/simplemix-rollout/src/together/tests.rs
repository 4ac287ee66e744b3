use std::path::Path;
use std::sync::{Arc, Barrier, Mutex};

use simplemix_data::Unwatched;

use super::*;
use crate::generator::{Candidate, CandidateSink, Sampled};
use crate::groups::in_groups;
use crate::scorer::{Batched, ScoreSink, Scorer};
use crate::{Finish, GenerateReport, GenerateSettings, PromptSettings, generate};

/// Threads as processes.
struct Threads {
    rank: usize,
    size: usize,
    shared: Arc<(Barrier, Mutex<Vec<String>>)>,
}

impl Peers for Threads {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.size
    }

    fn told(&self, text: &str) -> Result<String> {
        Ok(self.texts(text)?.swap_remove(0))
    }

    fn texts(&self, own: &str) -> Result<Vec<String>> {
        let (barrier, texts) = &*self.shared;
        own.clone_into(&mut texts.lock().unwrap()[self.rank]);
        barrier.wait();
        let all = texts.lock().unwrap().clone();
        barrier.wait();
        Ok(all)
    }

    fn agree(&self, what: &str, value: &str) -> Result<()> {
        match self.texts(value)?.iter().all(|other| other == value) {
            true => Ok(()),
            false => Err(Error::Process(format!("{what} differs").into())),
        }
    }

    fn does(&self, _: &str) {}
}

/// A model whose responses tell their group, with batches of one response.
struct Model(&'static str);

impl Generator for Model {
    fn name(&self) -> &str {
        self.0
    }

    fn batch_rows(&self) -> Option<usize> {
        Some(1)
    }

    fn sample(
        &mut self,
        jobs: &mut dyn Iterator<Item = Result<Job>>,
        sampling: &SamplingConfig,
        sink: &mut dyn CandidateSink,
    ) -> Result<()> {
        sink.notice("a fact about the model");
        in_groups(jobs, 1, sampling.samples, &mut |group| {
            let first = group[0].index;
            if sink.is_interrupted() {
                return Err(Error::Interrupted);
            }
            let candidate = |job: &Job, sample| Sampled {
                index: job.index,
                sample,
                candidate: Some(Candidate::new(
                    format!("{sample} of {} in the group from {first}", job.index),
                    Finish::Stop,
                )),
            };
            let of_job = |job: &Job| (0..job.samples.len()).map(|sample| candidate(job, sample)).collect::<Vec<_>>();
            sink.keep(group.iter().flat_map(of_job).collect())
        })
    }
}

struct Interrupts(bool);

impl Watch for Interrupts {
    fn is_interrupted(&self) -> bool {
        self.0
    }
}

/// Samples in `size` threads, of which one may be interrupted.
fn sampled_by(dir: &Path, size: usize, interrupted: Option<usize>) -> Vec<Result<Option<GenerateReport>>> {
    let shared = Arc::new((Barrier::new(size), Mutex::new(vec![String::new(); size])));
    let settings = GenerateSettings {
        prompts: PromptSettings { files: vec![dir.join("prompts.jsonl")], ..PromptSettings::default() },
        sampling: SamplingConfig { samples: 2, ..SamplingConfig::simplemix() },
        output: dir.join("out.parquet"),
        overwrite: false,
        share: None,
    };
    let work = |rank: usize| {
        let peers: Rc<dyn Peers> = Rc::new(Threads { rank, size, shared: Arc::clone(&shared) });
        let mut watch = Interrupts(interrupted == Some(rank));
        together(Some(peers), Some(Box::new(Model("m"))), Vec::new(), &mut watch, |generator, _, watch| {
            generate(&settings, generator.unwrap(), watch)
        })
    };
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..size).map(|rank| scope.spawn(move || work(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// 23 prompts: twelve groups of two, the last with one.
fn prompts() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let rows: Vec<String> = (0..23).map(|row| format!(r#"{{"prompt": "question {row}"}}"#)).collect();
    std::fs::write(dir.path().join("prompts.jsonl"), rows.join("\n")).unwrap();
    dir
}

#[test]
fn any_number_of_processes_writes_the_same_file() {
    let written = |size: usize| {
        let dir = prompts();
        let found = sampled_by(dir.path(), size, None);
        assert!(found[1..].iter().all(|other| matches!(other, Ok(None))), "{found:?}");
        let report = found[0].as_ref().unwrap().as_ref().unwrap();
        assert_eq!((report.candidates, report.notices.len()), (46, 1), "{report:?}");
        std::fs::read(dir.path().join("out.parquet")).unwrap()
    };
    let one = written(1);
    for size in [2, 5, 12, 30] {
        assert!(written(size) == one, "{size}");
    }
}

#[test]
fn what_others_have_done_is_kept_when_one_is_interrupted() {
    let dir = prompts();
    let found = sampled_by(dir.path(), 3, Some(1));
    assert!(found.iter().all(|each| matches!(each, Err(Error::Interrupted))), "{found:?}");
    let journal = std::fs::read_to_string(dir.path().join(".out.parquet.partial")).unwrap();
    assert_eq!(journal.lines().count(), 3, "a header and the groups of two processes: {journal}");
    let found = sampled_by(dir.path(), 2, None);
    assert_eq!(found[0].as_ref().unwrap().as_ref().unwrap().candidates, 46);
    let one = prompts();
    sampled_by(one.path(), 1, None);
    let read = |dir: &Path| std::fs::read(dir.join("out.parquet")).unwrap();
    assert!(read(dir.path()) == read(one.path()));
}

#[test]
fn another_model_is_named() {
    let shared = Arc::new((Barrier::new(2), Mutex::new(vec![String::new(); 2])));
    let work = |rank: usize| {
        let peers: Rc<dyn Peers> = Rc::new(Threads { rank, size: 2, shared: Arc::clone(&shared) });
        let model = Box::new(Model(["m", "n"][rank]));
        together(Some(peers), Some(model), Vec::new(), &mut Unwatched, |_, _, _| Ok(())).unwrap_err().to_string()
    };
    let found = std::thread::scope(|scope| {
        let other = scope.spawn(|| work(1));
        [work(0), other.join().unwrap()]
    });
    assert_eq!(found, ["the generator differs", "the generator differs"]);
}

/// A reward model whose batches have one response; texts of odd length have no number.
struct Rewards;

impl Batched for Rewards {
    fn score_part(&mut self, groups: &[Group], part: Part, sink: &mut dyn ScoreSink) -> Result<Vec<(usize, f64)>> {
        let all: Vec<&String> = groups.iter().flat_map(|group| &group.responses).collect();
        let score = |(number, text): (usize, &&String)| {
            sink.pending();
            (number, if text.len() % 2 == 0 { text.len() as f64 / 3.0 } else { f64::NAN })
        };
        Ok(part.own(all.iter().enumerate()).map(score).collect())
    }
}

impl Scorer for Rewards {
    fn name(&self) -> &str {
        "rewards"
    }

    fn score(&mut self, _: &[Group], _: &mut dyn ScoreSink) -> Result<()> {
        unreachable!("several processes share it")
    }

    fn batched(&mut self) -> Option<&mut dyn Batched> {
        Some(self)
    }
}

#[test]
fn scores_of_all_processes_come_to_the_first() {
    let groups: Vec<Group> = [&["aa", "b"][..], &[], &["cccc", "dddddd", "e"]]
        .iter()
        .map(|texts| Group {
            prompt: crate::generator::Prompt::new("id", "question"),
            responses: texts.iter().map(|text| (*text).to_owned()).collect(),
        })
        .collect();
    let shared = Arc::new((Barrier::new(3), Mutex::new(vec![String::new(); 3])));
    let work = |rank: usize| {
        let peers: Rc<dyn Peers> = Rc::new(Threads { rank, size: 3, shared: Arc::clone(&shared) });
        let rewards = Weighted { scorer: Box::new(Rewards), weight: 1.0, tasks: Vec::new() };
        together(Some(peers), None, vec![rewards], &mut Unwatched, |_, scorers, _| {
            crate::score_all(scorers[0].scorer.as_mut(), &groups)
        })
        .unwrap()
    };
    let found = std::thread::scope(|scope| {
        let work = &work;
        let others = [1, 2].map(|rank| scope.spawn(move || work(rank)));
        let first = work(0);
        others.into_iter().for_each(|other| assert_eq!(other.join().unwrap(), None));
        first.unwrap()
    });
    let third = |length: f64| Some(length / 3.0);
    assert_eq!(found, [vec![third(2.0), None], vec![], vec![third(4.0), third(6.0), None]]);
}

#[test]
fn parts_are_dealt_in_turn() {
    let own = |first| Part { first, of: 3 }.own(0..8).collect::<Vec<_>>();
    assert_eq!([own(0), own(1), own(2)], [vec![0, 3, 6], vec![1, 4, 7], vec![2, 5]]);
}
