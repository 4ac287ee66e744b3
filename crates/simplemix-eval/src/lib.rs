//! Figures of merit of preference-trained models, as numbers, tables and plots.
//!
//! | to | use |
//! | --- | --- |
//! | count successes, with an interval | [`Share`] |
//! | compare outcomes before and after on the same cases | [`mcnemar`] |
//! | lay out results | [`table`] |
//! | draw curves | [`Panel`], [`write_svg`] |
//!
//! No tensors, no libtorch.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod plot;
mod share;
mod table;

pub use plot::{Panel, PlotError, Series, svg, write_svg};
pub use share::{Share, mcnemar};
pub use table::table;
