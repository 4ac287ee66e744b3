//! One report over all stages: a page, and the numbers as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};
use simplemix_eval::html::{escape, number, page};
use simplemix_eval::{Share, mcnemar};
use simplemix_rollout::CandidateReader;

use crate::error::{Error, Result};
use crate::plan::{Job, Plan, SCORED, Stage};
use crate::settings::PipelineConfig;
use crate::stage::{Done, write_whole};

/// Scores of the evaluation's answers, by prompt.
pub(crate) struct Grades {
    name: String,
    answers: BTreeMap<String, Graded>,
}

/// An answer.
struct Graded {
    task: Option<String>,
    score: f64,
    tokens: Option<i64>,
}

impl Grades {
    fn read(stage: &Stage) -> Result<Self> {
        let mut answers = BTreeMap::new();
        for group in CandidateReader::open(&stage.folder.join(SCORED))? {
            let group = group?;
            let Some(row) = group.rows.first() else { continue };
            if let Some(score) = row.scores.get("score").copied().flatten() {
                let graded = Graded { task: group.prompt.task.clone(), score, tokens: row.tokens };
                answers.insert(group.prompt.id, graded);
            }
        }
        Ok(Self { name: stage.name.trim_start_matches("grade-").to_owned(), answers })
    }

    fn tasks(&self) -> BTreeSet<&str> {
        self.answers.values().filter_map(|graded| graded.task.as_deref()).collect()
    }

    /// Answers to the prompts of a task, or to all.
    fn of(&self, task: Option<&str>) -> impl Iterator<Item = (&String, &Graded)> {
        self.answers.iter().filter(move |(_, graded)| task.is_none() || graded.task.as_deref() == task)
    }

    /// Whether every answer is right or wrong.
    fn is_binary(&self, task: Option<&str>) -> bool {
        self.of(task).all(|(_, graded)| graded.score == 0.0 || graded.score == 1.0)
    }

    /// Mean score and length in a task, or over all, and how the scores compare with those of `before`.
    fn line(&self, before: &Self, task: Option<&str>) -> Value {
        let count = self.of(task).count();
        let mean = self.of(task).map(|(_, graded)| graded.score).sum::<f64>() / count.max(1) as f64;
        let mut line = json!({ "answers": self.name, "prompts": count, "mean_score": mean });
        if let Some(task) = task {
            line["task"] = json!(task);
        }
        if self.is_binary(task) && before.is_binary(task) {
            let (low, high) = Share::of(self.of(task).map(|(_, graded)| graded.score == 1.0)).interval(1.96);
            line["interval_95"] = json!([low, high]);
        }
        let tokens: Vec<i64> = self.of(task).filter_map(|(_, graded)| graded.tokens).collect();
        if !tokens.is_empty() {
            line["mean_tokens"] = json!(tokens.iter().sum::<i64>() as f64 / tokens.len() as f64);
        }
        if std::ptr::eq(self, before) {
            return line;
        }
        let both = || {
            let with_before = |(id, after): (&String, &Graded)| Some((before.answers.get(id)?.score, after.score));
            self.of(task).filter_map(with_before)
        };
        let gained = both().filter(|(before, after)| after > before).count() as u64;
        let lost = both().filter(|(before, after)| after < before).count() as u64;
        line["better"] = json!(gained);
        line["worse"] = json!(lost);
        // Of scores that are not right or wrong this is the sign test, which is the same sum.
        line["p_value"] = json!(mcnemar(gained, lost));
        line
    }
}

/// What came of all stages.
pub(crate) struct Results<'a> {
    pub(crate) config: &'a PipelineConfig,
    pub(crate) plan: &'a Plan,
    pub(crate) done: &'a [Done],
}

impl Results<'_> {
    /// The numbers.
    pub(crate) fn summary(&self) -> Result<Value> {
        let stages: Vec<Value> = self
            .plan
            .stages
            .iter()
            .zip(self.done)
            .map(|(stage, done)| {
                json!({ "stage": stage.name, "key": stage.key, "folder": stage.folder, "seconds": done.seconds, "report": done.report })
            })
            .collect();
        let grades =
            self.plan.grades.iter().map(|&at| Grades::read(&self.plan.stages[at])).collect::<Result<Vec<_>>>()?;
        let mut evaluation = Vec::new();
        for (at, grade) in grades.iter().enumerate() {
            // Of one task only, the line over all says it.
            let tasks = Some(grade.tasks()).filter(|tasks| tasks.len() > 1).unwrap_or_default();
            let divergence = at.checked_sub(1).and_then(|round| self.plan.divergences.get(round));
            let divergence = divergence.map_or(&Value::Null, |&stage| &self.done[stage].report);
            for task in std::iter::once(None).chain(tasks.into_iter().map(Some)) {
                let mut line = grade.line(&grades[0], task);
                let of_task = task.map_or(divergence, |task| &divergence["tasks"][task]);
                if of_task.is_object() {
                    line["kl"] = of_task["mean"].clone();
                    line["kl_standard_error"] = of_task["standard_error"].clone();
                }
                evaluation.push(line);
            }
        }
        let result = self.plan.stages[self.plan.result].folder.join("run/model");
        Ok(json!({ "model": result, "evaluation": evaluation, "stages": stages }))
    }

    /// Writes `summary.json` and `report.html`.
    pub(crate) fn write(&self, output: &Path, summary: &Value) -> Result<()> {
        write_whole(&output.join("summary.json"), &format!("{summary:#}\n"))?;
        write_whole(&output.join("report.html"), &self.page(output, summary)?)
    }

    fn page(&self, output: &Path, summary: &Value) -> Result<String> {
        let name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut body = format!("<h1>{}</h1>\n", escape(&name));
        let _ = writeln!(body, "<p>Result: <code>{}</code></p>", escape(text(&summary["model"])));
        if let Some(lines) = summary["evaluation"].as_array().filter(|lines| !lines.is_empty()) {
            body.push_str("<h2>Evaluation</h2>\n<div class=\"scroll\"><table><thead><tr>");
            for heading in
                ["Answers", "Task", "Prompts", "Mean score", "95 % interval", "Better", "Worse", "p", "Tokens", "KL"]
            {
                let _ = write!(body, "<th scope=\"col\">{heading}</th>");
            }
            body.push_str("</tr></thead><tbody>\n");
            for line in lines {
                let cell = |key: &str| line[key].as_f64().map_or(String::new(), number);
                let count = |key: &str| line[key].as_u64().map_or(String::new(), |count| count.to_string());
                let interval = line["interval_95"].as_array().map_or(String::new(), |bounds| {
                    bounds.iter().filter_map(Value::as_f64).map(number).collect::<Vec<_>>().join(" to ")
                });
                let _ = write!(body, "<tr><th scope=\"row\">{}</th>", escape(text(&line["answers"])));
                let _ = write!(body, "<td class=\"text\">{}</td>", escape(line["task"].as_str().unwrap_or("all")));
                for cell in [
                    count("prompts"),
                    cell("mean_score"),
                    interval,
                    count("better"),
                    count("worse"),
                    cell("p_value"),
                    cell("mean_tokens"),
                    cell("kl"),
                ] {
                    let _ = write!(body, "<td>{cell}</td>");
                }
                body.push_str("</tr>\n");
            }
            body.push_str(
                "</tbody></table></div>\n<p>Better and worse: prompts whose answer scores higher or lower than before \
                           training; p: of a split at least as uneven by chance (McNemar, or sign test). Tokens: of an answer, on average. \
                           KL: divergence of the answers' distribution from the first model's, nats an answer.</p>\n",
            );
        }
        body.push_str(
            "<h2>Stages</h2>\n<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Stage</th>\
                       <th scope=\"col\">Seconds</th><th scope=\"col\">What came of it</th></tr></thead><tbody>\n",
        );
        for (stage, done) in self.plan.stages.iter().zip(self.done) {
            let link = link(stage, output);
            let _ = writeln!(
                body,
                "<tr><th scope=\"row\">{link}</th><td>{:.1}</td><td class=\"text\">{}</td></tr>",
                done.seconds,
                escape(&words(&done.report))
            );
        }
        body.push_str("</tbody></table></div>\n");
        let settings = toml::to_string(self.config).map_err(|error| Error::serialise("settings")(&error))?;
        let _ = writeln!(body, "<h2>Settings</h2>\n<pre tabindex=\"0\">{}</pre>", escape(&settings));
        Ok(page(&format!("{name}: pipeline"), &body))
    }
}

/// A stage's name, linked to its own report where it has one.
fn link(stage: &Stage, output: &Path) -> String {
    let file = match &stage.job {
        Job::Train(_) => "run/report.html",
        Job::Mix(_) => "shares.svg",
        _ => return escape(&stage.name),
    };
    let path = stage.folder.join(file);
    // Relative where it lies in the output, so that the folder can be moved as a whole.
    let path = match path.strip_prefix(output) {
        Ok(inside) => inside.to_owned(),
        Err(_) => path.canonicalize().unwrap_or(path),
    };
    format!("<a href=\"{}\">{}</a>", escape(&path.display().to_string()), escape(&stage.name))
}

/// The numbers of a report as one line.
pub fn words(report: &Value) -> String {
    let mut parts = Vec::new();
    gather("", report, &mut parts);
    parts.join(", ")
}

fn gather(name: &str, value: &Value, parts: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                // Means, counts by reason: the inner names say enough.
                gather(&key.replace('_', " "), value, parts);
            }
        }
        Value::Array(rows) => {
            for row in rows {
                let name = text(&row["name"]);
                if let Some(share) = row["share"].as_f64() {
                    parts.push(format!("{name} {share:.4}"));
                }
            }
        }
        Value::Number(count) if count.as_u64() == Some(0) => {}
        Value::Number(count) if count.is_u64() => parts.push(format!("{count} {name}")),
        Value::Number(x) => parts.push(format!("{name} {}", number(x.as_f64().unwrap_or(f64::NAN)))),
        _ => {}
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
