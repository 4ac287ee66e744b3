//! Figures of a run: panels of curves side by side, as SVG.

mod bars;
mod png;
mod scatter;
mod thin;

use std::io::Write;
use std::path::{Path, PathBuf};

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::FontStyle;

pub use bars::{Bar, BarPanel, bars_svg};
pub use png::{PngFonts, png};
pub use scatter::{Dot, ScatterPanel, scatter_svg};
pub use thin::thinned;

use thin::{outline, running_mean};

/// A curve.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Points from left to right.
    pub points: Vec<(f64, f64)>,
}

/// One set of axes with its curves.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    /// Headline.
    pub title: String,
    /// What the horizontal axis counts.
    pub x: String,
    /// Curves.
    pub series: Vec<Series>,
    /// Whether points are noisy: a running mean is drawn over them.
    pub smooth: bool,
    /// A horizontal line with its meaning, such as a starting value.
    pub baseline: Option<f64>,
}

/// Why a figure could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlotError {
    /// A panel has no finite point.
    #[error("panel `{title}` has no point to draw")]
    Empty {
        /// The panel.
        title: String,
    },
    /// The drawing failed.
    #[error("cannot draw: {reason}")]
    Draw {
        /// Why.
        reason: String,
    },
    /// The file could not be written.
    #[error("{path}: cannot write")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

const SIZE: (u32, u32) = (420, 320);
/// Size of the axes' labels.
const LABEL: i32 = 14;
/// Points of a drawn line; longer curves are thinned to it ([`thinned`]).
const LINE_POINTS: usize = 400;
/// Most points of a line that are marked by dots too.
const DOTS: usize = 60;
/// Stretches of which a longer curve's lowest and highest points are drawn.
const OUTLINE: usize = 150;
/// Okabe and Ito's colours, told apart by colour-blind readers too.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(176, 122, 0),
    RGBColor(120, 94, 240),
];
const INK: RGBColor = RGBColor(60, 60, 60);

/// Where a series lies over several runs: `x`, lowest and highest value.
pub type Band = Vec<(f64, f64, f64)>;

/// Writes `panels` in a row to an SVG file; the same panels give the same bytes.
///
/// # Errors
/// [`PlotError`].
pub fn write_svg(path: &Path, panels: &[Panel]) -> Result<(), PlotError> {
    let text = svg(panels)?;
    let io = |source| PlotError::Io { path: path.to_owned(), source };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = temporary_in(folder).map_err(io)?;
    file.write_all(text.as_bytes()).map_err(io)?;
    file.persist(path).map_err(|e| io(e.error))?;
    Ok(())
}

/// A new file, as readable as any other; temporary files are private by default.
pub(crate) fn temporary_in(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// The figure as SVG text.
///
/// # Errors
/// [`PlotError::Empty`] or [`PlotError::Draw`].
pub fn svg(panels: &[Panel]) -> Result<String, PlotError> {
    let count = panels.len().max(1);
    on_canvas((SIZE.0 * count as u32, SIZE.1), |root| {
        root.split_evenly((1, count))
            .iter()
            .zip(panels)
            .try_for_each(|(area, panel)| draw(area, panel, &[], Surroundings::Wanted))
    })
}

/// One panel as SVG text, with a shaded band behind each series that has one; `bands` are in the order of the series.
///
/// # Errors
/// [`PlotError::Empty`] or [`PlotError::Draw`].
pub fn banded_svg(panel: &Panel, bands: &[Band]) -> Result<String, PlotError> {
    let names: Vec<&str> = panel.series.iter().map(|series| series.name.as_str()).collect();
    let legend = if names.len() > 1 { bars::legend_height(names.len(), BANDED_LEGEND) } else { 0 };
    on_canvas((SIZE.0, SIZE.1 + legend as u32), |root| {
        // Names of arms are long: they stand above the curves, not among them.
        let (head, chart) = root.split_vertically(30 + legend);
        let title = ("sans-serif", 17, FontStyle::Bold, &INK).into_text_style(root);
        head.draw_text(&panel.title, &title, (14, 12)).map_err(failed)?;
        if names.len() > 1 {
            bars::legend(&head, &names, BANDED_LEGEND)?;
        }
        draw(&chart, panel, bands, Surroundings::Drawn)
    })
}

/// Names to a row of the legend, and pixels for each.
const BANDED_LEGEND: (usize, i32) = (2, 200);

/// Whether the headline and the legend are still to be drawn.
#[derive(Clone, Copy, PartialEq)]
enum Surroundings {
    Wanted,
    Drawn,
}

/// What `draw` draws on white, as SVG text.
fn on_canvas(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<(), PlotError>) -> Result<String, PlotError> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        draw(&root)?;
        root.present().map_err(failed)?;
    }
    Ok(text)
}

fn failed(error: impl std::fmt::Display) -> PlotError {
    PlotError::Draw { reason: error.to_string() }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn draw(area: &Area<'_>, panel: &Panel, bands: &[Band], around: Surroundings) -> Result<(), PlotError> {
    let (x, y) = bounds(panel, bands).ok_or_else(|| PlotError::Empty { title: panel.title.clone() })?;
    let title = ("sans-serif", 17, FontStyle::Bold, &INK).into_text_style(area);
    let mut builder = ChartBuilder::on(area);
    if around == Surroundings::Wanted {
        builder.caption(&panel.title, title);
    }
    let mut chart = builder
        .margin(14)
        .margin_right(26)
        .x_label_area_size(34)
        .y_label_area_size(52)
        .build_cartesian_2d(x.clone(), y.clone())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc(&panel.x)
        .x_labels(6)
        .x_label_formatter(&|value| tick(*value, &x))
        .y_label_formatter(&|value| tick(*value, &y))
        .y_labels(6)
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 228, 228))
        .axis_style(RGBColor(150, 150, 150))
        .label_style(("sans-serif", LABEL, &INK))
        .draw()
        .map_err(failed)?;
    if let Some(level) = panel.baseline {
        let line = DashedLineSeries::new([(x.start, level), (x.end, level)], 4, 4, INK.mix(0.5).stroke_width(1));
        chart.draw_series(line).map_err(failed)?;
    }
    for (band, colour) in bands.iter().zip(COLOURS.iter().cycle()) {
        let there = band.iter().map(|p| (p.0, p.1));
        let back = band.iter().rev().map(|p| (p.0, p.2));
        let outline: Vec<(f64, f64)> = there.chain(back).filter(|p| p.1.is_finite()).collect();
        if !outline.is_empty() {
            let area = Polygon::new(outline, colour.mix(0.18).filled());
            chart.draw_series(std::iter::once(area)).map_err(failed)?;
        }
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

fn curve(chart: &mut Chart<'_, '_>, series: &Series, colour: RGBColor, smooth: bool) -> Result<(), PlotError> {
    let points: Vec<(f64, f64)> = series.points.iter().copied().filter(|p| p.1.is_finite()).collect();
    let line = if smooth { running_mean(&points) } else { points.clone() };
    let is_long = points.len() > LINE_POINTS;
    if smooth && is_long {
        let noise = outline(&points, OUTLINE);
        chart.draw_series(LineSeries::new(noise, colour.mix(0.25).stroke_width(1))).map_err(failed)?;
    } else if smooth || points.len() <= DOTS {
        let (size, share) = if smooth { (2, 0.35) } else { (3, 1.0) };
        let dots = points.iter().map(|&p| Circle::new(p, size, colour.mix(share).filled()));
        chart.draw_series(dots).map_err(failed)?;
    }
    chart
        .draw_series(LineSeries::new(thinned(&line, LINE_POINTS), colour.stroke_width(2)))
        .map_err(failed)?
        .label(&series.name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(3)));
    Ok(())
}

/// The corner with the fewest points, for the legend.
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

type Bounds = std::ops::Range<f64>;

/// Ranges that hold every finite point, with some air.
fn bounds(panel: &Panel, bands: &[Band]) -> Option<(Bounds, Bounds)> {
    let finite = || panel.series.iter().flat_map(|s| &s.points).filter(|p| p.0.is_finite() && p.1.is_finite());
    let edges = bands.iter().flatten().flat_map(|p| [p.1, p.2]).filter(|y| y.is_finite());
    let heights = finite().map(|p| p.1).chain(panel.baseline).chain(edges).collect();
    finite().next()?;
    Some((range(finite().map(|p| p.0).collect(), 0.02)?, range(heights, 0.12)?))
}

/// A number beside an axis, with the decimals that tell it from the next one.
fn tick(value: f64, range: &Bounds) -> String {
    let span = range.end - range.start;
    match span {
        _ if value == 0.0 => "0".to_owned(),
        _ if span >= 20.0 => format!("{value:.0}"),
        _ if span >= 2.0 => format!("{value:.1}"),
        _ if span >= 0.2 => format!("{value:.2}"),
        _ if span >= 0.01 => format!("{value:.3}"),
        _ => format!("{value:.1e}"),
    }
}

/// A range that holds all values, with a share of air at either end; none for no values.
fn range(values: Vec<f64>, air: f64) -> Option<Bounds> {
    let low = values.iter().copied().reduce(f64::min)?;
    let high = values.iter().copied().reduce(f64::max)?;
    let pad = if high > low { (high - low) * air } else { low.abs().max(1.0) * 0.1 };
    Some(low - pad..high + pad)
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
    fn a_figure_is_the_same_twice_and_names_its_curves() {
        let panels = [panel((0..20).map(|i| (f64::from(i), f64::from(i).sin())).collect())];
        let text = svg(&panels).unwrap();
        assert_eq!(text, svg(&panels).unwrap());
        for part in ["<svg", "Loss", "update", "off", "on"] {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn ticks_have_the_decimals_that_tell_them_apart() {
        assert_eq!((tick(2000.0, &(0.0..1e4)), tick(0.5, &(0.0..1.0))), ("2000".into(), "0.50".into()));
        assert_eq!((tick(4e-7, &(0.0..1e-6)), tick(0.0, &(-1.0..1.0))), ("4.0e-7".into(), "0".into()));
    }

    #[test]
    fn points_that_are_no_numbers_are_left_out() {
        assert!(svg(&[panel(vec![(0.0, 1.0), (1.0, f64::NAN)])]).is_ok());
        let error = svg(&[panel(vec![(0.0, f64::NAN)])]).unwrap_err();
        assert_eq!(error.to_string(), "panel `Loss` has no point to draw");
    }
}
