//! Runs side by side: tables over seeds, curves, bars, answers; as one page, as Markdown, as CSV, and as single plots.
//!
//! Runs that differ in nothing but their seed are one *arm*. Figures of an arm are means over its runs, with the 95 %
//! interval of Student's t where there are several.

mod answers;
mod arms;
mod figures;
mod page;
mod plots;
mod run_data;
mod tables;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::error::{At, Result};
use crate::plot::{PngFonts, png};

pub use answers::{Answer, read_outputs, write_outputs};
pub use arms::{Arm, group};
pub use figures::{Figure, figures};
pub use plots::ReportPlot;
pub use run_data::{AlpacaFigures, RunData, read_run};

/// What a report is made of.
#[derive(Debug)]
pub struct Report {
    /// Headline.
    pub title: String,
    /// The runs.
    pub runs: Vec<RunData>,
    /// Their arms.
    pub arms: Vec<Arm>,
    /// Answers to show side by side: whose, and which. Those of the runs come by themselves.
    pub answers: Vec<(String, Vec<Answer>)>,
    /// Prompts to show answers to.
    pub samples: usize,
}

/// What was written.
#[derive(Debug)]
pub struct Written {
    /// Files, in the order that they were written in.
    pub files: Vec<PathBuf>,
    /// Whether pictures were left out, since the system has no fonts.
    pub without_png: bool,
}

impl Report {
    /// Writes `report.html`, `report.md`, `arms.csv`, `runs.csv` and `plots/` into a folder, which is made where needed.
    ///
    /// # Errors
    /// What a file or a drawing reports.
    pub fn write(&self, folder: &Path) -> Result<Written> {
        let plots = self.plots()?;
        let figures = figures(&self.runs, &self.arms);
        let pictures = folder.join("plots");
        std::fs::create_dir_all(&pictures).at(&pictures, "create")?;
        let fonts = PngFonts::of_system();
        let drawn: Vec<Vec<PathBuf>> =
            plots.par_iter().map(|plot| write_plot(plot, &pictures, fonts.as_ref())).collect::<Result<_>>()?;
        let mut files = Vec::new();
        for (name, text) in [
            ("report.html", page::html(self, &plots, &figures)),
            ("report.md", tables::markdown(self, &plots, &figures)),
            ("arms.csv", tables::arms_csv(&self.arms, &figures)),
            ("runs.csv", tables::runs_csv(self, &figures)),
        ] {
            let path = folder.join(name);
            write_whole(&path, text.as_bytes())?;
            files.push(path);
        }
        files.extend(drawn.into_iter().flatten());
        Ok(Written { files, without_png: fonts.is_none() && !plots.is_empty() })
    }

    /// The page alone.
    ///
    /// # Errors
    /// What a drawing reports.
    pub fn html(&self) -> Result<String> {
        Ok(page::html(self, &self.plots()?, &figures(&self.runs, &self.arms)))
    }

    fn plots(&self) -> Result<Vec<ReportPlot>> {
        plots::plots(&self.runs, &self.arms)
    }
}

fn write_plot(plot: &ReportPlot, folder: &Path, fonts: Option<&PngFonts>) -> Result<Vec<PathBuf>> {
    let mut files = vec![folder.join(format!("{}.svg", plot.name))];
    write_whole(&files[0], plot.svg.as_bytes())?;
    if let Some(fonts) = fonts {
        let path = folder.join(format!("{}.png", plot.name));
        write_whole(&path, &png(&plot.svg, 2.0, fonts)?)?;
        files.push(path);
    }
    Ok(files)
}

/// Writes a file whole or not at all.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = crate::plot::temporary_in(folder).at(path, "write")?;
    file.write_all(bytes).at(path, "write")?;
    file.persist(path).map_err(|e| e.error).at(path, "write")?;
    Ok(())
}
