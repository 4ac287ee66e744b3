//! Names of models in a table of win rates: apart by judge, baseline and file where several have verdicts on one model.

use std::collections::BTreeSet;
use std::path::PathBuf;

use simplemix_eval::alpaca::Annotations;

use crate::failure::{Failure, Result};

/// Verdicts on a model, with the file that they are in.
pub(crate) struct Read {
    pub(crate) path: PathBuf,
    pub(crate) annotations: Annotations,
}

/// A model whose name was changed.
#[derive(Debug, PartialEq)]
pub(crate) struct Renamed {
    pub(crate) from: String,
    pub(crate) to: String,
}

/// Gives models with one name their judge, baseline and file as part of the name, as far as these differ.
pub(crate) fn keep_apart(all: &mut [Read]) -> Result<Vec<Renamed>> {
    let names: BTreeSet<String> = all.iter().map(|read| read.annotations.model.clone()).collect();
    let mut renamed = Vec::new();
    for name in names {
        let places: Vec<usize> = (0..all.len()).filter(|place| all[*place].annotations.model == name).collect();
        if places.len() < 2 {
            continue;
        }
        let labels: Vec<String> = labels(&places.iter().map(|place| &all[*place]).collect::<Vec<_>>());
        let distinct: BTreeSet<&String> = labels.iter().collect();
        if distinct.len() < labels.len() {
            let path = all[places[0]].path.display();
            return Err(Failure::input(format!("--annotations {path}: given twice, with verdicts on {name}")));
        }
        for (place, label) in places.into_iter().zip(labels) {
            renamed.push(Renamed { from: name.clone(), to: label.clone() });
            all[place].annotations.model = label;
        }
    }
    Ok(renamed)
}

/// `mine (judge x, against base, a.json)`, with the parts that differ.
fn labels(all: &[&Read]) -> Vec<String> {
    let differ = |part: &dyn Fn(&Read) -> String| all.iter().any(|read| part(read) != part(all[0]));
    let judge = |read: &Read| format!("judge {}", read.annotations.annotator.as_deref().unwrap_or("unknown"));
    let baseline = |read: &Read| format!("against {}", read.annotations.baseline.as_deref().unwrap_or("unknown"));
    let file = |read: &Read| read.path.display().to_string();
    let mut parts: Vec<&dyn Fn(&Read) -> String> = Vec::new();
    parts.extend(differ(&judge).then_some(&judge as &dyn Fn(&Read) -> String));
    parts.extend(differ(&baseline).then_some(&baseline as &dyn Fn(&Read) -> String));
    parts.extend(differ(&file).then_some(&file as &dyn Fn(&Read) -> String));
    let label = |read: &&Read| {
        let named: Vec<String> = parts.iter().map(|part| part(read)).collect();
        format!("{} ({})", read.annotations.model, named.join(", "))
    };
    all.iter().map(label).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, model: &str, annotator: &str, baseline: &str) -> Read {
        let [model, annotator, baseline] = [model, annotator, baseline].map(str::to_owned);
        let annotations =
            Annotations { model, annotator: Some(annotator), baseline: Some(baseline), rows: Vec::new(), refused: 0 };
        Read { path: path.into(), annotations }
    }

    fn names(mut all: Vec<Read>) -> Vec<String> {
        keep_apart(&mut all).unwrap();
        all.into_iter().map(|read| read.annotations.model).collect()
    }

    #[test]
    fn what_differs_is_named() {
        let one = || read("a.json", "m", "x", "b");
        assert_eq!(names(vec![one(), read("a.json", "k", "y", "c")]), ["m", "k"]);
        assert_eq!(names(vec![one(), read("a.json", "m", "y", "b")]), ["m (judge x)", "m (judge y)"]);
        let apart = names(vec![one(), read("c.json", "m", "x", "other")]);
        assert_eq!(apart, ["m (against b, a.json)", "m (against other, c.json)"]);
        let twice = keep_apart(&mut [one(), one()]).unwrap_err().message().unwrap();
        assert_eq!(twice, "--annotations a.json: given twice, with verdicts on m");
    }
}
