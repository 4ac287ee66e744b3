//! Tables in plain text.

use crate::plain::clean_line;

/// Aligns rows under their headings, the first column to the left and the others to the right.
///
/// # Examples
/// ```
/// let text = simplemix_eval::table(&["", "before", "after"], &[vec!["accuracy".into(), "0.5".into(), "0.75".into()]]);
/// assert_eq!(text, "          before  after\naccuracy     0.5   0.75");
/// ```
pub fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let headings: Vec<String> = headings.iter().map(|h| (*h).to_owned()).collect();
    // A name with a line break would end its row.
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| clean_line(cell).into_owned()).collect()).collect();
    let all = || std::iter::once(&headings).chain(&rows);
    let columns = all().map(Vec::len).max().unwrap_or(0);
    let cell = |row: &Vec<String>, column: usize| row.get(column).cloned().unwrap_or_default();
    let width = |column: usize| all().map(|row| cell(row, column).chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = (0..columns).map(|column| match column {
            0 => format!("{:<1$}", cell(row, 0), widths[0]),
            _ => format!("{:>1$}", cell(row, column), widths[column]),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect::<Vec<_>>().join("\n")
}
