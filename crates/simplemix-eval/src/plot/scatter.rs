//! Points with names, one colour a series.

use plotters::prelude::*;
use plotters::style::FontStyle;

use super::bars::{legend, legend_height, names};
use super::{Area, BANDED_LEGEND, COLOURS, INK, LABEL, PlotError, SIZE, failed, on_canvas, range, tick};

/// A point.
#[derive(Debug, Clone, PartialEq)]
pub struct Dot {
    /// What its colour stands for.
    pub series: String,
    /// Its place.
    pub at: (f64, f64),
}

/// Points on two axes.
#[derive(Debug, Clone, PartialEq)]
pub struct ScatterPanel {
    /// Headline.
    pub title: String,
    /// What the horizontal axis measures.
    pub x: String,
    /// What the vertical axis measures.
    pub y: String,
    /// Points; series come in the order that they first appear in.
    pub dots: Vec<Dot>,
}

/// The points as SVG text.
///
/// # Errors
/// [`PlotError::Empty`] if no point is finite, or [`PlotError::Draw`].
pub fn scatter_svg(panel: &ScatterPanel) -> Result<String, PlotError> {
    let series = names(panel.dots.iter().map(|dot| dot.series.as_str()));
    let high = legend_height(series.len(), BANDED_LEGEND);
    on_canvas((SIZE.0, SIZE.1 + high as u32), |area| {
        // Above the points: among them it would cover some.
        let (head, chart) = area.split_vertically(30 + high);
        let title = ("sans-serif", 17, FontStyle::Bold, &INK).into_text_style(area);
        head.draw_text(&panel.title, &title, (14, 12)).map_err(failed)?;
        legend(&head, &series, BANDED_LEGEND)?;
        draw(&chart, panel, &series)
    })
}

fn draw(area: &Area<'_>, panel: &ScatterPanel, series: &[&str]) -> Result<(), PlotError> {
    let dots: Vec<&Dot> = panel.dots.iter().filter(|dot| dot.at.0.is_finite() && dot.at.1.is_finite()).collect();
    let empty = || PlotError::Empty { title: panel.title.clone() };
    let x = range(dots.iter().map(|dot| dot.at.0).collect(), 0.1).ok_or_else(empty)?;
    let y = range(dots.iter().map(|dot| dot.at.1).collect(), 0.15).ok_or_else(empty)?;
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_right(26)
        .x_label_area_size(34)
        .y_label_area_size(56)
        .build_cartesian_2d(x.clone(), y.clone())
        .map_err(failed)?;
    chart
        .configure_mesh()
        .x_desc(&panel.x)
        .y_desc(&panel.y)
        .x_labels(6)
        .y_labels(6)
        .x_label_formatter(&|value| tick(*value, &x))
        .y_label_formatter(&|value| tick(*value, &y))
        .light_line_style(TRANSPARENT)
        .bold_line_style(RGBColor(228, 228, 228))
        .axis_style(RGBColor(150, 150, 150))
        .label_style(("sans-serif", LABEL, &INK))
        .draw()
        .map_err(failed)?;
    for (number, series) in series.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let own = dots.iter().filter(|dot| dot.series == *series);
        chart.draw_series(own.map(|dot| Circle::new(dot.at, 5, colour.mix(0.85).filled()))).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_drawn_by_series() {
        let dot = |series: &str, at| Dot { series: series.into(), at };
        let panel = ScatterPanel {
            title: "Length".into(),
            x: "characters".into(),
            y: "win rate".into(),
            dots: vec![dot("on", (900.0, 20.0)), dot("off", (1500.0, 30.0)), dot("on", (f64::NAN, 1.0))],
        };
        let text = scatter_svg(&panel).unwrap();
        assert_eq!(text.matches("<circle").count(), 2, "points");
        assert!(text.contains(">\non\n") && text.contains(">\noff\n"), "{text}");
        assert!(scatter_svg(&ScatterPanel { dots: Vec::new(), ..panel }).is_err());
    }
}
