//! Tables and figures of the page of evidence, from the file of results alone.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use simplemix::eval::plot::{Band, Dot, Panel, ScatterPanel, Series, banded_svg, scatter_svg};
use simplemix::eval::{half_width_95, holm, mean, paired_t_test};
use simplemix::files;

use crate::arms::{MAIN, OTHERS, SHARES};
use crate::beside;
use crate::plan::{STAGES, Setting, best_schedule, chosen, grid};
use crate::results::{Outcome, Row, Spec};

/// Lines of the page between which this program writes.
const BEGIN: &str = "<!-- begin: cargo run --release --example small_world -- --report -->";
const END: &str = "<!-- end -->";

type Measure = fn(&Outcome) -> f64;

/// Claims of the plan: name, better, worse, measure.
const CLAIMS: [(&str, &str, &str, &str, Measure); 5] = [
    ("1: on-policy pairs are better on reasoning", "on", "off", "reasoning", |o| o.right),
    ("2: off-policy pairs are better on open-ended tasks", "off", "on", "open", |o| o.open),
    ("3a: half is better than off-policy pairs", "half", "off", "both", Outcome::both),
    ("3b: half is better than on-policy pairs", "half", "on", "both", Outcome::both),
    ("4: a schedule is better than half in every batch", "best schedule", "half", "both", Outcome::both),
];

/// Writes figures beside the page, and tables into it.
pub(crate) fn write(rows: &[Row], page: &Path) -> Result<()> {
    if rows.is_empty() {
        bail!("there are no results yet; run without --report first");
    }
    let mut text = done(rows);
    for (size, title) in [("1m", "One million weights"), ("5m", "Five million weights")] {
        if rows.iter().any(|row| row.spec.size == size && row.spec.base > 0) {
            let _ = write!(text, "### {title}\n\n{}{}", arms(rows, size), claims(rows, size));
        }
    }
    text.push_str(&tuning(rows));
    text.push_str(&maps(rows));
    let figures = [("reward-kl.svg", reward_kl(rows)?), ("shares.svg", shares(rows)?)];
    let folder = beside(page, "");
    files::create_dir_all(&folder)?;
    for (name, svg) in &figures {
        if let Some(svg) = svg {
            files::write(folder.join(name), svg)?;
            let alt = if *name == "shares.svg" {
                "Both tasks and their mean against the share of on-policy pairs"
            } else {
                "Mean of both tasks against the divergence from the base, a point a run"
            };
            let _ = writeln!(text, "![{alt}](evidence/{name})\n");
        }
    }
    print!("{text}");
    let before = std::fs::read_to_string(page).with_context(|| format!("{}: cannot read", page.display()))?;
    let parts = before.split_once(BEGIN).and_then(|(head, rest)| Some((head, rest.split_once(END)?.1)));
    let (head, tail) =
        parts.with_context(|| format!("{}: has no lines `{BEGIN}` and `{END}` to write between", page.display()))?;
    Ok(files::write(page, format!("{head}{BEGIN}\n\n{text}{END}{tail}"))?)
}

/// Runs that are done, of those that the plan has.
fn done(rows: &[Row]) -> String {
    let mut text = String::from("| stage | runs done | of |\n| --- | --- | --- |\n");
    for stage in STAGES {
        let (count, all) = match stage.runs(rows) {
            Ok(runs) => {
                let count = runs.iter().filter(|run| rows.iter().any(|row| row.spec == **run)).count();
                (count, runs.len().to_string())
            }
            Err(_) => (0, "not known before tuning".to_owned()),
        };
        let _ = writeln!(text, "| `{}` | {count} | {all} |", stage.name());
    }
    let mut plans: Vec<&str> = rows.iter().map(|row| row.plan.as_str()).collect();
    plans.dedup();
    let hours = rows.iter().map(|row| row.seconds).sum::<f64>() / 3600.0;
    let _ =
        writeln!(text, "\nPlan of commit {}; {hours:.1} hours of one core without pre-training.\n", plans.join(", "));
    text
}

/// Runs of the comparison: 1024 pairs, far writers, no early base, at the arm's own setting.
fn compared<'a>(rows: &'a [Row], size: &str, arm: &str) -> Vec<&'a Row> {
    let setting = match arm {
        "start" => Some((0.0, 0)),
        arm => chosen(rows, arm).ok(),
    };
    let is = |row: &&Row| {
        let Spec { base, early, near, pairs, rate, epochs, .. } = &row.spec;
        row.spec.size == size
            && row.spec.arm == arm
            && (*base > 0 && !early && !near && *pairs == 1024)
            && setting == Some((*rate, *epochs))
    };
    let mut found: Vec<&Row> = rows.iter().filter(is).collect();
    found.sort_by_key(|row| row.spec.seed);
    found.dedup_by_key(|row| row.spec.seed);
    found
}

fn all_arms() -> impl Iterator<Item = &'static str> {
    std::iter::once("start").chain(MAIN).chain(OTHERS)
}

fn setting_text((rate, epochs): Setting) -> String {
    format!("{rate:e} x {epochs}")
}

fn arms(rows: &[Row], size: &str) -> String {
    let mut text = String::from(
        "| arm | seeds | reasoning, % right | greedy | open | both | KL, nats | direct / chain / columns, % | foreign, % | \
         characters | not ended, % | rate x epochs | updates |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for arm in all_arms() {
        let found = compared(rows, size, arm);
        if found.is_empty() {
            continue;
        }
        let values = |of: Measure| found.iter().map(|row| of(&row.outcome)).collect::<Vec<f64>>();
        let over = |of: Measure| mean(&values(of));
        let with = |of: Measure| interval(&values(of));
        let setting = found.first().map(|row| (row.spec.rate, row.spec.epochs));
        let _ = writeln!(
            text,
            "| {arm} | {} | {} | {:.1} | {} | {} | {:.2} / {:.2} | {:.0} / {:.0} / {:.0} | {:.0} | {:.1} / {:.1} | {:.1} | {} | {:.0} |",
            found.len(),
            with(|o| o.right),
            over(|o| o.right_greedy),
            with(|o| o.open),
            with(Outcome::both),
            over(|o| o.kl_reasoning),
            over(|o| o.kl_open),
            over(|o| o.direct),
            over(|o| o.chain),
            over(|o| o.columns),
            over(|o| o.foreign),
            over(|o| o.length_reasoning),
            over(|o| o.length_open),
            over(|o| o.cut),
            setting.filter(|_| arm != "start").map_or_else(|| "-".into(), setting_text),
            over(|o| o.updates as f64),
        );
    }
    text.push('\n');
    text
}

/// Mean, and half of Student's 95 % interval over seeds.
fn interval(values: &[f64]) -> String {
    let half = half_width_95(values);
    if half.is_finite() { format!("{:.1} ± {half:.1}", mean(values)) } else { format!("{:.1}", mean(values)) }
}

/// Differences of two lists of runs by seed.
fn differences(better: &[&Row], worse: &[&Row], of: Measure) -> Vec<f64> {
    let other: BTreeMap<u64, f64> = worse.iter().map(|row| (row.spec.seed, of(&row.outcome))).collect();
    better.iter().filter_map(|row| Some(of(&row.outcome) - other.get(&row.spec.seed)?)).collect()
}

fn claims(rows: &[Row], size: &str) -> String {
    let schedule = best_schedule(rows).unwrap_or("none");
    let named = |arm: &'static str| if arm == "best schedule" { schedule } else { arm };
    let tested: Vec<_> = CLAIMS
        .iter()
        .map(|(claim, better, worse, by, of)| {
            let (better, worse) = (named(better), named(worse));
            let found = differences(&compared(rows, size, better), &compared(rows, size, worse), *of);
            (claim, better, worse, by, found)
        })
        .collect();
    let corrected = holm(&tested.iter().map(|(.., found)| paired_t_test(found)).collect::<Vec<_>>());
    let mut text = String::from(
        "| claim | difference | by | seeds | points, 95 % over seeds | p | p, Holm | verdict | by seed |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for ((claim, better, worse, by, found), holm) in tested.iter().zip(corrected) {
        let by_seed: Vec<String> = found.iter().map(|value| format!("{value:+.1}")).collect();
        let (difference, half) = (mean(found), half_width_95(found));
        let _ = writeln!(
            text,
            "| {claim} | {better} - {worse} | {by} | {} | {} | {:.3} | {holm:.3} | {} | {} |",
            found.len(),
            if half.is_finite() { format!("{difference:+.1} ± {half:.1}") } else { "-".into() },
            paired_t_test(found),
            verdict(difference, half, holm),
            by_seed.join(", "),
        );
    }
    text.push('\n');
    text
}

/// The plan's reading of a difference.
fn verdict(difference: f64, half: f64, holm: f64) -> &'static str {
    match () {
        () if !half.is_finite() => "not run",
        () if holm < 0.05 && difference > 0.0 => "shown",
        () if holm < 0.05 => "reversed",
        () if difference + half < 1.0 => "refuted at one point",
        () => "open",
    }
}

fn tuning(rows: &[Row]) -> String {
    let mut text = String::new();
    for arm in MAIN.into_iter().chain(OTHERS) {
        let of = |(setting, value): (Setting, Option<f64>)| {
            let value = value?;
            let runs = rows
                .iter()
                .filter(|row| row.spec.base == 0 && row.spec.arm == arm && (row.spec.rate, row.spec.epochs) == setting);
            let kl = mean(&runs.map(|row| row.outcome.kl()).collect::<Vec<_>>());
            Some(format!("{}: {value:.1} ({kl:.2})", setting_text(setting)))
        };
        let cells: Vec<String> = grid(rows, arm).into_iter().filter_map(of).collect();
        if !cells.is_empty() {
            let _ = writeln!(text, "- {arm}: {}", cells.join("; "));
        }
    }
    if text.is_empty() {
        return text;
    }
    format!("### Tuning\n\nRate x epochs: mean of both tasks on the tuning prompts (KL, nats), two seeds.\n\n{text}\n")
}

/// Differences over two axes.
fn maps(rows: &[Row]) -> String {
    let mut cells: Vec<(bool, bool, usize)> = Vec::new();
    for row in rows.iter().filter(|row| row.spec.base > 0 && row.spec.size == "1m" && row.spec.arm == "half") {
        let cell = (row.spec.early, row.spec.near, row.spec.pairs);
        if !cells.contains(&cell) {
            cells.push(cell);
        }
    }
    cells.sort_unstable();
    if cells.len() < 2 {
        return String::new();
    }
    let mut text = String::from(
        "### Maps\n\nRates of the tuning at 1024 pairs and far writers; three seeds of each cell.\n\n\
         | base | writers | pairs | start right, % | on - off, reasoning | off - on, open | half - off, both | half - on, both |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (early, near, pairs) in cells {
        let of = |arm: &str| -> Vec<&Row> {
            let setting = if arm == "start" { Some((0.0, 0)) } else { chosen(rows, arm).ok() };
            let is = |row: &&Row| {
                let Spec { base, seed, rate, epochs, .. } = &row.spec;
                (row.spec.early, row.spec.near, row.spec.pairs) == (early, near, pairs)
                    && (*base > 0 && *seed <= 3 && row.spec.size == "1m" && row.spec.arm == arm)
                    && setting == Some((*rate, *epochs))
            };
            rows.iter().filter(is).collect()
        };
        let [start, off, half, on] = ["start", "off", "half", "on"].map(of);
        let signed = |values: Vec<f64>| match half_width_95(&values) {
            width if width.is_finite() => format!("{:+.1} ± {width:.1}", mean(&values)),
            _ => "-".into(),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {pairs} | {} | {} | {} | {} | {} |",
            if early { "early" } else { "whole" },
            if near { "near" } else { "far" },
            interval(&start.iter().map(|row| row.outcome.right).collect::<Vec<_>>()),
            signed(differences(&on, &off, |o| o.right)),
            signed(differences(&off, &on, |o| o.open)),
            signed(differences(&half, &off, Outcome::both)),
            signed(differences(&half, &on, Outcome::both)),
        );
    }
    text.push('\n');
    text
}

/// Gain over the base of the same seed against the divergence, a point a run of one million weights and 1024 pairs.
fn reward_kl(rows: &[Row]) -> Result<Option<String>> {
    let mut dots = Vec::new();
    for arm in ["off", "half", "on"] {
        for row in rows.iter().filter(|row| row.spec.arm == arm && row.spec.size == "1m") {
            let Some(start) = rows.iter().find(|other| other.spec.arm == "start" && other.spec.shares_pool(&row.spec))
            else {
                continue;
            };
            if row.spec.pairs == 1024 && !row.spec.early && !row.spec.near {
                let at = (row.outcome.kl(), row.outcome.both() - start.outcome.both());
                dots.push(Dot { series: arm.to_owned(), at });
            }
        }
    }
    if dots.is_empty() {
        return Ok(None);
    }
    let panel = ScatterPanel {
        title: "Gain over the base against divergence".into(),
        x: "KL to the base, nats an answer, mean of both tasks".into(),
        y: "points, mean of both tasks".into(),
        dots,
    };
    Ok(Some(scatter_svg(&panel)?))
}

/// Both tasks against the share of on-policy pairs; bands from the lowest to the highest seed.
fn shares(rows: &[Row]) -> Result<Option<String>> {
    let measures: [(&str, Measure); 3] = [("reasoning", |o| o.right), ("open", |o| o.open), ("both", Outcome::both)];
    let (mut series, mut bands) = (Vec::new(), Vec::new());
    for (name, of) in measures {
        let (mut points, mut band) = (Vec::new(), Band::new());
        for (arm, share) in SHARES {
            let values: Vec<f64> = compared(rows, "1m", arm).iter().map(|row| of(&row.outcome)).collect();
            if values.is_empty() {
                continue;
            }
            let share = share as f64 / 100.0;
            points.push((share, mean(&values)));
            let end = |of: fn(f64, f64) -> f64, from: f64| values.iter().copied().fold(from, of);
            band.push((share, end(f64::min, f64::INFINITY), end(f64::max, f64::NEG_INFINITY)));
        }
        if points.is_empty() {
            return Ok(None);
        }
        series.push(Series { name: name.to_owned(), points });
        bands.push(band);
    }
    let panel = Panel {
        title: "% right, reward, and their mean".into(),
        x: "share of on-policy pairs".into(),
        series,
        smooth: false,
        baseline: None,
    };
    Ok(Some(banded_svg(&panel, &bands)?))
}
