//! Two ranks are threads here, with parameters of four numbers in buckets of one each.

use tch::{Device, Kind};

use super::*;
use crate::team::tests::on_ranks;

/// Runs `work` on each of two ranks with parameters `a` to `d`, the last of which has the first bucket.
fn on_two<T: Send>(work: impl Fn(usize, &[(String, Tensor)], &Sending) -> T + Sync) -> Vec<T> {
    on_ranks(2, |team| {
        let leaf = |name: &str| {
            let tensor = Tensor::ones([4], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            (name.to_owned(), tensor)
        };
        let parameters: Vec<(String, Tensor)> = ["a", "b", "c", "d"].map(leaf).into();
        let buckets = Bucket::all(&parameters, (0..4).collect(), team, false, 1).unwrap();
        let sending = Sending::new(&parameters, &buckets, team).unwrap().unwrap();
        work(team.rank(), &parameters, &sending)
    })
}

fn pass(tensors: &[&Tensor], factor: f64) {
    let sum = tensors.iter().map(|tensor| tensor.sum(Kind::Float)).reduce(|a, b| a + b).unwrap();
    (sum * factor).backward();
}

fn gradients(parameters: &[(String, Tensor)]) -> Vec<f64> {
    parameters.iter().map(|(_, tensor)| tensor.grad().double_value(&[0])).collect()
}

fn begun(sending: &Sending) -> usize {
    lock(&sending.state).begun.len()
}

fn zero(parameters: &[(String, Tensor)]) {
    parameters.iter().for_each(|(_, tensor)| drop(tch::no_grad(|| tensor.grad().zero_())));
}

#[test]
fn buckets_go_out_in_order_while_the_last_pass_runs() {
    let found = on_two(|rank, parameters, sending| {
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| &parameters[at].1);
        let mut counts = Vec::new();
        for _ in 0..2 {
            zero(parameters);
            pass(&[a, b, c, d], 1.0);
            counts.push(begun(sending));
            sending.begin_last();
            // As a checkpointed model: a pass for each part; `c` goes nowhere, as a head whose loss adds to its gradient.
            let _ = tch::no_grad(|| c.grad().fill_(rank as f64));
            pass(&[d], 10.0);
            counts.push(begun(sending));
            pass(&[a], 10.0);
            counts.push(begun(sending));
            pass(&[b], 10.0);
            counts.push(begun(sending));
            sending.finish().unwrap();
            assert_eq!(begun(sending), 0);
            assert_eq!(gradients(parameters), [22.0, 22.0, 1.0, 22.0]);
        }
        counts
    });
    // The first update shows how often a pass comes to each; from then on `d` and `c` go at once, and `a` waits for `b`.
    assert_eq!(found, vec![vec![0, 0, 0, 0, 0, 2, 2, 4]; 2]);
}

#[test]
fn a_rank_without_passes_or_one_that_stops_early_gives_all_buckets() {
    let found = on_two(|rank, parameters, sending| {
        let all: Vec<&Tensor> = parameters.iter().map(|(_, tensor)| tensor).collect();
        let mut sums = Vec::new();
        for update in 0..4 {
            zero(parameters);
            // Rank 1 has no pass in the first and third update, and one that is not its last in the fourth.
            if rank == 0 || update % 2 == 1 {
                if rank == 0 || update < 3 {
                    sending.begin_last();
                }
                pass(&all, 1.0);
            }
            sending.finish().unwrap();
            sums.push(gradients(parameters));
        }
        sums
    });
    for sums in found {
        assert_eq!(sums, [[1.0; 4], [2.0; 4], [1.0; 4], [2.0; 4]]);
    }
}

#[test]
fn a_gradient_that_comes_late_is_an_error_that_names_it() {
    let found = on_two(|_, parameters, sending| {
        let [c, d] = [2, 3].map(|at| &parameters[at].1);
        sending.begin_last();
        pass(&[d], 1.0);
        sending.finish().unwrap();
        sending.begin_last();
        pass(&[d], 1.0);
        pass(&[c], 1.0);
        let error = sending.begin_rest().unwrap_err().to_string();
        sending.wait().unwrap();
        error
    });
    for error in found {
        let expected = "the gradient of `c` was added to 1 times by the last backward pass of an update, expected 0";
        assert!(error.starts_with(expected), "{error}");
    }
}
