//! An observer that shows nothing.

use simplemix::data::Watch;

/// Passes over all that it is told.
pub(crate) struct Silent;

impl Watch for Silent {}
