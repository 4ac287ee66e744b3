//! Several ranks train a few numbers.

use simplemix_torch::group::Traffic;

use super::*;
use crate::team::tests::on_ranks;

/// Two parameters of 100 and 7 numbers.
fn parameters(kind: Kind) -> Vec<(String, Tensor)> {
    let leaf = |(name, size): (&str, &[i64])| {
        let count: i64 = size.iter().product();
        (name.to_owned(), Tensor::arange(count, (Kind::Float, Device::Cpu)).remainder(8.0).view(size).to_kind(kind))
    };
    [("a", [10, 10].as_slice()), ("b", &[7])].map(leaf).into()
}

fn parallel(shard: Shard) -> ParallelSettings {
    // Each parameter is a bucket.
    ParallelSettings { shard, bucket_mb: 1e-6, ..ParallelSettings::default() }
}

fn accumulate(parameters: &[(String, Tensor)], rank: usize) {
    let sum = |tensor: &Tensor| (tensor.square() * (rank as f64 + 1.0)).sum(Kind::Float);
    parameters.iter().map(|(_, tensor)| sum(tensor)).reduce(|a, b| a + b).unwrap().backward();
}

/// Bytes that a rank sends in the third of three updates, in which the weights are known to move.
fn bytes_of_an_update(kind: Kind, shard: Shard) -> u64 {
    let found = on_ranks(3, |team| {
        let own = parameters(kind);
        let settings = OptimizerSettings::default();
        let named = own.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let mut trainee = Trainee::together(named, &settings, team.clone(), &parallel(shard), None).unwrap();
        let traffic = || team.group().unwrap().traffic().unwrap();
        let mut before = Traffic::default();
        for _ in 0..3 {
            before = traffic();
            trainee.begin_last_pass();
            accumulate(&own, team.rank());
            trainee.sum_gradients().unwrap();
            let norm = trainee.gradient_norm().unwrap();
            trainee.update(0.1, 1.0 / norm).unwrap();
        }
        traffic().bytes - before.bytes
    });
    assert!(found.iter().all(|bytes| *bytes == found[0]), "{found:?}");
    found[0]
}

/// By a ring, a rank of N sends `(N - 1) / N` of a tensor for each of its sums scattered and its parts gathered, and twice that
/// for an all-reduce. The 100 and 7 numbers are filled up to 102 and 9, which 3 divides.
#[test]
fn bytes_of_an_update_are_those_of_the_theory() {
    let ring = |bytes: u64| bytes * 2 / 3;
    let gradients = ring(4 * 102) + ring(4 * 9);
    assert_eq!(bytes_of_an_update(Kind::Float, Shard::None), 2 * gradients);
    assert_eq!(bytes_of_an_update(Kind::BFloat16, Shard::None), 2 * gradients);
    // The gradient norm is the sum of a number in f64 of each rank.
    let norm = 2 * ring(8);
    assert_eq!(bytes_of_an_update(Kind::Float, Shard::Optimizer), gradients + ring(4 * 102) + ring(4 * 9) + norm);
    assert_eq!(bytes_of_an_update(Kind::BFloat16, Shard::Optimizer), gradients + ring(2 * 102) + ring(2 * 9) + norm);
}

/// Three ranks write, tensor by tensor, what one that holds everything writes.
#[test]
fn a_divided_state_is_written_as_a_whole_one_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let step = |trainee: &mut Trainee, own: &[(String, Tensor)], rank: usize| {
        accumulate(own, rank);
        trainee.sum_gradients().unwrap();
        trainee.update(0.1, 1.0).unwrap();
    };
    for kind in [Kind::Float, Kind::BFloat16] {
        let (one, several) = (dir.path().join("one"), dir.path().join("several"));
        for folder in [&one, &several] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let own = parameters(kind);
        let named = |own: &[(String, Tensor)]| own.iter().map(|(n, t)| (n.clone(), t.shallow_clone())).collect();
        let mut trainee = Trainee::new(named(&own), &OptimizerSettings::default()).unwrap();
        // The gradients of three ranks: 1 + 2 + 3 times that of one.
        step(&mut trainee, &own, 5);
        trainee.save(&one).unwrap();
        on_ranks(3, |team| {
            let own = parameters(kind);
            let settings = OptimizerSettings::default();
            let mut trainee =
                Trainee::together(named(&own), &settings, team.clone(), &parallel(Shard::Optimizer), None).unwrap();
            step(&mut trainee, &own, team.rank());
            match team.is_first() {
                true => trainee.save(&several).unwrap(),
                false => trainee.help_save().unwrap(),
            }
            team.any(false).unwrap();
            trainee.restore(&several).unwrap();
        });
        let read = |folder: &Path| weights::read_all(&folder.join(OPTIMIZER)).unwrap();
        let (one, several) = (read(&one), read(&several));
        let names = if kind == Kind::Float { 4 } else { 6 };
        assert_eq!((one.len(), several.len()), (names, names));
        for (name, tensor) in &one {
            let difference = (tensor - &several[name]).abs().max().double_value(&[]);
            let size = tensor.abs().max().double_value(&[]);
            assert!(difference <= 1e-6 * size, "{name} of {kind:?}: {difference}");
        }
    }
}

/// A batch is left out while sums are under way.
#[test]
fn gradients_that_are_left_out_are_gone_on_all_ranks() {
    let found = on_ranks(2, |team| {
        let own = parameters(Kind::Float);
        let named = own.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        let settings = OptimizerSettings::default();
        let mut trainee = Trainee::together(named, &settings, team.clone(), &parallel(Shard::None), None).unwrap();
        trainee.begin_last_pass();
        accumulate(&own, team.rank());
        trainee.begin_sum().unwrap();
        trainee.discard().unwrap();
        let gone = trainee.gradient_norm().unwrap();
        accumulate(&own, team.rank());
        trainee.sum_gradients().unwrap();
        [gone, own[1].1.grad().double_value(&[3])]
    });
    // The gradient of (1 + 2) w^2 at 3.
    assert_eq!(found, [[0.0, 18.0]; 2]);
}
