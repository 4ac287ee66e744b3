//! Scatter plots, with a colour for each series.

use plotters::prelude::*;

use super::canvas::{
    Area, COLOURS, PANEL_LEGEND, SIZE, axes, failed, legend, legend_height, names, on_canvas, range, title_style,
};
use crate::error::{Error, Result};

/// A point.
#[derive(Debug, Clone, PartialEq)]
pub struct Dot {
    /// Name of the point's colour in the legend.
    pub series: String,
    /// Coordinates.
    pub at: (f64, f64),
}

/// A scatter plot.
#[derive(Debug, Clone, PartialEq)]
pub struct ScatterPanel {
    /// Title.
    pub title: String,
    /// Label of the horizontal axis.
    pub x: String,
    /// Label of the vertical axis.
    pub y: String,
    /// Points; series are drawn in the order of their first appearance.
    pub dots: Vec<Dot>,
}

/// Draws a scatter plot as SVG text.
///
/// # Errors
/// [`Error::EmptyPlot`] if no point is finite, or [`Error::Draw`].
pub fn scatter_svg(panel: &ScatterPanel) -> Result<String> {
    let series = names(panel.dots.iter().map(|dot| dot.series.as_str()));
    let height = legend_height(series.len(), PANEL_LEGEND);
    on_canvas((SIZE.0, SIZE.1 + height as u32), |area| {
        // The legend is above the points, since it would cover some of them.
        let (head, chart) = area.split_vertically(30 + height);
        head.draw_text(&panel.title, &title_style(area), (14, 12)).map_err(failed)?;
        legend(&head, &series, PANEL_LEGEND)?;
        draw(&chart, panel, &series)
    })
}

fn draw(area: &Area<'_>, panel: &ScatterPanel, series: &[&str]) -> Result<()> {
    let dots: Vec<&Dot> = panel.dots.iter().filter(|dot| dot.at.0.is_finite() && dot.at.1.is_finite()).collect();
    let empty = || Error::EmptyPlot { title: panel.title.clone() };
    let x = range(dots.iter().map(|dot| dot.at.0).collect(), 0.1).ok_or_else(empty)?;
    let y = range(dots.iter().map(|dot| dot.at.1).collect(), 0.15).ok_or_else(empty)?;
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_right(26)
        .x_label_area_size(34)
        .y_label_area_size(56)
        .build_cartesian_2d(x.clone(), y.clone())
        .map_err(failed)?;
    axes(&mut chart, (&panel.x, &x), (Some(&panel.y), &y))?;
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
