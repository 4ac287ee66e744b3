//! Plots as SVG, and as PNG. This module needs the feature `plot`, and PNG the feature `png`; both are on by default.
//!
//! | to | use |
//! | --- | --- |
//! | draw curves | [`Panel`], [`svg`], [`write_svg`] |
//! | draw curves with bands | [`banded_svg`] |
//! | draw grouped bars | [`BarPanel`], [`bars_svg`] |
//! | draw points | [`ScatterPanel`], [`scatter_svg`] |
//! | turn SVG into PNG | `PngFonts`, `png` (feature `png`) |
//!
//! Equal data give equal bytes.

mod bars;
mod canvas;
mod panel;
#[cfg(feature = "png")]
mod png;
mod scatter;
mod thin;

pub use bars::{Bar, BarPanel, bars_svg};
pub use panel::{Band, Panel, Series, banded_svg, svg, write_svg};
#[cfg(feature = "png")]
pub use png::{PngFonts, png};
pub use scatter::{Dot, ScatterPanel, scatter_svg};
