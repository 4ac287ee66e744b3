//! Panels of curves.

use std::path::Path;

use plotters::prelude::*;

use super::canvas::{
    Area, Bounds, COLOURS, Chart, INK, PANEL_LEGEND, SIZE, axes, failed, legend, legend_height, on_canvas, range,
    title_style,
};
use super::thin::{outline, running_mean, thinned};
use crate::error::{Error, Result};

/// A curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64)>,
}

/// A plot of curves.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Title.
    pub title: String,
    /// Label of the horizontal axis.
    pub x: String,
    /// Curves.
    pub series: Vec<Series>,
    /// Whether to draw a running mean over the points, because they are noisy.
    pub smooth: bool,
    /// Height of a horizontal line, such as a starting value.
    pub baseline: Option<f64>,
}

/// Most points of a drawn line; longer curves are thinned ([`thinned`]).
const LINE_POINTS: usize = 400;
/// Most points of a line that are also marked by dots.
const DOTS: usize = 60;
/// Number of stretches of a longer curve whose lowest and highest points are drawn.
const OUTLINE: usize = 150;
/// Band around a series: `x`, lowest and highest value.
pub type Band = Vec<(f64, f64, f64)>;

/// Writes `panels`, side by side, to an SVG file, atomically and durably.
///
/// # Errors
/// Those of [`svg`]; [`Error::File`] if the file cannot be written.
pub fn write_svg(path: &Path, panels: &[Panel]) -> Result<()> {
    Ok(simplemix_files::write(path, svg(panels)?)?)
}

/// Draws `panels` side by side, as SVG text.
///
/// # Errors
/// [`Error::EmptyPlot`] if a panel has no finite point, or [`Error::Draw`].
///
/// # Examples
/// ```
/// use simplemix_eval::plot::{Panel, Series, svg};
///
/// let loss = Series { name: "loss".into(), points: vec![(1.0, 0.69), (2.0, 0.61), (3.0, 0.55)] };
/// let panel = Panel {
///     title: "Loss".into(),
///     x: "step".into(),
///     series: vec![loss],
///     smooth: false,
///     baseline: Some(0.69),
/// };
/// assert!(svg(&[panel])?.starts_with("<svg"));
/// # Ok::<(), simplemix_eval::Error>(())
/// ```
pub fn svg(panels: &[Panel]) -> Result<String> {
    let count = panels.len().max(1);
    on_canvas((SIZE.0 * count as u32, SIZE.1), |root| {
        root.split_evenly((1, count))
            .iter()
            .zip(panels)
            .try_for_each(|(area, panel)| draw(area, panel, &[], Surroundings::Wanted))
    })
}

/// Draws a panel as SVG text, with a shaded band behind each series; `bands` are in the order of the series, and may be
/// empty.
///
/// # Errors
/// Those of [`svg`].
pub fn banded_svg(panel: &Panel, bands: &[Band]) -> Result<String> {
    let names: Vec<&str> = panel.series.iter().map(|series| series.name.as_str()).collect();
    let height = if names.len() > 1 { legend_height(names.len(), PANEL_LEGEND) } else { 0 };
    on_canvas((SIZE.0, SIZE.1 + height as u32), |root| {
        // Names of arms are long, so the legend is above the curves, not among them.
        let (head, chart) = root.split_vertically(30 + height);
        head.draw_text(&panel.title, &title_style(root), (14, 12)).map_err(failed)?;
        if names.len() > 1 {
            legend(&head, &names, PANEL_LEGEND)?;
        }
        draw(&chart, panel, bands, Surroundings::Drawn)
    })
}

/// Whether title and legend are still to be drawn.
#[derive(Clone, Copy, PartialEq)]
enum Surroundings {
    Wanted,
    Drawn,
}

fn draw(area: &Area<'_>, panel: &Panel, bands: &[Band], around: Surroundings) -> Result<()> {
    let (x, y) = bounds(panel, bands).ok_or_else(|| Error::EmptyPlot { title: panel.title.clone() })?;
    let mut builder = ChartBuilder::on(area);
    if around == Surroundings::Wanted {
        builder.caption(&panel.title, title_style(area));
    }
    let mut chart = builder
        .margin(14)
        .margin_right(26)
        .x_label_area_size(34)
        .y_label_area_size(52)
        .build_cartesian_2d(x.clone(), y.clone())
        .map_err(failed)?;
    axes(&mut chart, (&panel.x, &x), (None, &y))?;
    if let Some(level) = panel.baseline {
        let line = DashedLineSeries::new([(x.start, level), (x.end, level)], 4, 4, INK.mix(0.5).stroke_width(1));
        chart.draw_series(line).map_err(failed)?;
    }
    for (band, colour) in bands.iter().zip(COLOURS.iter().cycle()) {
        shade(&mut chart, band, *colour)?;
    }
    for (series, colour) in panel.series.iter().zip(COLOURS.iter().cycle()) {
        curve(&mut chart, series, *colour, panel.smooth)?;
    }
    if panel.series.len() > 1 && around == Surroundings::Wanted {
        chart
            .configure_series_labels()
            .position(freest_corner(panel, &x, &y))
            .background_style(WHITE.mix(0.85))
            .border_style(TRANSPARENT)
            .label_font(("sans-serif", 13, &INK))
            .draw()
            .map_err(failed)?;
    }
    Ok(())
}

fn shade(chart: &mut Chart<'_, '_>, band: &Band, colour: RGBColor) -> Result<()> {
    let there = band.iter().map(|p| (p.0, p.1));
    let back = band.iter().rev().map(|p| (p.0, p.2));
    let outline: Vec<(f64, f64)> = there.chain(back).filter(|p| p.1.is_finite()).collect();
    if !outline.is_empty() {
        let area = Polygon::new(outline, colour.mix(0.18).filled());
        chart.draw_series(std::iter::once(area)).map_err(failed)?;
    }
    Ok(())
}

fn curve(chart: &mut Chart<'_, '_>, series: &Series, colour: RGBColor, smooth: bool) -> Result<()> {
    let points: Vec<(f64, f64)> = series.points.iter().copied().filter(|p| p.1.is_finite()).collect();
    let line = if smooth { running_mean(&points) } else { points.clone() };
    let (is_long, is_dot) = (points.len() > LINE_POINTS, points.len() < 2);
    if smooth && is_long {
        let noise = outline(&points, OUTLINE);
        chart.draw_series(LineSeries::new(noise, colour.mix(0.25).stroke_width(1))).map_err(failed)?;
    } else if smooth || points.len() <= DOTS {
        let (size, share) = if smooth && !is_dot { (2, 0.35) } else { (3, 1.0) };
        let dots = points.iter().map(|&p| Circle::new(p, size, colour.mix(share).filled()));
        chart.draw_series(dots).map_err(failed)?;
    }
    // A line of one point would be none.
    let line = if is_dot { Vec::new() } else { thinned(&line, LINE_POINTS) };
    chart
        .draw_series(LineSeries::new(line, colour.stroke_width(2)))
        .map_err(failed)?
        .label(&series.name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(3)));
    Ok(())
}

/// Corner with the fewest points, for the legend.
fn freest_corner(panel: &Panel, x: &Bounds, y: &Bounds) -> SeriesLabelPosition {
    let place = |value: f64, range: &Bounds| (value - range.start) / (range.end - range.start);
    let held = |right: bool, upper: bool| {
        let inside = |&&(a, b): &&(f64, f64)| {
            let (across, up) = (place(a, x), place(b, y));
            (if right { across > 0.6 } else { across < 0.4 }) && (if upper { up > 0.7 } else { up < 0.3 })
        };
        panel.series.iter().flat_map(|s| &s.points).filter(inside).count()
    };
    let corners = [
        (held(false, true), SeriesLabelPosition::UpperLeft),
        (held(true, false), SeriesLabelPosition::LowerRight),
        (held(true, true), SeriesLabelPosition::UpperRight),
        (held(false, false), SeriesLabelPosition::LowerLeft),
    ];
    let freest = corners.into_iter().min_by_key(|(points, _)| *points);
    freest.map_or(SeriesLabelPosition::UpperLeft, |(_, corner)| corner)
}

/// Ranges that hold every finite point, with a margin.
fn bounds(panel: &Panel, bands: &[Band]) -> Option<(Bounds, Bounds)> {
    let finite = || panel.series.iter().flat_map(|s| &s.points).filter(|p| p.0.is_finite() && p.1.is_finite());
    let edges = bands.iter().flatten().flat_map(|p| [p.1, p.2]).filter(|y| y.is_finite());
    let heights = finite().map(|p| p.1).chain(panel.baseline).chain(edges).collect();
    finite().next()?;
    Some((range(finite().map(|p| p.0).collect(), 0.02)?, range(heights, 0.12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(points: Vec<(f64, f64)>) -> Panel {
        let series = |name: &str| Series { name: name.into(), points: points.clone() };
        Panel {
            title: "Loss".into(),
            x: "update".into(),
            series: vec![series("off"), series("on")],
            smooth: true,
            baseline: Some(0.5),
        }
    }

    #[test]
    fn a_plot_is_the_same_twice_and_names_its_curves() {
        let panels = [panel((0..20).map(|i| (f64::from(i), f64::from(i).sin())).collect())];
        let text = svg(&panels).unwrap();
        assert_eq!(text, svg(&panels).unwrap());
        for part in ["<svg", "Loss", "update", "off", "on"] {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn a_curve_of_one_point_is_a_dot() {
        for smooth in [false, true] {
            let text = svg(&[Panel { smooth, ..panel(vec![(3.0, 0.5)]) }]).unwrap();
            assert!(text.contains("<circle"), "{text}");
            let lines = text.split("points=\"").skip(1).map(|rest| rest.split('"').next().unwrap());
            assert!(lines.into_iter().all(|points| points.matches(',').count() > 1), "{text}");
        }
    }

    #[test]
    fn points_that_are_nan_are_left_out() {
        assert!(svg(&[panel(vec![(0.0, 1.0), (1.0, f64::NAN)])]).is_ok());
        let error = svg(&[panel(vec![(0.0, f64::NAN)])]).unwrap_err();
        assert_eq!(error.to_string(), "plot `Loss` has no finite point to draw");
    }
}
