//! Verdicts of a judge on the responses of one model against those of a baseline.

use std::collections::BTreeSet;

/// Instruction that a verdict is about: its text, or its number if a file gives only that.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Instruction {
    /// Number of the instruction.
    Number(i64),
    /// Text of the instruction.
    Text(String),
}

/// One verdict.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotation {
    /// Index in the model's list of verdicts, under which the official package looks up the difficulty of the
    /// instruction.
    pub row: usize,
    /// The instruction, if the file names it.
    pub instruction: Option<Instruction>,
    /// The verdict as it is in the file; `None` if it is missing or NaN.
    pub preference: Option<f64>,
    /// Characters of the baseline's response and of the model's; `None` if the file gives neither responses nor
    /// lengths.
    pub lengths: Option<[u64; 2]>,
    /// Category of the instruction, or the data set that it comes from.
    pub category: Option<String>,
}

impl Annotation {
    /// The verdict, with 1.5 in place of 0, an old sign of a draw.
    pub(crate) fn verdict(&self) -> Option<f64> {
        self.preference.map(|p| if p == 0.0 { 1.5 } else { p })
    }

    /// The verdict from 0 (the baseline wins) to 1 (the model wins); `None` if it is missing or out of range.
    pub fn outcome(&self) -> Option<f64> {
        self.verdict().filter(|p| (1.0..=2.0).contains(p)).map(|p| p - 1.0)
    }
}

/// All verdicts of one judge on one model against one baseline.
#[derive(Debug, Clone, PartialEq)]
pub struct Annotations {
    /// Model whose responses were judged.
    pub model: String,
    /// Judge, if the file names it.
    pub annotator: Option<String>,
    /// Model that they were compared with, if the file names it.
    pub baseline: Option<String>,
    /// Verdicts in the order of `row`.
    pub rows: Vec<Annotation>,
    /// Rows of the file that are no objects, or no text, and were left out. They keep their place in the list of verdicts.
    pub refused: usize,
}

/// Verdicts in the making, kept apart by model, judge and baseline.
#[derive(Debug, Default)]
pub(crate) struct Groups(Vec<Annotations>);

impl Groups {
    /// The verdicts so far of a model, a judge and a baseline.
    pub(crate) fn of(
        &mut self,
        model: String,
        annotator: Option<String>,
        baseline: Option<String>,
    ) -> &mut Annotations {
        let place = self.place(model, annotator, baseline);
        self.at(place)
    }

    /// The verdicts at a place that [`Groups::place`] gave.
    pub(crate) fn at(&mut self, place: usize) -> &mut Annotations {
        &mut self.0[place]
    }

    /// Counts rows that are left out at a place; nothing if there is no verdict at all.
    pub(crate) fn leave_out(&mut self, place: usize, rows: usize) {
        if let Some(of) = self.0.get_mut(place) {
            of.refused += rows;
        }
    }

    /// Place of a model, a judge and a baseline.
    pub(crate) fn place(&mut self, model: String, annotator: Option<String>, baseline: Option<String>) -> usize {
        let is_same =
            |known: &Annotations| known.model == model && known.annotator == annotator && known.baseline == baseline;
        self.0.iter().position(is_same).unwrap_or_else(|| {
            self.0.push(Annotations { model, annotator, baseline, rows: Vec::new(), refused: 0 });
            self.0.len() - 1
        })
    }

    pub(crate) fn finish(self) -> Vec<Annotations> {
        self.0
    }
}

/// Numbers of unusual rows among a model's verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Findings {
    /// Rows without a verdict, which the official package leaves out of the plain figures.
    pub missing: usize,
    /// Rows whose verdict is neither 0 nor between 1 and 2, which are left out too.
    pub out_of_range: usize,
    /// Rows on an instruction that an earlier row is on, which the official package counts as well.
    pub duplicates: usize,
    /// Rows with a number of an instruction outside AlpacaEval's range, 0 to 804.
    pub unknown: usize,
    /// Rows of the file that are no objects, or no text, which the official package reads.
    pub refused: usize,
}

impl Annotations {
    /// Counts unusual rows.
    pub fn findings(&self) -> Findings {
        let mut findings = Findings { refused: self.refused, ..Findings::default() };
        let mut seen = BTreeSet::new();
        for row in &self.rows {
            match row.preference {
                None => findings.missing += 1,
                Some(_) if row.outcome().is_none() => findings.out_of_range += 1,
                Some(_) => {}
            }
            if let Some(instruction) = &row.instruction {
                findings.duplicates += usize::from(!seen.insert(instruction));
                let is_unknown = matches!(instruction, Instruction::Number(n) if !(0..805).contains(n));
                findings.unknown += usize::from(is_unknown);
            }
        }
        findings
    }

    /// Whether the model is the baseline itself.
    pub fn is_baseline(&self) -> bool {
        self.baseline.as_ref() == Some(&self.model)
    }
}

impl Findings {
    /// Describes each finding in a clause; empty if nothing is unusual.
    pub fn clauses(&self) -> Vec<String> {
        let clause = |count: usize, what: &str| (count > 0).then(|| format!("{count} {what}"));
        [
            clause(self.missing, "without a verdict, left out"),
            clause(self.out_of_range, "with a verdict outside 1 to 2, left out"),
            clause(
                self.duplicates,
                "on an instruction that an earlier row is on, counted as the official package does",
            ),
            clause(self.unknown, "with a number of an instruction outside 0 to 804"),
            clause(
                self.refused,
                "more left out, which are no objects or hold a lone surrogate, so that they are no text",
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
