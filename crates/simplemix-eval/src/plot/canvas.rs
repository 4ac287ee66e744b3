//! Parts that all plots share: the canvas, titles, axes, legends, ranges and colours.

use std::fmt::Display;
use std::ops::Range;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::FontStyle;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::error::{Error, Result};
use crate::plain::clean_markup;

/// Width and height of a panel.
pub(super) const SIZE: (u32, u32) = (420, 320);
/// Font size of the axes' labels.
pub(super) const LABEL: i32 = 14;
/// Okabe and Ito's colours, which colour-blind readers can tell apart.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(176, 122, 0),
    RGBColor(120, 94, 240),
];
/// Colour of text.
pub(super) const INK: RGBColor = RGBColor(60, 60, 60);
/// Colour of the lines of the mesh.
pub(super) const MESH: RGBColor = RGBColor(228, 228, 228);
/// Colour of the axes.
pub(super) const AXIS: RGBColor = RGBColor(150, 150, 150);

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
pub(super) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
pub(super) type Bounds = Range<f64>;

/// Makes SVG text from a drawing on a white canvas.
pub(super) fn on_canvas(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, size).into_drawing_area();
        root.fill(&WHITE).map_err(failed)?;
        draw(&root)?;
        root.present().map_err(failed)?;
    }
    // Names hold characters that XML does not have, with which no program would show the figure.
    Ok(clean_markup(&text).into_owned())
}

pub(super) fn failed(error: impl Display) -> Error {
    Error::Draw { reason: error.to_string() }
}

/// Style of a title.
pub(super) fn title_style<'a>(area: &Area<'_>) -> TextStyle<'a> {
    ("sans-serif", 17, FontStyle::Bold, &INK).into_text_style(area)
}

/// Draws mesh, axes and their labels.
pub(super) fn axes(chart: &mut Chart<'_, '_>, x: (&str, &Bounds), y: (Option<&str>, &Bounds)) -> Result<()> {
    let (x_format, y_format) = (|value: &f64| tick(*value, x.1), |value: &f64| tick(*value, y.1));
    let mut mesh = chart.configure_mesh();
    if let Some(label) = y.0 {
        mesh.y_desc(label);
    }
    mesh.x_desc(x.0)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&x_format)
        .y_label_formatter(&y_format)
        .light_line_style(TRANSPARENT)
        .bold_line_style(MESH)
        .axis_style(AXIS)
        .label_style(("sans-serif", LABEL, &INK))
        .draw()
        .map_err(failed)
}

/// Columns of a legend, and the width of each in pixels.
pub(super) type LegendLayout = (usize, i32);

/// Layout of the legend of a panel.
pub(super) const PANEL_LEGEND: LegendLayout = (2, 200);

/// Height in pixels of a legend of `names` names.
pub(super) fn legend_height(names: usize, layout: LegendLayout) -> i32 {
    18 * names.div_ceil(layout.0) as i32
}

/// Draws the colours with their names, below a title.
pub(super) fn legend(area: &Area<'_>, series: &[&str], (columns, width): LegendLayout) -> Result<()> {
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

/// Shortens a text to at most `most` characters.
pub(super) fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The distinct names, in the order of their first appearance.
pub(super) fn names<'a>(all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found = Vec::new();
    for name in all {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// Formats a number for an axis, with the decimals that tell it from the next one.
pub(super) fn tick(value: f64, range: &Bounds) -> String {
    let span = range.end - range.start;
    match span {
        _ if value == 0.0 => "0".to_owned(),
        _ if span >= 20.0 || (span >= 2.0 && value.fract() == 0.0) => format!("{value:.0}"),
        _ if span >= 2.0 => format!("{value:.1}"),
        _ if span >= 0.2 => format!("{value:.2}"),
        _ if span >= 0.01 => format!("{value:.3}"),
        // Small differences of numbers that are not small.
        _ if value.abs() > 100.0 * span && value.abs() < 1e6 => {
            let decimals = (1.0 - span.log10()).ceil().clamp(3.0, 9.0) as usize;
            format!("{value:.decimals$}")
        }
        _ => format!("{value:.1e}"),
    }
}

/// A range that holds all values, widened by the share `margin` at both ends; `None` for no values.
pub(super) fn range(values: Vec<f64>, margin: f64) -> Option<Bounds> {
    let low = values.iter().copied().reduce(f64::min)?;
    let high = values.iter().copied().reduce(f64::max)?;
    let pad = if high > low { (high - low) * margin } else { low.abs().max(1.0) * 0.1 };
    Some(low - pad..high + pad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_in_a_figure() {
        let name = "<script>\u{1b}\"'&</text>";
        let svg = on_canvas((100, 100), |area| legend(area, &[name], (1, 400))).unwrap();
        assert!(
            svg.contains("&lt;script&gt;\u{fffd}&quot;&apos;&amp;&lt;/text&gt;") && !svg.contains("<script"),
            "{svg}"
        );
    }

    #[test]
    fn ticks_have_the_decimals_that_tell_them_apart() {
        assert_eq!((tick(2000.0, &(0.0..1e4)), tick(0.5, &(0.0..1.0))), ("2000".into(), "0.50".into()));
        assert_eq!((tick(10.7961, &(10.796..10.797)), tick(3.0, &(1.0..4.0))), ("10.7961".into(), "3".into()));
        assert_eq!((tick(4e-7, &(0.0..1e-6)), tick(0.0, &(-1.0..1.0))), ("4.0e-7".into(), "0".into()));
    }

    #[test]
    fn long_names_are_shortened() {
        assert_eq!(shortened("abcdef", 4), "abc…");
        assert_eq!(shortened("äöü", 3), "äöü");
    }
}
