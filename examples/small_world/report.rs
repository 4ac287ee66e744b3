//! Tables and figures of the page of evidence, from the file of results alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use simplemix::eval::plot::{Band, Dot, Panel, ScatterPanel, Series, banded_svg, scatter_svg};
use simplemix::eval::{half_width_95, holm, mean, paired_t_test};
use simplemix::files;

use crate::arms::{MAIN, OTHERS, SHARES};
use crate::beside;
use crate::plan::{BETAS, GOALS, Goal, STAGES, Tuned, best_schedule, chosen, grid};
use crate::results::{Outcome, Row, Setting, Spec};

/// Lines of the page between which this program writes.
const BEGIN: &str = "<!-- begin: cargo run --release --example small_world -- --report -->";
const END: &str = "<!-- end -->";

type Measure = fn(&Outcome) -> f64;
const MEASURES: [(&str, Measure); 3] = [("reasoning", |o| o.right), ("open", |o| o.open), ("both", Outcome::both)];

/// Claims of the plan: name, better, worse, name of the measure, measure, and the goal at whose settings it is tested.
type Claim = (&'static str, &'static str, &'static str, &'static str, Measure, Goal);
const CLAIMS: [Claim; 5] = [
    ("1: on-policy pairs are better on reasoning", "on", "off", "reasoning", |o| o.right, Goal::Reasoning),
    ("2: off-policy pairs are better on open-ended tasks", "off", "on", "open", |o| o.open, Goal::Open),
    ("3a: half is better than off-policy pairs", "half", "off", "both", Outcome::both, Goal::Both),
    ("3b: half is better than on-policy pairs", "half", "on", "both", Outcome::both, Goal::Both),
    ("4: a schedule is better than half in every batch", "best schedule", "half", "both", Outcome::both, Goal::Both),
];

fn title(goal: Goal) -> &'static str {
    match goal {
        Goal::Reasoning => "Each arm at its best setting for reasoning",
        Goal::Open => "Each arm at its best setting for the open-ended task",
        Goal::Both => "Each arm at its best setting for both",
    }
}

/// Writes figures beside the page, and tables into it.
pub(crate) fn write(rows: &[Row], page: &Path) -> Result<()> {
    if rows.is_empty() {
        bail!("there are no results yet; run without --report first");
    }
    let mut text = done(rows);
    for (size, title) in [("1m", "One million weights"), ("5m", "Five million weights")] {
        if rows.iter().any(|row| row.spec.size == size && row.spec.base > 0) {
            let _ = write!(text, "### {title}\n\n{}{}", claims(rows, size), alike(rows, size));
            for goal in GOALS {
                text.push_str(&arms(rows, size, goal));
            }
        }
    }
    text.push_str(&tuning(rows));
    text.push_str(&maps(rows));
    let figures = [
        (
            "reasoning-kl.svg",
            "Reasoning against the divergence from the base, a point a setting",
            against_kl(rows, true)?,
        ),
        (
            "open-kl.svg",
            "Open-ended reward against the divergence from the base, a point a setting",
            against_kl(rows, false)?,
        ),
        ("shares.svg", "Gains on both tasks and their mean against the share of on-policy pairs", shares(rows)?),
    ];
    let folder = beside(page, "");
    files::create_dir_all(&folder)?;
    for (name, alt, svg) in &figures {
        if let Some(svg) = svg {
            files::write(folder.join(name), svg)?;
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
    let mut plans: Vec<&str> = Vec::new();
    for row in rows {
        if !plans.contains(&row.plan.as_str()) {
            plans.push(&row.plan);
        }
    }
    let hours = rows.iter().map(|row| row.seconds).sum::<f64>() / 3600.0;
    let _ =
        writeln!(text, "\nPlans of commits {}; {hours:.1} hours of one core without pre-training.\n", plans.join(", "));
    text
}

/// Runs of the comparison: 1024 pairs, far writers, no early base, at the arm's own setting.
fn compared<'a>(rows: &'a [Row], size: &str, arm: &str, goal: Goal) -> Vec<&'a Row> {
    let wanted = setting_of(rows, arm, goal);
    let is = |row: &&Row| {
        let Spec { base, early, near, pairs, setting, .. } = &row.spec;
        row.spec.size == size
            && row.spec.arm == arm
            && (*base > 0 && !early && !near && *pairs == 1024)
            && wanted == Some(*setting)
    };
    let mut found: Vec<&Row> = rows.iter().filter(is).collect();
    found.sort_by_key(|row| row.spec.seed);
    found.dedup_by_key(|row| row.spec.seed);
    found
}

fn all_arms() -> impl Iterator<Item = &'static str> {
    std::iter::once("start").chain(MAIN).chain(OTHERS)
}

fn setting_of(rows: &[Row], arm: &str, goal: Goal) -> Option<Setting> {
    if arm == "start" { Some(Setting::default()) } else { chosen(rows, arm, goal).ok() }
}

fn arms(rows: &[Row], size: &str, goal: Goal) -> String {
    let mut text = format!("#### {}, {}\n\n", title(goal), if size == "1m" { "1 M weights" } else { "5 M weights" });
    text.push_str(
        "| arm | seeds | reasoning, % right (gain) | greedy | open (gain) | both (gain) | KL, nats | direct / chain / columns, % | foreign, % | \
         characters | not ended, % | rate x epochs, beta | updates |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let start = compared(rows, size, "start", goal);
    for arm in all_arms() {
        let found = compared(rows, size, arm, goal);
        if found.is_empty() {
            continue;
        }
        let values = |of: Measure| found.iter().map(|row| of(&row.outcome)).collect::<Vec<f64>>();
        let over = |of: Measure| mean(&values(of));
        // Bases differ by more than arms do, so the interval is that of the gain.
        let with = |of: Measure| match arm {
            "start" => interval(&values(of)),
            _ => {
                let gains = differences(&found, &start, of);
                let half = half_width_95(&gains);
                let width = if half.is_finite() { format!(" ± {half:.1}") } else { String::new() };
                format!("{:.1} ({:+.1}{width})", over(of), mean(&gains))
            }
        };
        let setting = found.first().map(|row| row.spec.setting);
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
            setting.filter(|_| arm != "start").map_or_else(|| "-".into(), |setting| setting.to_string()),
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

/// Mean differences of each base, whose seeds have it in common.
fn differences_of_bases(better: &[&Row], worse: &[&Row], of: Measure) -> Vec<f64> {
    let bases: BTreeSet<u64> = better.iter().map(|row| row.spec.base).collect();
    fn own<'a>(rows: &[&'a Row], base: u64) -> Vec<&'a Row> {
        rows.iter().copied().filter(|row| row.spec.base == base).collect()
    }
    let of_base = |base: u64| differences(&own(better, base), &own(worse, base), of);
    bases.into_iter().map(of_base).filter(|found| !found.is_empty()).map(|found| mean(&found)).collect()
}

fn claims(rows: &[Row], size: &str) -> String {
    let schedule = best_schedule(rows).unwrap_or("none");
    let named = |arm: &'static str| if arm == "best schedule" { schedule } else { arm };
    let tested: Vec<_> = CLAIMS
        .iter()
        .map(|(claim, better, worse, by, of, goal)| {
            let (better, worse) = (named(better), named(worse));
            let pair = (compared(rows, size, better, *goal), compared(rows, size, worse, *goal));
            let over_bases = half_width_95(&differences_of_bases(&pair.0, &pair.1, *of));
            (claim, better, worse, by, over_bases, differences(&pair.0, &pair.1, *of))
        })
        .collect();
    let corrected = holm(&tested.iter().map(|(.., found)| paired_t_test(found)).collect::<Vec<_>>());
    let mut text = String::from(
        "| claim | difference | by | seeds | points, 95 % over seeds | 95 % over bases | p | p, Holm | verdict | by seed |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for ((claim, better, worse, by, over_bases, found), holm) in tested.iter().zip(corrected) {
        let by_seed: Vec<String> = found.iter().map(|value| format!("{value:+.1}")).collect();
        let (difference, half) = (mean(found), half_width_95(found));
        let _ = writeln!(
            text,
            "| {claim} | {better} - {worse} | {by} | {} | {} | {} | {:.3} | {holm:.3} | {} | {} |",
            found.len(),
            if half.is_finite() { format!("{difference:+.1} ± {half:.1}") } else { "-".into() },
            if over_bases.is_finite() { format!("± {over_bases:.1}") } else { "-".into() },
            paired_t_test(found),
            verdict(difference, half, holm),
            by_seed.join(", "),
        );
    }
    text.push('\n');
    text
}

/// Off, half and on at settings that all three have, which happen to move them about equally far. Not planned, so not tested.
fn alike(rows: &[Row], size: &str) -> String {
    let mut text = String::new();
    for goal in GOALS {
        let Some(setting) = setting_of(rows, "off", goal) else { continue };
        let [off, half, on] = ["off", "half", "on"].map(|arm| {
            let goal = GOALS.into_iter().find(|goal| setting_of(rows, arm, *goal) == Some(setting));
            goal.map(|goal| compared(rows, size, arm, goal)).unwrap_or_default()
        });
        if [&off, &half, &on].iter().any(|found| found.is_empty()) {
            continue;
        }
        let signed = |better: &[&Row], worse: &[&Row], of: Measure| {
            let found = differences(better, worse, of);
            format!("{:+.1} ± {:.1}", mean(&found), half_width_95(&found))
        };
        let kl = |found: &[&Row]| {
            let over = |of: Measure| mean(&found.iter().map(|row| of(&row.outcome)).collect::<Vec<_>>());
            format!("{:.2} / {:.2}", over(|o| o.kl_reasoning), over(|o| o.kl_open))
        };
        let _ = write!(
            text,
            "#### Off, half and on at one setting ({setting})\n\nNot planned, so without a verdict. Divergence in nats on reasoning and on the open \
             task: off {}, half {}, on {}.\n\n| by | on - off | half - off | half - on |\n| --- | --- | --- | --- |\n",
            kl(&off),
            kl(&half),
            kl(&on)
        );
        for (name, of) in MEASURES {
            let cells = [signed(&on, &off, of), signed(&half, &off, of), signed(&half, &on, of)];
            let _ = writeln!(text, "| {name} | {} |", cells.join(" | "));
        }
        text.push('\n');
    }
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

/// Chosen settings with what tuning gave them.
fn tuning(rows: &[Row]) -> String {
    let mut text = String::new();
    for arm in MAIN.into_iter().chain(OTHERS) {
        for goal in GOALS {
            let Some(setting) = setting_of(rows, arm, goal) else { continue };
            let Some(tuned) = Tuned::of(rows, arm, setting) else { continue };
            let name = match goal {
                Goal::Reasoning => "reasoning",
                Goal::Open => "open",
                Goal::Both => "both",
            };
            let _ = writeln!(
                text,
                "| {arm} | {name} | {setting} | {:.1} | {:.1} | {:.2} / {:.2} |",
                tuned.right, tuned.open, tuned.kl_reasoning, tuned.kl_open
            );
        }
    }
    let Some(start) = Tuned::start(rows).filter(|_| !text.is_empty()) else { return String::new() };
    format!(
        "### Tuning\n\nWhat was chosen, on the prompts and seeds of tuning, where the base has {:.1} and {:.1}.\n\n\
         | arm | for | rate x epochs, beta | reasoning, % right | open | KL, nats |\n| --- | --- | --- | --- | --- | --- |\n{text}\n{}",
        start.right,
        start.open,
        by_beta(rows, &start)
    )
}

/// The largest gain in open-ended reward of each arm among the settings of a beta that lose no right answers.
fn by_beta(rows: &[Row], start: &Tuned) -> String {
    let mut text = String::from(
        "The largest gain in open-ended reward at each beta, of the settings that lose no right answers, and the gain in right answers there:\n\n",
    );
    let _ = writeln!(text, "| beta | {} |\n| --- |{}", MAIN.join(" | "), " --- |".repeat(MAIN.len()));
    for beta in BETAS {
        let of_arm = |arm: &str| {
            let tuned = grid(rows, arm).unwrap_or_default();
            let kept = tuned.iter().filter(|(setting, _)| setting.beta == beta).filter_map(|(_, tuned)| *tuned);
            let best = kept.filter(|tuned| tuned.right >= start.right).max_by(|a, b| a.open.total_cmp(&b.open));
            best.map_or_else(
                || "none".into(),
                |best| format!("{:+.1}, {:+.1}", best.open - start.open, best.right - start.right),
            )
        };
        let _ = writeln!(text, "| {beta} | {} |", MAIN.map(of_arm).join(" | "));
    }
    text.push('\n');
    text
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
        "### Maps\n\nSettings of the tuning at 1024 pairs and far writers; three seeds of each cell.\n\n\
         | base | writers | pairs | start right, % | on - off, reasoning | off - on, open | half - off, both | half - on, both |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for (early, near, pairs) in cells {
        let of = |arm: &str, goal: Goal| -> Vec<&Row> {
            let wanted = setting_of(rows, arm, goal);
            let is = |row: &&Row| {
                let Spec { base, seed, setting, .. } = &row.spec;
                (row.spec.early, row.spec.near, row.spec.pairs) == (early, near, pairs)
                    && (*base > 0 && *seed <= 3 && row.spec.size == "1m" && row.spec.arm == arm)
                    && wanted == Some(*setting)
            };
            rows.iter().filter(is).collect()
        };
        let start = of("start", Goal::Both);
        let difference = |better: &str, worse: &str, measure: Measure, goal: Goal| {
            differences(&of(better, goal), &of(worse, goal), measure)
        };
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
            signed(difference("on", "off", |o| o.right, Goal::Reasoning)),
            signed(difference("off", "on", |o| o.open, Goal::Open)),
            signed(difference("half", "off", Outcome::both, Goal::Both)),
            signed(difference("half", "on", Outcome::both, Goal::Both)),
        );
    }
    text.push('\n');
    text
}

/// Largest divergence in the figures.
const FAR: f64 = 6.0;

/// A task against its divergence, a point a setting of tuning, and the base.
fn against_kl(rows: &[Row], reasoning: bool) -> Result<Option<String>> {
    let Some(start) = Tuned::start(rows) else { return Ok(None) };
    let at = |tuned: &Tuned| if reasoning { (tuned.kl_reasoning, tuned.right) } else { (tuned.kl_open, tuned.open) };
    let mut dots = vec![Dot { series: "base".into(), at: at(&start) }];
    for arm in ["off", "half", "on"] {
        for tuned in grid(rows, arm)?.iter().filter_map(|(_, tuned)| tuned.as_ref()) {
            let at = at(tuned);
            if at.0 <= FAR {
                dots.push(Dot { series: arm.to_owned(), at });
            }
        }
    }
    if dots.len() == 1 {
        return Ok(None);
    }
    let (name, y) = if reasoning { ("Reasoning", "% right") } else { ("Open task", "reward, 0 to 100") };
    let panel = ScatterPanel {
        title: format!("{name} against divergence, up to {FAR:.0} nats"),
        x: "KL to the base on this task, nats an answer".into(),
        y: y.into(),
        dots,
    };
    Ok(Some(scatter_svg(&panel)?))
}

/// Gains on both tasks against the share of on-policy pairs; bands from the lowest to the highest seed.
fn shares(rows: &[Row]) -> Result<Option<String>> {
    let start = compared(rows, "1m", "start", Goal::Both);
    let (mut series, mut bands) = (Vec::new(), Vec::new());
    for (name, of) in MEASURES {
        let (mut points, mut band) = (Vec::new(), Band::new());
        for (arm, share) in SHARES {
            let values = differences(&compared(rows, "1m", arm, Goal::Both), &start, of);
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
        title: "Gain over the base of the same seed, points".into(),
        x: "share of on-policy pairs".into(),
        series,
        smooth: false,
        baseline: None,
    };
    Ok(Some(banded_svg(&panel, &bands)?))
}
