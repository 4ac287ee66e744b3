//! Ranks are threads here, each with its own connections; processes are tried with the program.

use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use tch::Kind;

use super::*;

fn places(keeper: &StoreKeeper, size: usize) -> Vec<Place> {
    (0..size).map(|rank| keeper.place(rank, size)).collect()
}

fn options(limit: u64) -> GroupOptions {
    let interface = Some("lo".to_owned());
    GroupOptions { limit: Duration::from_secs(limit), interface, nccl: stand_in().to_owned() }
}

/// Waits until a rank has failed.
fn until_failure(group: &Group) -> String {
    text(loop {
        if let Err(error) = group.check() {
            break Err(error);
        }
        std::thread::sleep(Duration::from_millis(50));
    })
}

/// Runs `work` on each of `size` ranks and returns what each made of it.
fn on_ranks<T: Send>(backend: Backend, size: usize, limit: u64, work: impl Fn(Group) -> T + Sync) -> Vec<T> {
    let keeper = StoreKeeper::open().unwrap();
    let (work, options) = (&work, &options(limit));
    std::thread::scope(|scope| {
        let run = |place: Place| {
            scope.spawn(move || {
                let group = match backend {
                    Backend::Gloo => Group::open(&place, Device::Cpu, options),
                    Backend::Nccl => Group::open_stand_in(&place, options),
                };
                work(group.unwrap())
            })
        };
        let threads: Vec<_> = places(&keeper, size).into_iter().map(run).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The library that stands in for NCCL, compiled once.
fn stand_in() -> &'static str {
    static LIBRARY: OnceLock<String> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("simplemix-nccl-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let library = folder.join("libnccl.so.2");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/group/nccl_stand_in.cpp");
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-shared", "-fPIC", "-pthread", "-o"]).arg(&library).arg(source);
        assert!(command.status().unwrap().success());
        library.to_str().unwrap().to_owned()
    })
}

fn numbers(values: &[f64], kind: Kind) -> Tensor {
    Tensor::from_slice(values).to_kind(kind)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_kind(Kind::Double).flatten(0, -1).try_into().unwrap()
}

fn collectives(backend: Backend, size: usize, kinds: &[Kind]) {
    let found = on_ranks(backend, size, 20, |group| {
        let rank = group.rank() as f64;
        for &kind in kinds {
            let sum = numbers(&[rank, 1.0, -rank], kind);
            group.all_reduce(&sum, "a sum").unwrap().wait().unwrap();
            let all = (0..size).sum::<usize>() as f64;
            assert_eq!(values(&sum), [all, size as f64, -all], "{kind:?}");

            let whole = numbers(&(0..2 * size).map(|at| at as f64 + rank).collect::<Vec<_>>(), kind);
            let part = Tensor::zeros([2], (kind, Device::Cpu));
            group.reduce_scatter(&part, &whole, "parts of a sum").unwrap().wait().unwrap();
            let of = |at: f64| at * size as f64 + all;
            assert_eq!(values(&part), [of(2.0 * rank), of(2.0 * rank + 1.0)], "{kind:?}");

            let own = numbers(&[10.0 + rank], kind);
            let whole = Tensor::zeros([size as i64], (kind, Device::Cpu));
            group.all_gather(&whole, &own, "parts").unwrap().wait().unwrap();
            assert_eq!(values(&whole), (0..size).map(|rank| 10.0 + rank as f64).collect::<Vec<_>>(), "{kind:?}");

            let told = numbers(&[rank, rank], kind);
            group.broadcast(&told, size - 1, "a copy").unwrap().wait().unwrap();
            assert_eq!(values(&told), [size as f64 - 1.0; 2], "{kind:?}");
        }
        group.barrier("the end").unwrap();
        let traffic = group.traffic().unwrap();
        group.leave().unwrap();
        traffic
    });
    assert!(found.iter().all(|traffic| traffic.calls == 4 * kinds.len() as u64 + 1), "{found:?}");
}

#[test]
fn tensors_are_summed_scattered_gathered_and_copied() {
    for size in [1, 2, 3, 4] {
        collectives(Backend::Gloo, size, &[Kind::Float, Kind::Double, Kind::BFloat16, Kind::Int64]);
    }
}

#[test]
fn nccl_is_called_by_its_interface() {
    assert_eq!(native::nccl_version(stand_in()).unwrap(), 22_809);
    for size in [1, 2, 3] {
        collectives(Backend::Nccl, size, &[Kind::Float, Kind::Double, Kind::Int64]);
    }
    let error = native::nccl_version("libnccl-that-is-not-there.so").unwrap_err().to_string();
    assert!(error.starts_with("libtorch failed while loading NCCL") && error.contains("cannot open"), "{error}");
}

#[test]
fn sums_have_the_same_bits_in_each_run_and_work_is_done_in_order() {
    let run = || {
        on_ranks(Backend::Gloo, 3, 20, |group| {
            let rank = group.rank() as i64;
            let make = |at: i64| (Tensor::arange(10_001, (Kind::Float, Device::Cpu)) * (at + 1) + rank).sin();
            let tensors: Vec<Tensor> = (0..5).map(make).collect();
            let works: Vec<Work> =
                tensors.iter().map(|tensor| group.all_reduce(tensor, "gradients").unwrap()).collect();
            works.into_iter().for_each(|work| work.wait().unwrap());
            let traffic = group.traffic().unwrap();
            assert_eq!(traffic.bytes, 5 * 2 * (10_001 * 4 * 2 / 3));
            let all = Tensor::stack(&tensors, 0);
            group.leave().unwrap();
            Vec::<f32>::try_from(all.flatten(0, -1)).unwrap()
        })
    };
    let first = run();
    assert!(first.iter().all(|sums| *sums == first[0]), "all ranks have one sum");
    assert_eq!(run(), first);
    let own: f32 = (0..3).map(|rank| (7.0f32 + rank as f32).sin()).sum();
    assert!((first[0][7] - own).abs() < 1e-6);
}

fn text(result: Result<()>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_rank_that_fails_ends_the_waits_of_all_others_with_its_reason() {
    let start = now();
    let found = on_ranks(Backend::Gloo, 3, 60, |group| {
        if group.rank() == 1 {
            group.fail("no space left on the disk");
            return String::new();
        }
        text(group.barrier("gradients"))
    });
    assert_eq!(found[0], "rank 1 failed: no space left on the disk");
    assert_eq!(found[2], found[0]);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}

#[test]
fn a_rank_that_ends_without_a_word_is_named() {
    let found = on_ranks(Backend::Gloo, 4, 60, |group| {
        group.barrier("the start").unwrap();
        if group.rank() == 2 {
            group.does("reading pairs");
            std::thread::sleep(Duration::from_millis(700));
            return String::new();
        }
        let reason = text(group.barrier("gradients"));
        group.fail(&reason);
        reason
    });
    for rank in [0, 1, 3] {
        assert!(found[rank].contains("rank 2 has ended, was killed or stands still"), "{found:?}");
        assert!(found[rank].contains("reading pairs"), "{found:?}");
    }
}

/// NCCL connects in the first call, which waits for the others.
#[test]
fn a_rank_that_does_not_come_into_a_call_of_nccl_is_named() {
    let start = now();
    let found = on_ranks(Backend::Nccl, 2, 4, |group| {
        if group.rank() == 1 {
            group.does("sampling");
            return until_failure(&group);
        }
        let reason = text(group.barrier("gradients"));
        group.fail(&reason);
        reason
    });
    assert!(found[0].starts_with("rank 1 lives, and has not come to what rank 0 has waited for"), "{found:?}");
    assert!(found[1].contains("rank 1 lives"), "{found:?}");
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
}

#[test]
fn an_error_of_nccl_that_no_call_returns_ends_all_ranks() {
    let found = on_ranks(Backend::Nccl, 2, 60, |group| {
        let sum = Tensor::ones([13], (Kind::Float, Device::Cpu));
        group.all_reduce(&sum, "gradients").unwrap().wait().unwrap();
        until_failure(&group)
    });
    for text in found {
        let told = text.starts_with("rank 0 failed: ") || text.starts_with("rank 1 failed: ");
        assert!(told && text.contains("a collective of NCCL: remote process exited"), "{text}");
    }
}

#[test]
fn a_rank_that_does_not_come_is_named_with_what_it_does() {
    let found = on_ranks(Backend::Gloo, 2, 4, |group| {
        if group.rank() == 1 {
            group.does("sampling");
            return until_failure(&group);
        }
        let reason = text(group.barrier("gradients"));
        group.fail(&reason);
        reason
    });
    let expected = "rank 1 lives, and has not come to what rank 0 has waited for";
    assert!(found[0].starts_with(expected) && found[0].ends_with("(gradients); it is at: sampling"), "{found:?}");
    assert_eq!(found[1], found[0]);
}

#[test]
fn a_rank_that_does_not_come_to_be_compared_is_named() {
    let found = on_ranks(Backend::Gloo, 3, 4, |group| {
        if group.rank() == 1 {
            group.does("reading pairs");
            std::thread::sleep(Duration::from_secs(9));
            return text(group.check());
        }
        let reason = text(group.agree("data", "a"));
        group.fail(&reason);
        reason
    });
    let names = |text: &String| text.starts_with("rank 1 lives, and has not come to what rank");
    let says = |text: &String| text.ends_with("(comparing the data); it is at: reading pairs");
    assert!(found.iter().all(|text| names(text) && says(text)), "{found:?}");
}

#[test]
fn groups_of_another_size_and_numbers_that_are_taken_are_named() {
    let keeper = StoreKeeper::open().unwrap();
    let open = |places: [Place; 2]| {
        std::thread::scope(|scope| {
            let open = |place: Place| scope.spawn(move || Group::open(&place, Device::Cpu, &options(20)).err());
            let threads = places.map(open);
            threads.map(|thread| thread.join().unwrap().map(|error| error.to_string()).unwrap_or_default())
        })
    };
    let of = |rank: usize, size, attempt| Place { attempt, ..places(&keeper, size)[rank].clone() };
    let found = open([of(0, 2, 0), of(1, 3, 0)]);
    let differs = |text: &String| text.contains("number of processes is `") && text.contains("for rank 1");
    assert!(found.iter().all(differs), "{found:?}");
    let found = open([of(1, 2, 1), of(1, 2, 1)]);
    let taken = "`RANK` is 1, as it is for another process, expected a number of its own for each process";
    assert!(found.iter().all(|text| text.ends_with(taken)), "{found:?}");
}

#[test]
fn the_keeper_of_the_store_tells_of_a_process_that_has_ended() {
    let keeper = StoreKeeper::open().unwrap();
    std::thread::scope(|scope| {
        let keeper = &keeper;
        for place in places(keeper, 2) {
            scope.spawn(move || {
                let group = Group::open(&place, Device::Cpu, &options(20)).unwrap();
                if place.rank == 0 {
                    assert_eq!(text(group.barrier("gradients")), "rank 1 was ended by signal 9");
                } else {
                    keeper.tell_end(1, "was ended by signal 9").unwrap();
                    keeper.tell_end(0, "is the second to fail").unwrap();
                    std::thread::sleep(Duration::from_secs(2));
                }
            });
        }
    });
}

#[test]
fn slow_work_that_is_told_is_waited_for() {
    let found = on_ranks(Backend::Gloo, 2, 2, |group| {
        if group.rank() == 0 {
            group.does_at_length("writing a checkpoint");
            group.barrier("gathering its tensors").unwrap();
            std::thread::sleep(Duration::from_secs(7));
        }
        if group.rank() > 0 {
            group.barrier("gathering its tensors").unwrap();
        }
        group.barrier("the next update").is_ok()
    });
    assert_eq!(found, [true, true]);
}

#[test]
fn what_has_to_be_the_same_is_compared() {
    let found = on_ranks(Backend::Gloo, 3, 20, |group| {
        group.agree("number of pairs", "100").unwrap();
        group.agree("number of pairs", "200").unwrap();
        let value = if group.rank() == 2 { "b" } else { "a" };
        let found = group.agree("hash of the model", value);
        group.barrier("the end").unwrap();
        text(found)
    });
    // Both sides say the same.
    let expected = "hash of the model is `b` for rank 2 and `a` for rank 0; it has to be the same for all processes";
    assert_eq!([&found[0], &found[2]], [expected; 2]);
}

#[test]
fn rank_0_keeps_the_store_where_nobody_else_does() {
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = |rank| Place {
        rank,
        size: 2,
        local_rank: rank,
        local_size: 2,
        address: "127.0.0.1".to_owned(),
        port,
        is_kept_by_agent: false,
        attempt: 1,
    };
    std::thread::scope(|scope| {
        for rank in [1, 0] {
            let place = place(rank);
            scope.spawn(move || {
                let group = Group::open(&place, Device::Cpu, &options(20)).unwrap();
                group.barrier("the end").unwrap();
                group.leave().unwrap();
            });
        }
    });
    let lonely = Place { size: 1, ..place(1) };
    let error = Group::open(&Place { size: 2, ..lonely }, Device::Cpu, &options(2)).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("the store at 127.0.0.1:{port}, which rank 0 keeps, does not answer")),
        "{error}"
    );
}

#[test]
fn tensors_that_do_not_fit_are_refused_before_anything_is_sent() {
    on_ranks(Backend::Gloo, 2, 20, |group| {
        let (part, whole) = (numbers(&[1.0], Kind::Float), numbers(&[1.0; 3], Kind::Float));
        let error = group.all_gather(&whole, &part, "parts").unwrap_err().to_string();
        assert_eq!(error, "`whole` is [3] of Float, expected 2 times [1] of Float");
        let turned = numbers(&[1.0; 4], Kind::Float).view([2, 2]).transpose(0, 1);
        let error = group.all_reduce(&turned, "a sum").unwrap_err().to_string();
        assert!(error.starts_with("`tensor` is not contiguous"), "{error}");
        assert!(group.broadcast(&part, 2, "a copy").is_err());
        group.leave().unwrap();
    });
}
