//! Responses of several models in one file, and how many of which models each prompt keeps.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use simplemix_data::schema::Layout;
use simplemix_data::{Form, Watch};

use crate::candidates::{
    CandidateGroup, CandidateReader, CandidateRow, CandidateSurvey, CandidateWriter, check_output, survey_with,
};
use crate::error::{Error, Result};
use crate::journal::{WorkKey, check_apart, finished, json};
use crate::prompts::short_hash;
use crate::random::{stream, uniform};

/// A file of candidates in a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolMember {
    /// Name of the model that wrote the responses; by default the column `generator` has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generator: Option<String>,
    /// Path of the file of candidates.
    pub path: PathBuf,
}

impl FromStr for PoolMember {
    type Err = Error;

    /// `FILE`, or `NAME=FILE`.
    fn from_str(text: &str) -> Result<Self> {
        let (generator, path) = match text.split_once('=') {
            Some((name, path)) => (Some(name.to_owned()), path),
            None => (None, text),
        };
        let is_blank = path.is_empty() || generator.as_ref().is_some_and(|name| name.trim().is_empty());
        if is_blank {
            return Err(Error::Setting {
                key: "candidates",
                found: format!("`{text}`"),
                expected: "FILE or NAME=FILE",
            });
        }
        Ok(Self { generator, path: path.into() })
    }
}

/// Number of responses that each prompt keeps of some models.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quota {
    /// Number of responses of a prompt, at least 1.
    pub responses: u64,
    /// Models, as in the column `generator`.
    pub generators: Vec<String>,
}

impl FromStr for Quota {
    type Err = Error;

    /// A number and models, such as `2:Qwen3-0.6B,Qwen3-1.7B`.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::Setting {
            key: "take",
            found: format!("`{text}`"),
            expected: "a number and models, such as 2:Qwen3-0.6B,Qwen3-1.7B",
        };
        let (number, names) = text.split_once(':').ok_or_else(wrong)?;
        let responses = number.trim().parse().map_err(|_| wrong())?;
        let generators = names.split(',').map(|name| name.trim().to_owned()).collect();
        Ok(Self { responses, generators })
    }
}

impl std::fmt::Display for Quota {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.responses, self.generators.join(","))
    }
}

/// Settings of a pool: files, quotas and output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSettings {
    /// Files of candidates. Those of a prompt, known by its id, come together.
    pub candidates: Vec<PoolMember>,
    /// Path of the output, ending in .parquet, .arrow or .jsonl.
    pub output: PathBuf,
    /// Numbers of responses that each prompt keeps; all responses if there are none.
    #[serde(default)]
    pub take: Vec<Quota>,
    /// Random seed of the draw.
    #[serde(default)]
    pub seed: u64,
    /// Whether to overwrite an output made with other settings.
    #[serde(default)]
    pub overwrite: bool,
}

impl PoolSettings {
    /// Defaults: every response of the files.
    pub fn new(candidates: Vec<PoolMember>, output: impl Into<PathBuf>) -> Self {
        Self { candidates, output: output.into(), take: Vec::new(), seed: 42, overwrite: false }
    }

    fn check(&self) -> Result<()> {
        let refuse = |key, found: String, expected| Err(Error::Setting { key, found, expected });
        if self.candidates.is_empty() {
            return refuse("candidates", "none".to_owned(), "at least one file of candidates");
        }
        for (at, quota) in self.take.iter().enumerate() {
            if quota.responses == 0 {
                return refuse("take", quota.to_string(), "at least 1 response");
            }
            if quota.generators.is_empty() || quota.generators.iter().any(String::is_empty) {
                return refuse("take", quota.to_string(), "names of models after the number");
            }
            let earlier = || self.take[..at].iter().flat_map(|quota| &quota.generators);
            let mut own = quota.generators.iter().enumerate();
            let is_twice = |(n, name): (usize, &String)| {
                quota.generators[..n].contains(name) || earlier().any(|other| other == name)
            };
            if own.any(is_twice) {
                return refuse("take", quota.to_string(), "each model once");
            }
        }
        check_output(&self.output)
    }
}

/// Summary of a pool.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PoolReport {
    /// Prompts of the files.
    pub prompts: u64,
    /// Prompts written.
    pub kept: u64,
    /// Responses written.
    pub responses: u64,
    /// Responses written, by model; those of unknown models under the empty name.
    pub by_generator: BTreeMap<String, u64>,
    /// Prompts left out since they have fewer responses than a quota asks for, by quota.
    pub short: BTreeMap<String, u64>,
    /// Responses without text, which take no part in a draw.
    pub without_text: u64,
    /// Responses that no quota has drawn.
    pub not_drawn: u64,
    /// Rows of the files that are no objects, or no text, and were left out.
    pub unreadable: u64,
    /// Facts that the user should read.
    #[serde(default)]
    pub notices: Vec<String>,
}

/// Brings the responses of several files together, prompt by prompt, and draws as many of each prompt as the quotas say: the
/// models of a quota in an order that is new for each prompt, one response of each in turn. A prompt with fewer responses
/// than a quota asks for is left out and counted.
///
/// Memory holds the prompts' hashes, and the responses of prompts that not all files have come to.
///
/// # Errors
/// [`Error::Setting`], [`Error::Exists`], [`Error::Row`] for a prompt that is another one in another file, [`Error::Generator`]
/// for a model that has no response, [`Error::NoPool`] if no prompt has enough responses, [`Error::Data`],
/// [`Error::Interrupted`].
///
/// # Examples
/// ```
/// use simplemix_data::Unwatched;
/// use simplemix_rollout::{PoolSettings, pool};
/// # let dir = tempfile::tempdir()?;
/// let (weak, strong) = (dir.path().join("weak.jsonl"), dir.path().join("strong.jsonl"));
/// std::fs::write(&weak, r#"{"prompt": "2 + 2?", "response": "5"}"#)?;
/// std::fs::write(&strong, r#"{"prompt": "2 + 2?", "response": "4"}"#)?;
/// let members = [format!("weak={}", weak.display()), format!("strong={}", strong.display())];
/// let members = members.iter().map(|member| member.parse()).collect::<Result<_, _>>()?;
/// let report = pool(&PoolSettings::new(members, dir.path().join("pool.jsonl")), &mut Unwatched)?;
/// assert_eq!((report.kept, report.by_generator["strong"]), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn pool(settings: &PoolSettings, watch: &mut dyn Watch) -> Result<PoolReport> {
    settings.check()?;
    let paths: Vec<PathBuf> = settings.candidates.iter().map(|member| member.path.clone()).collect();
    check_apart(&settings.output, &paths)?;
    let seen = Seen::of(settings)?;
    let names: Vec<&Option<String>> = settings.candidates.iter().map(|member| &member.generator).collect();
    let key =
        WorkKey::new("pool", &[&json(&seen.hashes), &json(&names), &json(&settings.take), &settings.seed.to_string()]);
    if let Some(report) = finished(&settings.output, &key, settings.overwrite)? {
        return Ok(report);
    }
    seen.check_generators(settings)?;
    let scores: Vec<String> = seen.scores.keys().cloned().collect();
    let mut writer = CandidateWriter::create(&settings.output, seen.layout.clone(), seen.several_answers, &scores)?;
    seen.notices.iter().for_each(|notice| watch.notice(notice));
    let mut report = PoolReport { unreadable: seen.unreadable, notices: seen.notices.clone(), ..PoolReport::default() };
    let total = seen.files_of.len() as u64;
    let mut merged = Merged::open(settings, &seen)?;
    while let Some(group) = merged.next()? {
        if watch.is_interrupted() {
            return Err(Error::Interrupted);
        }
        report.prompts += 1;
        for (sample, mut row) in drawn(group, settings, &mut report).into_iter().enumerate() {
            row.sample = sample as i64;
            report.responses += 1;
            *report.by_generator.entry(row.generator.clone().unwrap_or_default()).or_default() += 1;
            writer.write(&row)?;
        }
        watch.progress("pool", report.prompts, total);
    }
    if report.kept == 0 {
        let short = report.short.iter().map(|(quota, count)| format!("{count} too few for {quota}"));
        let short = if report.short.is_empty() {
            "the files have no prompts".to_owned()
        } else {
            short.collect::<Vec<_>>().join(", ")
        };
        return Err(Error::NoPool { prompts: report.prompts, short });
    }
    writer.finish(key.metadata(&report))?;
    Ok(report)
}

/// Rows of a prompt that are kept; counts the others.
fn drawn(group: CandidateGroup, settings: &PoolSettings, report: &mut PoolReport) -> Vec<CandidateRow> {
    let CandidateGroup { prompt, rows } = group;
    if settings.take.is_empty() {
        report.kept += 1;
        return rows;
    }
    let total = rows.len();
    let with_text: Vec<CandidateRow> = rows.into_iter().filter(|row| row.has_text() && !row.is_reference).collect();
    report.without_text += (total - with_text.len()) as u64;
    let mut kept = Vec::new();
    for (number, quota) in settings.take.iter().enumerate() {
        let all = in_turn(&with_text, &in_order(quota, number, &prompt.id, settings.seed));
        let wanted = usize::try_from(quota.responses).unwrap_or(usize::MAX);
        if all.len() < wanted {
            *report.short.entry(quota.to_string()).or_default() += 1;
            return Vec::new();
        }
        kept.extend(all.into_iter().take(wanted).cloned());
    }
    report.kept += 1;
    report.not_drawn += (with_text.len() - kept.len()) as u64;
    kept
}

/// The models of a quota in an order that seed, prompt and number of the quota decide.
pub(crate) fn in_order<'a>(quota: &'a Quota, number: usize, id: &str, seed: u64) -> Vec<&'a str> {
    let mut order: Vec<(f64, &str)> = (0..)
        .zip(&quota.generators)
        .map(|(at, name)| (uniform(seed ^ number as u64, stream(id), at), name.as_str()))
        .collect();
    order.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    order.into_iter().map(|(_, name)| name).collect()
}

/// The first response of each model, then the second of each, and so on.
fn in_turn<'a>(rows: &'a [CandidateRow], generators: &[&str]) -> Vec<&'a CandidateRow> {
    let mut numbered: Vec<(usize, usize, &CandidateRow)> = Vec::new();
    for (place, name) in generators.iter().enumerate() {
        let own = rows.iter().filter(|row| row.generator.as_deref() == Some(*name));
        numbered.extend(own.enumerate().map(|(turn, row)| (turn, place, row)));
    }
    numbered.sort_by_key(|(turn, place, _)| (*turn, *place));
    numbered.into_iter().map(|(.., row)| row).collect()
}

/// Hash of a prompt's id.
type Id = [u8; 16];

/// Facts about all files, from a first reading.
struct Seen {
    hashes: Vec<String>,
    layout: Layout,
    several_answers: bool,
    /// Columns of scores.
    scores: BTreeMap<String, ()>,
    /// Responses by model.
    generators: BTreeMap<String, u64>,
    /// Number of files that have a prompt.
    files_of: HashMap<Id, u32>,
    /// Prompts of each file.
    groups: Vec<u64>,
    unreadable: u64,
    notices: Vec<String>,
}

impl Seen {
    fn of(settings: &PoolSettings) -> Result<Self> {
        let mut seen: Option<Self> = None;
        for member in &settings.candidates {
            let (mut scores, mut generators, mut ids) = (BTreeMap::new(), BTreeMap::new(), Vec::new());
            let survey = survey_with(&member.path, |group| {
                ids.push(short_hash(&group.prompt.id));
                for row in &group.rows {
                    scores.extend(row.scores.keys().map(|name| (name.clone(), ())));
                    let name = member.generator.clone().or_else(|| row.generator.clone());
                    *generators.entry(name.unwrap_or_default()).or_default() += 1;
                }
            })?;
            let own = Self::of_one(survey, scores, generators, ids);
            match &mut seen {
                None => seen = Some(own),
                Some(all) => all.add(own, &member.path)?,
            }
        }
        Ok(seen.expect("there is a file, as was checked"))
    }

    fn of_one(
        survey: CandidateSurvey,
        scores: BTreeMap<String, ()>,
        generators: BTreeMap<String, u64>,
        ids: Vec<Id>,
    ) -> Self {
        let CandidateSurvey { hash, groups, unreadable, layout, several_answers, notices } = survey;
        Self {
            hashes: vec![hash],
            layout,
            several_answers,
            scores,
            generators,
            files_of: ids.into_iter().map(|id| (id, 1)).collect(),
            groups: vec![groups],
            unreadable,
            notices,
        }
    }

    fn add(&mut self, other: Self, path: &Path) -> Result<()> {
        let has_any = |groups: &[u64]| groups.iter().any(|count| *count > 0);
        // A file without prompts has no form of its own.
        let (is_begun, has_prompts) = (has_any(&self.groups), has_any(&other.groups));
        if is_begun && has_prompts && other.layout.form != self.layout.form {
            let (found, expected) = match other.layout.form {
                Form::Plain => ("prompts that are texts", "messages, as in the files before"),
                Form::Messages => ("prompts that are messages", "texts, as in the files before"),
            };
            return Err(Error::Apart { path: path.to_path_buf(), found: found.to_owned(), expected });
        }
        match (is_begun, has_prompts) {
            (false, true) => self.layout = other.layout,
            (true, true) => self.layout.add_all(&other.layout),
            (_, false) => {}
        }
        self.hashes.extend(other.hashes);
        self.several_answers |= other.several_answers;
        self.scores.extend(other.scores);
        for (name, count) in other.generators {
            *self.generators.entry(name).or_default() += count;
        }
        for id in other.files_of.into_keys() {
            *self.files_of.entry(id).or_default() += 1;
        }
        self.groups.extend(other.groups);
        self.unreadable += other.unreadable;
        self.notices.extend(other.notices);
        Ok(())
    }

    fn check_generators(&self, settings: &PoolSettings) -> Result<()> {
        let mut named = settings.take.iter().flat_map(|quota| &quota.generators);
        let is_file = |name: &str| settings.candidates.iter().any(|member| member.generator.as_deref() == Some(name));
        let Some(absent) = named.find(|name| !self.generators.contains_key(*name) && !is_file(name)) else {
            return Ok(());
        };
        let paths: Vec<String> = settings.candidates.iter().map(|member| member.path.display().to_string()).collect();
        let known = self.generators.keys().filter(|name| !name.is_empty());
        Err(Error::without_responses(paths.join(", ").into(), absent, known))
    }
}

/// The groups of several files together. A prompt comes once all files that have it have come to it.
struct Merged<'a> {
    files: Vec<Member<'a>>,
    files_of: &'a HashMap<Id, u32>,
    /// Prompts that some files have not come to yet, with the number of those files.
    waiting: HashMap<Id, (CandidateGroup, u32)>,
}

/// A file that is being read.
struct Member<'a> {
    settings: &'a PoolMember,
    reader: CandidateReader,
    read: u64,
    total: u64,
}

impl<'a> Merged<'a> {
    fn open(settings: &'a PoolSettings, seen: &'a Seen) -> Result<Self> {
        let open = |(settings, &total): (&'a PoolMember, &u64)| {
            Ok(Member { settings, reader: CandidateReader::open(&settings.path)?, read: 0, total })
        };
        let files = settings.candidates.iter().zip(&seen.groups).map(open).collect::<Result<_>>()?;
        Ok(Self { files, files_of: &seen.files_of, waiting: HashMap::new() })
    }

    fn next(&mut self) -> Result<Option<CandidateGroup>> {
        // The file that has got the least far is read next, so that files in one order stay side by side.
        while let Some(file) = self.files.iter_mut().filter(|file| file.read < file.total).min_by(|a, b| a.compare(b)) {
            let Some(group) = file.group()? else { continue };
            let id = short_hash(&group.prompt.id);
            let path = file.settings.path.clone();
            let Some((mut together, left)) = self.waiting.remove(&id) else {
                let left = self.files_of.get(&id).map_or(0, |files| files - 1);
                if left == 0 {
                    return Ok(Some(group));
                }
                self.waiting.insert(id, (group, left));
                continue;
            };
            if (&group.prompt.prompt, &group.prompt.inputs) != (&together.prompt.prompt, &together.prompt.inputs) {
                let found = format!("another prompt with the id `{}`", group.prompt.id);
                return Err(Error::Apart { path, found, expected: "one prompt under an id, in all files" });
            }
            together.rows.extend(group.rows);
            if left == 1 {
                return Ok(Some(together));
            }
            self.waiting.insert(id, (together, left - 1));
        }
        Ok(None)
    }
}

impl Member<'_> {
    /// Compares the shares of two files that were read.
    fn compare(&self, other: &Self) -> std::cmp::Ordering {
        let share = |a: &Self, b: &Self| u128::from(a.read) * u128::from(b.total);
        share(self, other).cmp(&share(other, self))
    }

    fn group(&mut self) -> Result<Option<CandidateGroup>> {
        let Some(mut group) = self.reader.next().transpose()? else {
            // The file has become shorter since it was surveyed.
            self.total = self.read;
            return Ok(None);
        };
        self.read += 1;
        if let Some(name) = &self.settings.generator {
            group.rows.iter_mut().for_each(|row| row.generator = Some(name.clone()));
        }
        Ok(Some(group))
    }
}

#[cfg(test)]
mod tests {
    use simplemix_data::Unwatched;

    use super::*;

    fn rows(prompts: &[&str], texts: &[&str]) -> String {
        let row = |prompt: &&str, text: &&str| {
            let text = text.replace('*', prompt);
            serde_json::json!({"prompt": format!("Say {prompt}."), "prompt_id": prompt, "response": text}).to_string()
        };
        prompts.iter().flat_map(|prompt| texts.iter().map(move |text| row(prompt, text) + "\n")).collect()
    }

    fn file(dir: &tempfile::TempDir, name: &str, text: &str) -> PoolMember {
        let path = dir.path().join(format!("{name}.jsonl"));
        std::fs::write(&path, text).unwrap();
        PoolMember { generator: Some(name.to_owned()), path }
    }

    fn groups(path: &Path) -> Vec<CandidateGroup> {
        CandidateReader::open(path).unwrap().collect::<Result<_>>().unwrap()
    }

    #[test]
    fn files_in_any_order_come_together_prompt_by_prompt() {
        let dir = tempfile::tempdir().unwrap();
        let members = vec![
            file(&dir, "a", &rows(&["1", "2", "3", "4"], &["a*", "A*"])),
            file(&dir, "b", &rows(&["4", "2", "5"], &["b*"])),
        ];
        let settings = PoolSettings::new(members, dir.path().join("pool.jsonl"));
        let report = pool(&settings, &mut Unwatched).unwrap();
        assert_eq!((report.prompts, report.kept, report.responses), (5, 5, 11));
        assert_eq!(report.by_generator, [("a".to_owned(), 8), ("b".to_owned(), 3)].into());
        let mut found: Vec<String> = groups(&settings.output)
            .iter()
            .map(|group| {
                let texts =
                    group.rows.iter().map(|row| format!("{} {:?}", row.sample, row.response.as_deref().unwrap()));
                texts.collect::<Vec<_>>().join(", ")
            })
            .collect();
        found.sort();
        let expected = [
            r#"0 "a1", 1 "A1""#,
            r#"0 "a2", 1 "A2", 2 "b2""#,
            r#"0 "a3", 1 "A3""#,
            r#"0 "b4", 1 "a4", 2 "A4""#,
            r#"0 "b5""#,
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn quotas_draw_each_model_equally_often_and_short_prompts_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let prompts: Vec<String> = (0..600).map(|i| i.to_string()).collect();
        let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
        let mut members: Vec<PoolMember> =
            ["w1", "w2", "w3", "s1", "s2"].map(|name| file(&dir, name, &rows(&prompts, &["*"]))).into();
        members[4] = file(&dir, "s2", &rows(&prompts[..590], &["*"]));
        let mut settings = PoolSettings::new(members, dir.path().join("pool.parquet"));
        settings.take = ["2:w1,w2,w3", "2:s1,s2"].map(|quota| quota.parse().unwrap()).into();
        let report = pool(&settings, &mut Unwatched).unwrap();
        assert_eq!((report.prompts, report.kept, report.responses), (600, 590, 2360));
        assert_eq!(report.short, [("2:s1,s2".to_owned(), 10)].into());
        assert_eq!((report.by_generator["s1"], report.by_generator["s2"]), (590, 590));
        // Two of three models a prompt: 393 of each, with a standard deviation of 11.
        assert!(["w1", "w2", "w3"].iter().all(|name| report.by_generator[*name].abs_diff(393) < 46), "{report:?}");
        let first = groups(&settings.output);
        assert!(first.iter().all(|group| group.rows.len() == 4));
        // As before, whatever the order of the files; another draw with another seed.
        settings.candidates.reverse();
        let again = PoolSettings { output: dir.path().join("again.parquet"), ..settings.clone() };
        pool(&again, &mut Unwatched).unwrap();
        let names = |groups: &[CandidateGroup]| -> BTreeMap<String, Vec<Option<String>>> {
            let of = |group: &CandidateGroup| group.rows.iter().map(|row| row.generator.clone()).collect();
            groups.iter().map(|group| (group.prompt.id.clone(), of(group))).collect()
        };
        assert_eq!(names(&first), names(&groups(&again.output)));
        let other = PoolSettings { output: dir.path().join("other.parquet"), seed: 1, ..settings.clone() };
        pool(&other, &mut Unwatched).unwrap();
        assert_ne!(names(&first), names(&groups(&other.output)));
    }

    #[test]
    fn pools_that_cannot_be_made_are_refused_without_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let a = file(&dir, "a", &rows(&["1"], &["x"]));
        let other = file(&dir, "b", &rows(&["1"], &["x"]).replace("Say", "Tell"));
        let with = |members: &[&PoolMember], take: &[&str]| {
            let mut settings =
                PoolSettings::new(members.iter().copied().cloned().collect(), dir.path().join("out.jsonl"));
            settings.take = take.iter().map(|quota| quota.parse().unwrap()).collect();
            let error = pool(&settings, &mut Unwatched).unwrap_err();
            assert!(!settings.output.exists());
            error.to_string()
        };
        assert!(
            with(&[&a, &other], &[])
                .ends_with("another prompt with the id `1`, expected one prompt under an id, in all files")
        );
        assert!(
            with(&[&a], &["1:c"])
                .ends_with("no response by `c`, expected one of the models of column `generator`: `a`")
        );
        assert_eq!(with(&[&a], &["2:a"]), "no prompt of 1 has the responses that were asked for: 1 too few for 2:a");
        assert_eq!(with(&[&a], &["0:a"]), "`take` is 0:a, expected at least 1 response");
        assert_eq!(with(&[&a], &["1:a", "1:a"]), "`take` is 1:a, expected each model once");
        assert!(with(&[], &[]).starts_with("`candidates` is none"));
        assert!("two:a".parse::<Quota>().unwrap_err().to_string().contains("a number and models"));
        assert!("=x".parse::<PoolMember>().is_err() && "x=".parse::<PoolMember>().is_err());
    }

    /// A model of a quota to which no prompt has fallen.
    #[test]
    fn a_file_without_rows_is_a_model_without_responses() {
        let dir = tempfile::tempdir().unwrap();
        let turns = rows(&["1", "2"], &["x*"]).replace("\"Say 1.\"", r#"[{"role": "user", "content": "Say 1."}]"#);
        let turns = turns.replace("\"Say 2.\"", r#"[{"role": "user", "content": "Say 2."}]"#);
        let empty = dir.path().join("empty.parquet");
        let layout = Layout::from(Form::Plain);
        CandidateWriter::create(&empty, layout, false, &[]).unwrap().finish(Vec::new()).unwrap();
        let empty = PoolMember { generator: Some("b".to_owned()), path: empty };
        let full = file(&dir, "a", &turns);
        for members in [vec![empty.clone(), full.clone()], vec![full, empty]] {
            let mut settings = PoolSettings::new(members, dir.path().join("out.jsonl"));
            (settings.take, settings.overwrite) = (vec!["1:a,b".parse().unwrap()], true);
            let report = pool(&settings, &mut Unwatched).unwrap();
            assert_eq!((report.kept, &report.by_generator), (2, &[("a".to_owned(), 2)].into()));
        }
    }

    #[test]
    fn blank_responses_and_references_are_not_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let text = rows(&["1"], &["", "x"]) + &rows(&["1"], &["y"]).replace('}', ", \"is_reference\": true}");
        let mut settings = PoolSettings::new(vec![file(&dir, "a", &text)], dir.path().join("out.jsonl"));
        settings.take = vec!["1:a".parse().unwrap()];
        let report = pool(&settings, &mut Unwatched).unwrap();
        assert_eq!((report.responses, report.without_text), (1, 2));
        assert_eq!(groups(&settings.output)[0].rows[0].response.as_deref(), Some("x"));
    }
}
