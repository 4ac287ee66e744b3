//! Several processes train as one does: here they are threads, each with its own model and connections.

use std::sync::Arc;
use std::time::Duration;

use simplemix_torch::group::{Group, GroupOptions, Place, StoreKeeper};
use simplemix_train::Team;

use super::*;

/// Runs `config` with `size` processes; what each has finished.
pub(super) fn together(config: &TrainConfig, size: usize, resume: bool, stop_at: u64) -> Vec<Finished> {
    together_watched(config, size, resume, |_| StopAt(stop_at, Cell::new(0)))
}

/// As [`together`], each process watched by what `watch` makes for its rank.
fn together_watched<W: Watch>(
    config: &TrainConfig,
    size: usize,
    resume: bool,
    watch: impl Fn(usize) -> W + Sync,
) -> Vec<Finished> {
    let keeper = StoreKeeper::open().unwrap();
    let work = &|place: Place| {
        let mut options = GroupOptions::for_device(Device::Cpu);
        options.interface = Some("lo".to_owned());
        let group = Arc::new(Group::open(&place, Device::Cpu, &options).unwrap());
        let run = Run::with_pairs(config.clone(), config.model.as_ref().unwrap(), &pairs(24), &pairs(4)).unwrap();
        let run = run.with_team(Team::new(Arc::clone(&group), Device::Cpu));
        let finished = run.start(resume.into(), &mut watch(place.rank)).unwrap();
        Arc::into_inner(group).unwrap().leave().unwrap();
        finished
    };
    std::thread::scope(|scope| {
        let places = (0..size).map(|rank| keeper.place(rank, size));
        let threads: Vec<_> = places.map(|place| scope.spawn(move || work(place))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Largest difference of a tensor's weights by the norm of the tensor.
pub(super) fn furthest_by_norm(a: &Path, b: &Path) -> f64 {
    let (a, b) = (weights_of(a), weights_of(b));
    assert_eq!(a.len(), b.len());
    let difference = |(name, t): (&String, &Tensor)| {
        let of = |t: &Tensor| t.to_kind(Kind::Double).norm().double_value(&[]);
        of(&(t - &b[name])) / of(&b[name]).max(1e-9)
    };
    a.iter().map(difference).fold(0.0, f64::max)
}

/// Metrics of one process and of several are the same but for speeds and traffic: losses to 1e-6, and others to 1e-5, as sums of
/// some hundred log-probabilities in f32 are not known better.
fn same_curve(one: &[Record], several: &[Record], what: &str) {
    assert_eq!(one.len(), several.len(), "{what}");
    for (one, several) in one.iter().zip(several) {
        for (name, value) in &one.values {
            let speeds = ["tokens_per_second", "pairs_per_second", "peak_memory_gb"];
            if !speeds.contains(&name.as_str()) {
                let other = several.get(name).unwrap_or_else(|| panic!("{what}: {name}"));
                let tolerance = if name.ends_with("loss") { 1e-6 } else { 1e-5 };
                let near = (value - other).abs() <= tolerance * value.abs().max(1.0);
                assert!(near, "{what}: {name} of update {} is {value} and {other}", one.step);
            }
        }
    }
}

pub(super) fn check(name: &str, settings: &str, sizes: &[usize]) {
    check_long(name, 8, settings, sizes);
}

fn check_long(name: &str, steps: u64, settings: &str, sizes: &[usize]) {
    let dir = Dir::new();
    let config = |output: &str| {
        // Many buckets.
        let common = "batch.batch_size = 7\noptimizer.learning_rate = 1e-4\nparallel.bucket_mb = 0.01";
        dir.with(output, &format!("max_steps = {steps}\n{common}\n{settings}"))
    };
    let one = train(config("one"));
    for &size in sizes {
        let output = format!("of-{size}");
        let several = together(&config(&output), size, false, u64::MAX);
        let what = format!("{name} on {size}");
        same_curve(&one.records().unwrap(), &several[0].records().unwrap(), &what);
        let difference = furthest_by_norm(&dir.path("one"), &dir.path(&output));
        assert!(difference < 1e-6, "{what}: {difference}");
    }
}

#[test]
fn several_processes_learn_what_one_learns() {
    check("DPO", "eval.eval_every_steps = 5", &[2, 3, 4]);
    check("SFT", "objective = 'sft'\neval.eval_every_steps = 6", &[2]);
    check("a reward model", "objective = 'reward'\neval.eval_every_steps = 6", &[3]);
    check("a sharded optimiser", "parallel.shard = 'optimizer'", &[2, 3]);
    check("a sharded optimiser of LoRA", "lora = { rank = 4 }\nparallel.shard = 'optimizer'", &[3]);
    check("LoRA with dropout", "lora = { rank = 4, dropout = 0.2 }", &[2]);
    check("a moving reference", "reference = { source = 'on-the-fly', sync_every = 4 }", &[2]);
    check("several passes an update", "batch.micro_batch_tokens = 60", &[2, 3]);
    check("recomputed layers", "memory.activation_checkpointing = true\nbatch.micro_batch_tokens = 60", &[2]);
    // Updates of 7 pairs leave two of nine processes without one.
    check("more processes than pairs", "", &[9]);
}

#[test]
fn a_run_goes_on_with_any_number_of_processes() {
    let dir = Dir::new();
    let config =
        |output: &str| dir.with(output, "max_steps = 11\nbatch.batch_size = 7\noptimizer.learning_rate = 1e-4");
    let whole = train(config("whole"));
    let found = together(&config("parts"), 2, false, 3);
    assert!(found.iter().all(|finished| finished.outcome == Outcome::Stopped));
    let found = together(&config("parts"), 3, true, 6);
    assert!(found.iter().all(|finished| finished.outcome == Outcome::Stopped && finished.model.is_none()));
    let sharded = over(config("parts"), "parallel.shard = 'optimizer'");
    let found = together(&sharded, 4, true, 8);
    assert!(found.iter().all(|finished| finished.outcome == Outcome::Stopped));
    let last = start(config("parts"), true, u64::MAX);
    assert_eq!(last.outcome, Outcome::Finished);
    let lines = |finished: &Finished| finished.folder.metrics_file();
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(lines(&last)).lines().count(), read(lines(&whole)).lines().count());
    let difference = furthest_by_norm(&dir.path("whole"), &dir.path("parts"));
    assert!(difference < 1e-6, "{difference}");
    let found = together(&config("parts"), 2, true, u64::MAX);
    assert!(found.iter().all(|finished| finished.outcome == Outcome::FinishedBefore));
}

#[test]
fn texts_go_around_and_what_differs_is_named() {
    let keeper = StoreKeeper::open().unwrap();
    let size = 3;
    let work = |rank: usize| {
        let mut options = GroupOptions::for_device(Device::Cpu);
        options.interface = Some("lo".to_owned());
        let group = Group::open(&keeper.place(rank, size), Device::Cpu, &options).unwrap();
        let team = Team::new(Arc::new(group), Device::Cpu);
        let own = ["", "zwei · δύο", "three"][rank];
        let told = team.told(own, "testing").unwrap() + &team.told(["a", "b", "c"][rank], "testing").unwrap();
        let texts = team.texts(own, "testing").unwrap();
        assert_eq!(team.texts("", "testing").unwrap(), ["", "", ""]);
        team.same("size", "3").unwrap();
        (told, texts, team.same("model", ["m", "m", "n"][rank]).unwrap_err().to_string())
    };
    let found: Vec<_> = std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..size).map(|rank| scope.spawn(move || work(rank))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (told, texts, differs) in &found {
        assert_eq!((told.as_str(), texts.as_slice()), ("a", &["", "zwei · δύο", "three"].map(str::to_owned)[..]));
        assert!(differs.starts_with("model is `"), "{differs}");
    }
    assert!(found[0].2.contains("`n` for rank 2 and `m` for rank 0"), "{}", found[0].2);
}

#[test]
fn the_same_number_of_processes_gives_the_same_bits() {
    let dir = Dir::new();
    let config = |output: &str| {
        let text = "max_steps = 6\nbatch.batch_size = 7\noptimizer.learning_rate = 1e-4\nparallel.shard = 'optimizer'";
        dir.with(output, text)
    };
    let values = |output: &str| -> Vec<(String, u64)> {
        let records = together(&config(output), 3, false, u64::MAX)[0].records().unwrap();
        let is_result =
            |name: &str| !name.ends_with("_per_second") && !name.starts_with("processes/") && name != "peak_memory_gb";
        let all = records.into_iter().flat_map(|record| record.values);
        all.filter(|(name, _)| is_result(name)).map(|(name, value)| (name, value.to_bits())).collect()
    };
    assert_eq!(values("a"), values("b"));
    assert_eq!(furthest(&dir.path("a"), &dir.path("b")), 0.0);
}

#[test]
fn hypo_draws_the_same_responses_on_all() {
    // Lengths and divergence of the draws are among the metrics that are compared.
    check("HyPO", "hypo = { lambda = 0.01, max_new_tokens = 6, prompts = 5 }", &[2, 3]);
}

/// Trains with `size` processes on files, which each reads.
fn on_files(config: &TrainConfig, size: usize) -> Finished {
    let keeper = StoreKeeper::open().unwrap();
    let work = |place: Place| {
        let mut options = GroupOptions::for_device(Device::Cpu);
        options.interface = Some("lo".to_owned());
        let group = Arc::new(Group::open(&place, Device::Cpu, &options).unwrap());
        let run = Run::prepare(config.clone()).unwrap().with_team(Team::new(Arc::clone(&group), Device::Cpu));
        let finished = run.start(Resume::No, &mut StopAt(u64::MAX, Cell::new(0))).unwrap();
        Arc::into_inner(group).unwrap().leave().unwrap();
        finished
    };
    std::thread::scope(|scope| {
        let places = (0..size).map(|rank| keeper.place(rank, size));
        let threads: Vec<_> = places.map(|place| scope.spawn(move || work(place))).collect();
        let mut all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        all.swap_remove(0)
    })
}

/// Two sources that are mixed while training, and a file whose shares were scheduled when it was mixed, in its own order.
#[test]
fn mixtures_are_dealt_out() {
    let dir = Dir::new();
    let row = |source: &str, i: usize| {
        let turn = |role: &str, text: String| serde_json::json!([{ "role": role, "content": text }]);
        let more = " and more".repeat(i % 4);
        serde_json::json!({
            "prompt": turn("user", format!("{source} question {i}{more}")),
            "chosen": turn("assistant", format!("a good answer {i}")),
            "rejected": turn("assistant", format!("no {i}")),
            "source": source,
        })
        .to_string()
    };
    let write = |name: &str, rows: Vec<String>| {
        let path = dir.path(name);
        std::fs::write(&path, rows.join("\n")).unwrap();
        path.display().to_string()
    };
    let on = write("on.jsonl", (0..20).map(|i| row("on", i)).collect());
    let off = write("off.jsonl", (0..20).map(|i| row("off", i)).collect());
    // Shares that go from one source to the other.
    let scheduled = |i: usize| if (i * i) % 40 < i { "on" } else { "off" };
    let scheduled = write("scheduled.jsonl", (0..40).map(|i| row(scheduled(i), i)).collect());
    let fixed =
        format!("mix = [{{ name = 'on', path = '{on}', weight = 1 }}, {{ name = 'off', path = '{off}', weight = 2 }}]");
    let cache = dir.path("cache").display().to_string();
    let scheduled = format!("train = '{scheduled}'\nbatch.shuffle = 'none'");
    for (name, data) in [("fixed", fixed), ("scheduled", scheduled)] {
        let config = |output: &str| {
            let text = format!(
                "max_steps = 8\nbatch.batch_size = 7\noptimizer.learning_rate = 1e-4\ntokens.cache_folder = '{cache}'\n{data}"
            );
            dir.with(&format!("{name}-{output}"), &text)
        };
        let one = Run::prepare(config("one")).unwrap();
        let one = one.start(Resume::No, &mut StopAt(u64::MAX, Cell::new(0))).unwrap();
        for size in [2, 3] {
            let output = format!("of-{size}");
            let several = on_files(&config(&output), size);
            same_curve(&one.records().unwrap(), &several.records().unwrap(), name);
            let (one, several) = (dir.path(&format!("{name}-one")), dir.path(&format!("{name}-{output}")));
            let difference = furthest_by_norm(&one, &several);
            assert!(difference < 1e-6, "{name} on {size}: {difference}");
        }
    }
}

/// Each objective with each form of sharding on 2, 3 and 4 processes, over 30 updates.
#[test]
#[ignore = "takes minutes; the other tests are a sample of it, and benches/results/ has its last run"]
fn the_whole_matrix() {
    let objectives = [
        ("DPO", "eval.eval_every_steps = 10"),
        ("SFT", "objective = 'sft'\neval.eval_every_steps = 10"),
        ("a reward model", "objective = 'reward'\neval.eval_every_steps = 10"),
        ("LoRA with dropout", "lora = { rank = 4, dropout = 0.2 }"),
        ("HyPO", "hypo = { lambda = 0.01, max_new_tokens = 6, prompts = 5 }"),
        ("a moving reference", "reference = { source = 'on-the-fly', sync_every = 4 }"),
    ];
    for (name, settings) in objectives {
        for shard in ["none", "optimizer", "all"] {
            check_long(&format!("{name}, {shard}"), 30, &format!("parallel.shard = '{shard}'\n{settings}"), &[2, 3, 4]);
        }
    }
    for shard in ["none", "optimizer", "all"] {
        check_long(&format!("fewer pairs than processes, {shard}"), 30, &format!("parallel.shard = '{shard}'"), &[9]);
    }
}

/// A process that is slow, whose fellows wait for it.
struct Slow(Duration);

impl Watch for Slow {
    fn is_interrupted(&self) -> bool {
        // Asked once an update, after the passes.
        std::thread::sleep(self.0);
        false
    }
}

#[test]
fn time_for_which_a_slow_process_is_waited_for_is_a_metric() {
    let dir = Dir::new();
    let waited = |output: &str, slow: Duration| {
        let config = dir.with(output, "max_steps = 3\nbatch.batch_size = 4");
        let watch = |rank: usize| Slow(if rank == 1 { slow } else { Duration::ZERO });
        let found = together_watched(&config, 2, false, watch);
        let records = found[0].records().unwrap();
        let of = |name: &str| records.iter().filter_map(|record| record.get(name)).collect::<Vec<_>>();
        let (sent, waited) = (of("processes/sent_gb"), of("processes/seconds_waited"));
        assert!(sent.len() == 3 && waited.len() == 3 && sent.iter().all(|sent| *sent > 0.0));
        waited.into_iter().fold(0.0, f64::max)
    };
    let slow = Duration::from_secs(2);
    // Less than the whole, as the process that waits may be the later one by itself.
    assert!(waited("slow", slow) > 1.0);
    assert!(waited("quick", Duration::ZERO) < 1.0);
}
