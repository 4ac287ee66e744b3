//! Facts in tables of a page of the docs, so that the page and the check that reads it are one.
//!
//! A line `<!-- xtask: NAME -->` marks the table that follows it.

use anyhow::{Context, Result, ensure};

/// The rows of a marked table below its header, which must have the given columns.
///
/// # Errors
/// No such marker, or a table of another form.
pub(crate) fn table(page: &str, name: &str, columns: &[&str]) -> Result<Vec<Vec<String>>> {
    let marker = format!("<!-- xtask: {name} -->");
    let mut lines = page.lines().skip_while(|line| line.trim() != marker);
    lines.next().with_context(|| format!("no line `{marker}`"))?;
    let mut rows = lines.skip_while(|line| line.trim().is_empty()).take_while(|line| line.starts_with('|')).map(cells);
    let header = rows.next().with_context(|| format!("no table follows `{marker}`"))?;
    ensure!(header == columns, "the table `{name}` has the columns {header:?}, expected {columns:?}");
    let rows: Vec<_> = rows.skip(1).collect();
    for row in &rows {
        let found = row.len();
        ensure!(found == columns.len(), "a row of `{name}` has {found} cells, expected {}: {row:?}", columns.len());
    }
    Ok(rows)
}

fn cells(line: &str) -> Vec<String> {
    line.trim().trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()
}

/// The names in a cell, such as "`a.rs`, `b.rs`"; a cell of `none` has none.
pub(crate) fn names(cell: &str) -> Vec<String> {
    let names = cell.split(',').map(|name| name.trim().trim_matches('`').to_owned());
    names.filter(|name| !name.is_empty() && name != "none").collect()
}

#[cfg(test)]
mod tests {
    use super::{names, table};

    const PAGE: &str = "# Page\n\n<!-- xtask: crates -->\n\n| crate | unsafe |\n| --- | --- |\n| a | `x.rs`, `y/z.rs` |\n\
                        | b | none |\n\nText.\n| not | this |\n";

    #[test]
    fn reads_the_marked_table_only() {
        let rows = table(PAGE, "crates", &["crate", "unsafe"]).unwrap();
        assert_eq!(rows, [["a", "`x.rs`, `y/z.rs`"], ["b", "none"]]);
        assert_eq!(names(&rows[0][1]), ["x.rs", "y/z.rs"]);
        assert!(names(&rows[1][1]).is_empty());
    }

    #[test]
    fn a_table_of_another_form_is_an_error() {
        assert!(table(PAGE, "layers", &[]).unwrap_err().to_string().contains("xtask: layers"));
        assert!(table(PAGE, "crates", &["crate"]).is_err());
        assert!(table("<!-- xtask: a -->\n| x |\n| - |\n| 1 | 2 |\n", "a", &["x"]).is_err());
    }
}
