//! Plots of a report, as they are shown on the page.

/// A plot, with a description in words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ReportPlot {
    /// Name of the file, without extension.
    pub(crate) name: String,
    /// Section of the page.
    pub(crate) section: Section,
    /// Description for readers who cannot see the plot.
    pub(crate) label: String,
    /// SVG text.
    pub(crate) svg: String,
}

/// Sections of the page that hold plots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// Curves over the updates.
    Curves,
    /// Margins of each source.
    Sources,
    /// Bars by category.
    Categories,
    /// Length against win rate.
    Length,
    /// Bars of benchmarks.
    Benchmarks,
}

/// Number of stretches into which the updates of a run are divided; a curve shows the mean of each.
pub(crate) const STRETCHES: usize = 200;
