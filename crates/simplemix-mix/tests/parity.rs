//! Orders of `datasets` 5.2.0 and TRL 1.16.0, row for row: tests/golden/mix_interleave.py.

#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::Value;
use simplemix_mix::parity::{Stopping, interleave_datasets, trl_mixture};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/interleave.json")).unwrap()
}

fn whole(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|n| n.as_f64().unwrap()).collect()
}

#[test]
fn interleaved_orders_are_those_of_datasets() {
    let golden = golden();
    let cases = golden["interleave"].as_array().unwrap();
    assert_eq!(cases.len(), 15);
    for case in cases {
        let stopping: Stopping = serde_json::from_value(case["strategy"].clone()).unwrap();
        let probabilities = case["probabilities"].as_array().map(|_| numbers(&case["probabilities"]));
        let seed = case["seed"].as_u64().unwrap();
        let order = interleave_datasets(&whole(&case["rows"]), probabilities.as_deref(), seed, stopping).unwrap();
        let expected: Vec<(usize, u64)> = case["order"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (pair[0].as_u64().unwrap() as usize, pair[1].as_u64().unwrap()))
            .collect();
        assert_eq!(order, expected, "{} {:?} {stopping:?}", case["rows"], probabilities);
    }
}

#[test]
fn rows_kept_are_those_of_trl() {
    for case in golden()["trl"].as_array().unwrap() {
        let kept = trl_mixture(&whole(&case["rows"]), &numbers(&case["fractions"])).unwrap();
        assert_eq!(kept, whole(&case["kept"]), "{}", case["rows"]);
    }
}

#[test]
fn probabilities_with_which_it_would_not_stop_are_refused() {
    let fails = |rows: &[u64], p: &[f64], stopping| interleave_datasets(rows, Some(p), 0, stopping).unwrap_err();
    let error = fails(&[3, 4], &[1.0, 0.0], Stopping::AllExhausted);
    assert_eq!(error.to_string(), "`probabilities` is 0 for a source that must end, expected above 0 for every source");
    assert!(fails(&[3, 4], &[0.5, 0.4], Stopping::FirstExhausted).to_string().contains("sum 0.9"));
    assert!(fails(&[3, 0], &[0.5, 0.5], Stopping::FirstExhausted).to_string().contains("without rows"));
    assert!(fails(&[3], &[0.5, 0.5], Stopping::FirstExhausted).to_string().contains("one for each source"));
    assert!(trl_mixture(&[3], &[-1.0]).is_err());
}
