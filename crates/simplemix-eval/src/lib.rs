//! Figures of merit of preference-trained models, as numbers, tables and plots.
//!
//! | to | use |
//! | --- | --- |
//! | count successes, with an interval | [`Share`] |
//! | compare outcomes before and after on the same cases | [`mcnemar`] |
//! | lay out results | [`table`] |
//! | draw curves, bars, points, as SVG or PNG | [`Panel`], [`BarPanel`], [`ScatterPanel`], [`write_svg`], [`png`](fn@png) |
//! | compare runs on one page | [`report`] |
//! | judge pairs of answers as AlpacaEval does | [`judge`] |
//! | tell how well rewards order preference pairs | [`preference_figures`] |
//! | compute AlpacaEval 2.0, length-controlled win rates included | [`alpaca`] |
//! | fit a small logistic regression with an L1 penalty | [`fit_l1`] |
//! | test paired differences | [`paired_t_test`], [`holm`] |
//!
//! No tensors, no libtorch, no network.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod alpaca;
mod curves;
mod error;
pub mod html;
pub mod judge;
mod logistic;
mod plot;
mod preferences;
pub mod report;
mod share;
mod stats;
mod table;

pub use curves::{Curves, read_curves};
pub use error::{Error, Result};
pub use logistic::{Sample, fit_l1, sigmoid};
pub use plot::{
    Band, Bar, BarPanel, Dot, Panel, PlotError, PngFonts, ScatterPanel, Series, banded_svg, bars_svg, png, scatter_svg,
    svg, thinned, write_svg,
};
pub use preferences::{
    Bin, Calibration, LengthBias, PreferenceFigures, ScoredPair, preference_figures, preference_groups,
};
pub use share::{Share, mcnemar};
pub use stats::{half_width_95, holm, mean, paired_t_test, standard_error};
pub use table::table;
