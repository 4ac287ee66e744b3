//! Grouped horizontal bars with intervals.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::canvas::{
    AXIS, Area, COLOURS, Chart, INK, LABEL, LegendLayout, MESH, failed, legend, legend_height, names, on_canvas,
    shortened, tick, title_style,
};
use crate::error::{Error, Result};

/// A bar.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Group of the bar.
    pub group: String,
    /// Name of the bar's colour in the legend.
    pub series: String,
    /// Length of the bar.
    pub value: f64,
    /// Ends of the interval, if there is one.
    pub interval: Option<[f64; 2]>,
}

impl Bar {
    /// The interval, where its ends are numbers.
    fn interval(&self) -> Option<[f64; 2]> {
        self.interval.filter(|ends| ends.iter().all(|end| end.is_finite()))
    }
}

/// A plot of grouped bars.
#[derive(Debug, Clone, PartialEq)]
pub struct BarPanel {
    /// Title.
    pub title: String,
    /// Label of the horizontal axis.
    pub x: String,
    /// Bars; groups and series are drawn in the order of their first appearance.
    pub bars: Vec<Bar>,
    /// A value to mark, such as an even split.
    pub mark: Option<f64>,
}

const WIDTH: u32 = 520;
const LEGEND: LegendLayout = (2, 250);
/// Height of a bar.
const BAR: i32 = 16;
/// Height of the gap between groups.
const GAP: i32 = 12;
/// Height of title, axis and margins.
const AROUND: i32 = 94;

/// Draws grouped bars as SVG text.
///
/// # Errors
/// [`Error::EmptyPlot`] if no bar has a finite length, or [`Error::Draw`].
///
/// # Examples
/// ```
/// use simplemix_eval::plot::{Bar, BarPanel, bars_svg};
///
/// let bar = |series: &str, value| Bar {
///     group: "math".into(),
///     series: series.into(),
///     value,
///     interval: Some([value - 2.5, value + 2.5]),
/// };
/// let panel = BarPanel {
///     title: "Win rate".into(),
///     x: "percent".into(),
///     bars: vec![bar("off-policy", 41.0), bar("mixed", 52.0)],
///     mark: Some(50.0),
/// };
/// assert!(bars_svg(&panel)?.contains("off-policy"));
/// # Ok::<(), simplemix_eval::Error>(())
/// ```
pub fn bars_svg(panel: &BarPanel) -> Result<String> {
    let bars: Vec<&Bar> = panel.bars.iter().filter(|bar| bar.value.is_finite()).collect();
    if bars.is_empty() {
        return Err(Error::EmptyPlot { title: panel.title.clone() });
    }
    let groups = names(bars.iter().map(|bar| bar.group.as_str()));
    let series = names(bars.iter().map(|bar| bar.series.as_str()));
    let rows = groups.len() * series.len();
    let height = rows as i32 * BAR + groups.len() as i32 * GAP + AROUND + legend_height(series.len(), LEGEND);
    on_canvas((WIDTH, height as u32), |area| draw(area, panel, &bars, &groups, &series))
}

fn draw(area: &Area<'_>, panel: &BarPanel, bars: &[&Bar], groups: &[&str], series: &[&str]) -> Result<()> {
    let reach = |bar: &&Bar| bar.interval().map_or(bar.value, |[_, high]| high.max(bar.value));
    let most = bars.iter().map(reach).chain(panel.mark).fold(f64::MIN_POSITIVE, f64::max) * 1.08;
    let least = bars.iter().map(|bar| bar.value).fold(0.0, f64::min) * 1.08;
    let longest = groups.iter().map(|group| group.chars().count()).max().unwrap_or(0);
    let label = (longest as i32 * 7 + 16).clamp(60, 200);
    let title = title_style(area).pos(Pos::new(HPos::Left, VPos::Top));
    area.draw_text(&panel.title, &title, (14, 12)).map_err(failed)?;
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
        .bold_line_style(MESH)
        .axis_style(AXIS)
        .label_style(("sans-serif", LABEL, &INK))
        .draw()
        .map_err(failed)?;
    for bar in bars {
        draw_bar(&mut chart, bar, groups, series)?;
    }
    if let Some(mark) = panel.mark {
        let line = DashedLineSeries::new([(mark, 0.0), (mark, size)], 4, 4, INK.mix(0.6).stroke_width(1));
        chart.draw_series(line).map_err(failed)?;
    }
    for (number, group) in groups.iter().enumerate() {
        let (left, place) = chart.backend_coord(&(least, size - number as f64 - 0.5));
        let text = shortened(group, (label / 7) as usize);
        let style = ("sans-serif", LABEL, &INK).into_text_style(area).pos(Pos::new(HPos::Right, VPos::Center));
        area.draw_text(&text, &style, (left - 8, place)).map_err(failed)?;
    }
    Ok(())
}

fn draw_bar(chart: &mut Chart<'_, '_>, bar: &Bar, groups: &[&str], series: &[&str]) -> Result<()> {
    let index = |names: &[&str], name: &str| {
        names.iter().position(|known| *known == name).expect("the names were collected from the bars")
    };
    let (group, number) = (index(groups, &bar.group), index(series, &bar.series));
    let height = 0.8 / series.len() as f64;
    // The first group is at the top.
    let top = groups.len() as f64 - group as f64 - 0.1 - height * number as f64;
    let colour = COLOURS[number % COLOURS.len()];
    // A bar without length would be a rectangle that SVG does not have.
    if bar.value != 0.0 {
        let body = Rectangle::new([(0.0, top), (bar.value, top - height * 0.9)], colour.filled());
        chart.draw_series(std::iter::once(body)).map_err(failed)?;
    }
    if let Some([low, high]) = bar.interval() {
        let middle = top - height * 0.45;
        let whisker = [(low, middle), (high, middle)];
        let line = PathElement::new(whisker.to_vec(), INK.stroke_width(2));
        chart.draw_series(std::iter::once(line)).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_name_their_groups_and_series() {
        let bar = |group: &str, series: &str, value: f64, half_width: f64| Bar {
            group: group.into(),
            series: series.into(),
            value,
            interval: Some([value - half_width, value + half_width]),
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
        assert_eq!(bars_svg(&panel).unwrap_err().to_string(), "plot `Win rate` has no finite point to draw");
    }
}
