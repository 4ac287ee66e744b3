//! Grouped bars with intervals, to the right from zero.

use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{Area, COLOURS, INK, LABEL, PlotError, failed, on_canvas, tick};

/// A bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// The group that it stands in.
    pub group: String,
    /// What its colour stands for.
    pub series: String,
    /// Its length.
    pub value: f64,
    /// Half the width of its interval; not a number for none.
    pub half_width: f64,
}

/// Groups of bars on one axis.
#[derive(Debug, Clone, PartialEq)]
pub struct BarPanel {
    /// Headline.
    pub title: String,
    /// What the lengths are.
    pub x: String,
    /// Bars; groups and series come in the order that they first appear in.
    pub bars: Vec<Bar>,
    /// A value to mark, such as an even split.
    pub mark: Option<f64>,
}

const WIDTH: u32 = 640;
/// Names to a row of the legend, and pixels for each.
const LEGEND: (usize, i32) = (3, 208);
/// Heights of a bar, of the air between groups, and of what is around them.
const BAR: i32 = 16;
const AIR: i32 = 12;
const AROUND: i32 = 94;

/// The bars as SVG text.
///
/// # Errors
/// [`PlotError::Empty`] if no bar has a length, or [`PlotError::Draw`].
pub fn bars_svg(panel: &BarPanel) -> Result<String, PlotError> {
    let bars: Vec<&Bar> = panel.bars.iter().filter(|bar| bar.value.is_finite()).collect();
    if bars.is_empty() {
        return Err(PlotError::Empty { title: panel.title.clone() });
    }
    let groups = names(bars.iter().map(|bar| bar.group.as_str()));
    let series = names(bars.iter().map(|bar| bar.series.as_str()));
    let rows = groups.len() * series.len();
    let legend = legend_height(series.len(), LEGEND);
    let height = rows as i32 * BAR + groups.len() as i32 * AIR + AROUND + legend;
    on_canvas((WIDTH, height as u32), |area| draw(area, panel, &bars, &groups, &series))
}

fn draw(area: &Area<'_>, panel: &BarPanel, bars: &[&Bar], groups: &[&str], series: &[&str]) -> Result<(), PlotError> {
    let reach = |bar: &&Bar| bar.value + if bar.half_width.is_finite() { bar.half_width } else { 0.0 };
    let most = bars.iter().map(reach).chain(panel.mark).fold(f64::MIN_POSITIVE, f64::max) * 1.08;
    let least = bars.iter().map(|bar| bar.value).fold(0.0, f64::min) * 1.08;
    let longest = groups.iter().map(|group| group.chars().count()).max().unwrap_or_default();
    let label = (longest as i32 * 7 + 16).clamp(60, 220);
    let title = ("sans-serif", 17, FontStyle::Bold, &INK).into_text_style(area);
    area.draw_text(&panel.title, &title.pos(Pos::new(HPos::Left, VPos::Top)), (14, 12)).map_err(failed)?;
    let small = |anchor| ("sans-serif", LABEL, &INK).into_text_style(area).pos(anchor);
    legend(area, series, LEGEND)?;
    let (_, chart) = area.split_vertically(34 + legend_height(series.len(), LEGEND));
    let size = groups.len() as f64;
    let mut chart = ChartBuilder::on(&chart)
        .margin(14)
        .margin_left(label + 14)
        .margin_right(26)
        .x_label_area_size(40)
        .build_cartesian_2d(least..most, 0.0..size)
        .map_err(failed)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc(&panel.x)
        .x_labels(6)
        .x_label_formatter(&|value| tick(*value, &(least..most)))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 228, 228))
        .axis_style(RGBColor(150, 150, 150))
        .label_style(("sans-serif", LABEL, &INK))
        .draw()
        .map_err(failed)?;
    let share = 0.8 / series.len() as f64;
    for bar in bars {
        let group = groups.iter().position(|name| *name == bar.group).unwrap_or_default();
        let number = series.iter().position(|name| *name == bar.series).unwrap_or_default();
        // The first group is at the top.
        let top = size - group as f64 - 0.1 - share * number as f64;
        let colour = COLOURS[number % COLOURS.len()];
        let body = Rectangle::new([(0.0, top), (bar.value, top - share * 0.9)], colour.filled());
        chart.draw_series(std::iter::once(body)).map_err(failed)?;
        if bar.half_width.is_finite() {
            let middle = top - share * 0.45;
            let whisker = [(bar.value - bar.half_width, middle), (bar.value + bar.half_width, middle)];
            let line = PathElement::new(whisker.to_vec(), INK.stroke_width(2));
            chart.draw_series(std::iter::once(line)).map_err(failed)?;
        }
    }
    if let Some(mark) = panel.mark {
        let line = DashedLineSeries::new([(mark, 0.0), (mark, size)], 4, 4, INK.mix(0.6).stroke_width(1));
        chart.draw_series(line).map_err(failed)?;
    }
    for (number, group) in groups.iter().enumerate() {
        let (left, place) = chart.backend_coord(&(least, size - number as f64 - 0.5));
        let text = shortened(group, (label / 7) as usize);
        area.draw_text(&text, &small(Pos::new(HPos::Right, VPos::Center)), (left - 8, place)).map_err(failed)?;
    }
    Ok(())
}

/// Pixels that a legend of so many names takes; `layout` is names to a row, and pixels for each.
pub(super) fn legend_height(names: usize, layout: (usize, i32)) -> i32 {
    18 * names.div_ceil(layout.0) as i32
}

/// Draws what the colours stand for, below a headline.
pub(super) fn legend(area: &Area<'_>, series: &[&str], (columns, width): (usize, i32)) -> Result<(), PlotError> {
    let style = ("sans-serif", LABEL, &INK).into_text_style(area).pos(Pos::new(HPos::Left, VPos::Center));
    for (number, name) in series.iter().enumerate() {
        let (left, top) = (14 + width * (number % columns) as i32, 40 + 18 * (number / columns) as i32);
        let colour = COLOURS[number % COLOURS.len()];
        let patch = Rectangle::new([(left, top - 5), (left + 10, top + 5)], colour.filled());
        area.draw(&patch).map_err(failed)?;
        area.draw_text(&shortened(name, width as usize / 7), &style, (left + 16, top)).map_err(failed)?;
    }
    Ok(())
}

/// The text, or what fits of it.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The names in the order that they first appear in.
pub(super) fn names<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in all {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_name_their_groups_and_series() {
        let bar = |group: &str, series: &str, value, half_width| Bar {
            group: group.into(),
            series: series.into(),
            value,
            half_width,
        };
        let mut panel = BarPanel {
            title: "Win rate".into(),
            x: "percent".into(),
            bars: vec![bar("math", "on", 40.0, 3.0), bar("math", "off", 30.0, f64::NAN), bar("code", "on", 20.0, 1.0)],
            mark: Some(50.0),
        };
        let text = bars_svg(&panel).unwrap();
        for part in ["Win rate", "percent", "math", "code", "on", "off"] {
            assert!(text.contains(&format!("\n{part}\n")), "{part}");
        }
        assert_eq!(text.matches("<rect").count(), 1 + 3 + 2, "background, bars, legend");
        panel.bars.iter_mut().for_each(|bar| bar.value = f64::NAN);
        assert_eq!(bars_svg(&panel).unwrap_err().to_string(), "panel `Win rate` has no point to draw");
    }

    #[test]
    fn long_names_are_shortened() {
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("äöü", 3), "äöü");
    }
}
