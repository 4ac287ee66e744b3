//! Constant inputs and published weights of the official package, and categories of instructions.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::alpaca::annotation::Instruction;
use crate::error::{Error, Result};
use crate::json::{Object, objects_and_notices, read_bytes};

/// Weights of the regression's features for one model.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct GlmWeights {
    /// Weight `theta` of the difference in length, `np.tanh(std_delta_len)`.
    pub length: f64,
    /// Weight `b` of the difficulty of the instruction.
    pub difficulty: f64,
    /// Weight `a` of the model.
    pub model: f64,
}

/// A row of `df_gamed.csv`: a verdict on the baseline told to be verbose or concise.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
pub struct GamedRow {
    /// Verdict from 0 to 1, if there is one.
    pub preference: Option<f64>,
    /// Number of the instruction.
    pub index: usize,
    /// Difference in length over its standard deviation.
    pub std_delta_len: f64,
    /// Difficulty of the instruction.
    pub instruction_difficulty: f64,
}

/// Reads `df_gamed.csv`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Malformed`] that names line or row.
pub fn read_gamed(path: &Path) -> Result<Vec<GamedRow>> {
    let rows: Vec<GamedRow> = records(path)?;
    let wrong = |row: &&GamedRow| {
        !(row.std_delta_len.is_finite() && row.instruction_difficulty.is_finite())
            || row.preference.is_some_and(|p| !(0.0..=1.0).contains(&p))
    };
    if let Some(place) = rows.iter().position(|row| wrong(&row)) {
        let expected = "a preference between 0 and 1, and finite numbers";
        return Err(Error::malformed(path, format!("row {place} is {:?}, expected {expected}", rows[place])));
    }
    match rows.is_empty() {
        true => Err(Error::malformed(path, "no row in it, expected some")),
        false => Ok(rows),
    }
}

/// Reads `instruction_difficulty.csv`, with the number of an instruction and its difficulty in each row.
///
/// # Errors
/// Those of [`read_gamed`]; also [`Error::Malformed`] unless the numbers are 0, 1, 2, ...
pub fn read_difficulty(path: &Path) -> Result<Vec<f64>> {
    let rows: Vec<(usize, f64)> = records(path)?;
    for (place, (index, difficulty)) in rows.iter().enumerate() {
        if *index != place || !difficulty.is_finite() {
            let found = format!("row {place} is {index}, {difficulty}");
            return Err(Error::malformed(path, format!("{found}, expected {place} and a finite number")));
        }
    }
    match rows.is_empty() {
        true => Err(Error::malformed(path, "no row in it, expected some")),
        false => Ok(rows.into_iter().map(|(_, difficulty)| difficulty).collect()),
    }
}

/// Reads published weights by model, the official package's `baseline_*.csv`.
///
/// # Errors
/// Those of [`read_gamed`].
pub fn read_weights(path: &Path) -> Result<BTreeMap<String, GlmWeights>> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(rename = "", alias = "model")]
        model: String,
        #[serde(rename = "np.tanh(std_delta_len)", alias = "theta_len")]
        length: f64,
        #[serde(rename = "instruction_difficulty", alias = "b_difficulty")]
        difficulty: f64,
        #[serde(rename = "not_gamed_baseline.astype(float)", alias = "a_model")]
        model_weight: f64,
    }
    let rows: Vec<Row> = records(path)?;
    let weights = |row: &Row| GlmWeights { length: row.length, difficulty: row.difficulty, model: row.model_weight };
    Ok(rows.iter().map(|row| (row.model.clone(), weights(row))).collect())
}

fn records<T: serde::de::DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    let bytes = read_bytes(path)?;
    let mut reader = csv::Reader::from_reader(bytes.as_slice());
    reader.deserialize().collect::<std::result::Result<_, _>>().map_err(|e| Error::malformed(path, e))
}

/// A row of a file of categories.
#[derive(Deserialize)]
struct CategoryRow {
    instruction: Option<String>,
    instruction_id: Option<i64>,
    category: Option<String>,
    dataset: Option<String>,
}

impl CategoryRow {
    fn of(path: &Path, row: &Object) -> Result<Self> {
        Ok(Self {
            instruction: row.text(path, &["instruction"])?,
            instruction_id: row.number(path, "instruction_id")?.map(|number| number as i64),
            category: row.text(path, &["category"])?,
            dataset: row.text(path, &["dataset"])?,
        })
    }
}

/// Category of each instruction.
pub type Categories = BTreeMap<Instruction, String>;

/// Reads categories from CSV, a JSON array or JSON lines, with `category` (or `dataset`) and `instruction`,
/// `instruction_id` or both.
///
/// # Errors
/// Those of [`read_gamed`].
pub fn read_categories(path: &Path, notices: &mut Vec<String>) -> Result<Categories> {
    let bytes = read_bytes(path)?;
    let is_json = bytes.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|b| b"[{".contains(b));
    let rows: Vec<CategoryRow> = match is_json {
        true => {
            objects_and_notices(path, notices)?.iter().map(|row| CategoryRow::of(path, row)).collect::<Result<_>>()?
        }
        false => records(path)?,
    };
    let mut categories = Categories::new();
    for (place, row) in rows.into_iter().enumerate() {
        let Some(category) = row.category.or(row.dataset) else {
            return Err(Error::malformed(
                path,
                format!("row {place} has neither `category` nor `dataset`, expected one"),
            ));
        };
        if row.instruction.is_none() && row.instruction_id.is_none() {
            let found = format!("row {place} has neither `instruction` nor `instruction_id`, expected one");
            return Err(Error::malformed(path, found));
        }
        categories.extend(row.instruction.map(|text| (Instruction::Text(text), category.clone())));
        categories.extend(row.instruction_id.map(|number| (Instruction::Number(number), category)));
    }
    Ok(categories)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn official_tables_are_read() {
        let gamed = file(
            "preference,index,model,std_delta_len,instruction_difficulty,not_gamed_baseline\n0.8,0,v,-1.5,0,False\n,1,v,2,-0.1,False\n",
        );
        let rows = read_gamed(gamed.path()).unwrap();
        assert_eq!((rows[0].preference, rows[1].preference, rows[1].index), (Some(0.8), None, 1));
        let difficulty = file(",instruction_difficulty\n0,0.0\n1,-0.25\n");
        assert_eq!(read_difficulty(difficulty.path()).unwrap(), [0.0, -0.25]);
        let weights = file(
            ",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\nclaude-2,-1.8,0.9,-1.1\n",
        );
        let found = read_weights(weights.path()).unwrap();
        assert_eq!(found["claude-2"], GlmWeights { length: -1.8, difficulty: 0.9, model: -1.1 });
    }

    #[test]
    fn faults_are_named() {
        let of = |text: &str| read_difficulty(file(text).path()).unwrap_err().to_string();
        assert!(of("index,d\n0,0.0\n2,1.0\n").ends_with("row 1 is 2, 1, expected 1 and a finite number"));
        assert!(of("index,d\n0,hard\n").contains("line: 2"), "{}", of("index,d\n0,hard\n"));
        assert!(of("").ends_with("no row in it, expected some"));
        let gamed = file("preference,index,std_delta_len,instruction_difficulty\n1.8,0,1,1\n");
        assert!(read_gamed(gamed.path()).unwrap_err().to_string().contains("row 0 is"));
    }

    #[test]
    fn categories_go_by_text_or_number() {
        let csv = read_categories(file("instruction,category\n\"a, b\",koala\n").path(), &mut Vec::new()).unwrap();
        assert_eq!(csv[&Instruction::Text("a, b".into())], "koala");
        let json =
            read_categories(file("{\"instruction_id\":3,\"dataset\":\"oasst\"}\n").path(), &mut Vec::new()).unwrap();
        assert_eq!(json[&Instruction::Number(3)], "oasst");
        let error = read_categories(file("[{\"category\":\"x\"}]").path(), &mut Vec::new()).unwrap_err().to_string();
        assert!(error.ends_with("row 0 has neither `instruction` nor `instruction_id`, expected one"), "{error}");
    }
}
