//! Writes each Rust block of the pages as a doctest of an empty module.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, Result};

#[path = "src/blocks.rs"]
mod blocks;

fn main() -> Result<()> {
    let root = Path::new("../..");
    let mut pages = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for entry in fs::read_dir(root.join("docs"))? {
        pages.push(entry?.path());
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));
    pages.sort();
    let mut output = String::new();
    for page in &pages {
        println!("cargo::rerun-if-changed={}", page.display());
        let text = fs::read_to_string(page).with_context(|| page.display().to_string())?;
        let name = page.file_stem().and_then(|name| name.to_str()).context("a page's name is not UTF-8")?;
        for block in blocks::blocks(&text).iter().filter(|block| block.excerpt_of.is_none()) {
            write_doctest(&mut output, &name.to_lowercase(), block)?;
        }
    }
    println!("cargo::rerun-if-changed={}", root.join("docs").display());
    let folder = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    fs::write(folder.join("blocks.rs"), output).context("cannot write blocks.rs")
}

fn write_doctest(output: &mut String, page: &str, block: &blocks::Block) -> Result<()> {
    writeln!(output, "/// {page}.md, line {}\n///\n/// ```no_run", block.line)?;
    let wrapped = !block.code.contains("fn main(");
    if wrapped {
        // A block may use `?`.
        writeln!(output, "/// # fn main() -> anyhow::Result<()> {{")?;
    }
    for line in block.code.lines() {
        writeln!(output, "/// {line}")?;
    }
    if wrapped {
        writeln!(output, "/// # Ok(()) }}")?;
    }
    writeln!(output, "/// ```\npub mod {page}_{} {{}}", block.line)?;
    Ok(())
}
