//! Comparison of runs: tables over seeds, curves, bars and responses, as one page, as Markdown, as CSV and as single
//! plots.
//!
//! A run is the folder of a training or of a pipeline, or a results file of lm-eval or lighteval; [`runs_of_sweep`] finds the runs of a
//! sweep. Runs that differ only in their seed are one *arm*. Figures of an arm are means over its runs, with the 95 % interval
//! of Student's t if there are several; every arm is compared with the baseline. Without the feature `plot`, a report has no plots; without `png`, plots are SVG
//! only.
//!
//! # Examples
//! ```
//! use std::collections::BTreeMap;
//! use simplemix_eval::report::{Report, group, read_run};
//!
//! # let dir = tempfile::tempdir()?;
//! let folder = dir.path().join("run-1");
//! std::fs::create_dir(&folder)?;
//! std::fs::write(folder.join("metrics.jsonl"), "{\"step\": 1, \"loss\": 0.69}\n{\"step\": 2, \"loss\": 0.61}\n")?;
//! let runs = vec![read_run(&folder)?];
//! let arms = group(&runs, &BTreeMap::new());
//! let report = Report { title: "One run".into(), runs, arms, outputs: Vec::new(), samples: 5, baseline: 0 };
//! report.write(&dir.path().join("report"))?;
//! assert!(dir.path().join("report/report.html").is_file());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod arms;
mod differences;
#[cfg(feature = "plot")]
mod drawing;
mod figures;
mod harness;
mod page;
mod pipeline;
mod plots;
mod run_data;
mod side_by_side;
mod tables;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::Result;
use crate::outputs::ModelOutput;
use figures::{Figure, benchmarks, figures};
use plots::ReportPlot;

pub use arms::{Arm, group};
pub use harness::{BenchmarkScore, Benchmarks, read_benchmarks};
pub use pipeline::{HeldOutScore, runs_of_sweep};
pub use run_data::{AlpacaFigures, CategoryFigures, RunData, read_run, settings_by_key};

/// Content of a report.
#[derive(Debug)]
pub struct Report {
    /// Title of the page.
    pub title: String,
    /// The runs.
    pub runs: Vec<RunData>,
    /// Arms of the runs, from [`group`].
    pub arms: Vec<Arm>,
    /// Responses of further models by name, shown beside those of the runs.
    pub outputs: Vec<(String, Vec<ModelOutput>)>,
    /// Number of prompts whose responses are shown.
    pub samples: usize,
    /// Index of the arm that the others are compared with.
    pub baseline: usize,
}

/// Files of a report.
#[derive(Debug)]
pub struct Written {
    /// Files, in the order in which they were written.
    pub files: Vec<PathBuf>,
    /// Whether plots were written as PNG too.
    pub png: PngFiles,
}

/// Whether plots were written as PNG.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PngFiles {
    /// Every plot was written as PNG.
    Written,
    /// The system has no fonts, so that plots would have no text.
    NoFonts,
    /// The crate was built without the feature `png`.
    NotBuilt,
}

impl Report {
    /// Writes `report.html`, `report.md`, `arms.csv`, `runs.csv` and `plots/` into a folder, and creates the folder if
    /// needed.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) if a file cannot be written, or an error of the drawing.
    pub fn write(&self, folder: &Path) -> Result<Written> {
        let plots = self.plots()?;
        let figures = self.figures();
        let images = folder.join("plots");
        simplemix_files::create_dir_all(if plots.is_empty() { folder } else { &images })?;
        let png = Png::new();
        let drawn: Vec<Vec<PathBuf>> =
            plots.par_iter().map(|plot| write_plot(plot, &images, &png)).collect::<Result<_>>()?;
        let mut files = Vec::new();
        for (name, text) in [
            ("report.html", page::html(self, &plots, &figures)),
            ("report.md", tables::markdown(self, &plots, &figures)),
            ("arms.csv", tables::arms_csv(&self.arms, &figures)),
            ("runs.csv", tables::runs_csv(self, &figures)),
        ] {
            let path = folder.join(name);
            simplemix_files::write(&path, text)?;
            files.push(path);
        }
        files.extend(drawn.into_iter().flatten());
        let png = if plots.is_empty() { PngFiles::Written } else { png.files() };
        Ok(Written { files, png })
    }

    /// Makes the HTML page, without writing it.
    ///
    /// # Errors
    /// Errors of the drawing.
    pub fn html(&self) -> Result<String> {
        Ok(page::html(self, &self.plots()?, &self.figures()))
    }

    fn figures(&self) -> Vec<Figure> {
        let mut all = figures(&self.runs, &self.arms);
        all.extend(benchmarks(&self.runs, &self.arms));
        all
    }

    #[cfg(feature = "plot")]
    fn plots(&self) -> Result<Vec<ReportPlot>> {
        drawing::plots(&self.runs, &self.arms)
    }

    #[cfg(not(feature = "plot"))]
    fn plots(&self) -> Result<Vec<ReportPlot>> {
        Ok(Vec::new())
    }
}

/// Renderer of PNG files, if this build and this system have one.
struct Png {
    #[cfg(feature = "png")]
    fonts: Option<crate::plot::PngFonts>,
}

impl Png {
    fn new() -> Self {
        Self {
            #[cfg(feature = "png")]
            fonts: crate::plot::PngFonts::of_system(),
        }
    }

    #[cfg(feature = "png")]
    fn render(&self, svg: &str) -> Result<Option<Vec<u8>>> {
        self.fonts.as_ref().map(|fonts| crate::plot::png(svg, 2.0, fonts)).transpose()
    }

    #[cfg(not(feature = "png"))]
    fn render(&self, _svg: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    #[cfg(feature = "png")]
    fn files(&self) -> PngFiles {
        if self.fonts.is_some() { PngFiles::Written } else { PngFiles::NoFonts }
    }

    #[cfg(not(feature = "png"))]
    fn files(&self) -> PngFiles {
        PngFiles::NotBuilt
    }
}

/// Writes a plot as SVG and, if possible, as PNG.
fn write_plot(plot: &ReportPlot, folder: &Path, png: &Png) -> Result<Vec<PathBuf>> {
    let mut files = vec![folder.join(format!("{}.svg", plot.name))];
    simplemix_files::write(&files[0], &plot.svg)?;
    if let Some(image) = png.render(&plot.svg)? {
        let path = folder.join(format!("{}.png", plot.name));
        simplemix_files::write(&path, image)?;
        files.push(path);
    }
    Ok(files)
}
