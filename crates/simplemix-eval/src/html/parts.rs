//! Parts of pages: sections with their index, tables, tiles, notices, responses side by side.

use std::fmt::Write;

use super::{escape, page};

/// A section of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// Anchor, unique on the page.
    pub id: &'static str,
    /// Heading, as text.
    pub title: String,
    /// Content, as HTML; a section without content is left out.
    pub html: String,
}

impl Section {
    /// A section with the anchor `id`, the heading `title` and the content `html`.
    pub fn new(id: &'static str, title: &str, html: String) -> Self {
        Self { id, title: title.to_owned(), html }
    }
}

/// Makes a page with a heading, an introduction (HTML), and sections under an index of those that have content.
///
/// # Examples
/// ```
/// use simplemix_eval::html::{Section, document};
///
/// let sections = [Section::new("loss", "Loss", "<p>0.69</p>".into()), Section::new("empty", "Empty", String::new())];
/// let page = document("run", "<p>Short.</p>\n", &sections);
/// assert!(page.contains("<h2 id=\"loss\">Loss</h2>") && !page.contains("Empty"));
/// ```
pub fn document(title: &str, introduction: &str, sections: &[Section]) -> String {
    let mut body = format!("<h1>{}</h1>\n{introduction}", escape(title));
    let present = || sections.iter().filter(|section| !section.html.is_empty());
    if present().count() > 1 {
        body.push_str("<nav aria-label=\"Sections\"><ul>\n");
        for Section { id, title, .. } in present() {
            let _ = writeln!(body, "<li><a href=\"#{id}\">{}</a></li>", escape(title));
        }
        body.push_str("</ul></nav>\n");
    }
    for Section { id, title, html } in present() {
        let title = escape(title);
        let _ = writeln!(body, "<section aria-labelledby=\"{id}\">\n<h2 id=\"{id}\">{title}</h2>\n{html}</section>");
    }
    page(title, &body)
}

/// Kind of a column's cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    /// Sentences and names, set to the left.
    Text,
    /// Numbers, set to the right.
    Numbers,
}

/// A table of cells that are HTML. The first cell of a row is its heading. Columns without content are left out, and the table
/// scrolls by itself where it is wider than the page.
///
/// # Examples
/// ```
/// use simplemix_eval::html::{Cells, Table};
///
/// let mut table = Table::new("Scores", &[("Task", Cells::Text), ("Score", Cells::Numbers), ("KL", Cells::Numbers)]);
/// table.row(["sums".into(), "0.5".into(), String::new()]);
/// let html = table.html();
/// assert!(html.contains("<td>0.5</td>") && !html.contains("KL"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    name: String,
    columns: Vec<(String, Cells)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows. `name` describes it for readers who cannot see it; headings are text.
    pub fn new(name: &str, columns: &[(&str, Cells)]) -> Self {
        let columns = columns.iter().map(|(heading, cells)| ((*heading).to_owned(), *cells)).collect();
        Self { name: name.to_owned(), columns, rows: Vec::new() }
    }

    /// Adds a column to the right.
    pub fn column(&mut self, heading: &str, cells: Cells) {
        self.columns.push((heading.to_owned(), cells));
    }

    /// Adds a row of HTML cells; cells that are missing at its end are empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The table as HTML; an empty text for a table without rows.
    pub fn html(&self) -> String {
        if self.rows.is_empty() {
            return String::new();
        }
        let cell = |row: &'_ [String], column: usize| row.get(column).cloned().unwrap_or_default();
        let is_shown = |column: &usize| *column == 0 || self.rows.iter().any(|row| !cell(row, *column).is_empty());
        let shown: Vec<usize> = (0..self.columns.len()).filter(is_shown).collect();
        let mut html = format!(
            "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{} as a table\">\n<table>\n<thead><tr>",
            escape(&self.name)
        );
        for column in &shown {
            let (heading, cells) = &self.columns[*column];
            let class = if *cells == Cells::Numbers { " class=\"number\"" } else { "" };
            let _ = write!(html, "<th scope=\"col\"{class}>{}</th>", escape(heading));
        }
        html.push_str("</tr></thead>\n<tbody>\n");
        for row in &self.rows {
            html.push_str("<tr>");
            for column in &shown {
                let cell = cell(row, *column);
                let _ = match (column, self.columns[*column].1) {
                    (0, _) => write!(html, "<th scope=\"row\">{cell}</th>"),
                    (_, Cells::Text) => write!(html, "<td class=\"text\">{cell}</td>"),
                    (_, Cells::Numbers) => write!(html, "<td>{cell}</td>"),
                };
            }
            html.push_str("</tr>\n");
        }
        html + "</tbody>\n</table></div>\n"
    }
}

/// A large figure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Name of the figure, as text.
    pub label: String,
    /// The figure, as text.
    pub value: String,
    /// Remark under it, as text; may be empty.
    pub note: String,
}

impl Tile {
    /// The figure `value` under the name `label`, with a remark that may be empty.
    pub fn new(label: &str, value: impl Into<String>, note: impl Into<String>) -> Self {
        Self { label: label.to_owned(), value: value.into(), note: note.into() }
    }
}

/// Large figures beside each other; an empty text for none.
pub fn tiles(tiles: &[Tile]) -> String {
    if tiles.is_empty() {
        return String::new();
    }
    let mut html = String::from("<ul class=\"tiles\">\n");
    for Tile { label, value, note } in tiles {
        let _ = write!(html, "<li><span>{}</span><strong>{}</strong>", escape(label), escape(value));
        if !note.is_empty() {
            let _ = write!(html, "<span>{}</span>", escape(note));
        }
        html.push_str("</li>\n");
    }
    html + "</ul>\n"
}

/// A list of texts; an empty text for none.
pub fn list(texts: &[String]) -> String {
    if texts.is_empty() {
        return String::new();
    }
    let items: String = texts.iter().map(|text| format!("<li>{}</li>\n", escape(text))).collect();
    format!("<ul>\n{items}</ul>\n")
}

/// Texts that a reader should see before the figures, under the heading `title`; an empty text for none.
pub fn notices(title: &str, texts: &[String]) -> String {
    if texts.is_empty() {
        return String::new();
    }
    format!("<aside class=\"notices\">\n<h2>{}</h2>\n{}</aside>\n", escape(title), list(texts))
}

/// A response on a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response<'a> {
    /// Name of the model or side, as text.
    pub name: &'a str,
    /// Remark behind the name, such as a score; may be empty.
    pub note: &'a str,
    /// The response.
    pub text: &'a str,
}

/// A prompt with its responses side by side, under its first line, folded unless `is_open`.
pub fn exchange(prompt: &str, responses: &[Response<'_>], is_open: bool) -> String {
    let open = if is_open { " open" } else { "" };
    let mut html = format!("<details{open}><summary>{}</summary>\n", escape(&first_line(prompt)));
    let _ =
        writeln!(html, "<p class=\"prompt\"><strong>Prompt</strong> {}</p>\n<div class=\"responses\">", escape(prompt));
    for Response { name, note, text } in responses {
        let name = escape(name);
        let note = if note.is_empty() { String::new() } else { format!(" <span>{}</span>", escape(note)) };
        let _ = writeln!(
            html,
            "<div role=\"group\" aria-label=\"Response of {name}\"><h3>{name}{note}</h3><p>{}</p></div>",
            escape(&squeezed(text))
        );
    }
    html + "</div></details>\n"
}

/// A text without its blank lines at the ends, and with a remark in place of many blank lines.
fn squeezed(text: &str) -> String {
    let trimmed = text.trim_matches(['\n', '\r']);
    if trimmed.trim().is_empty() {
        return if text.is_empty() { "(empty)".to_owned() } else { "(white space only)".to_owned() };
    }
    let (mut shown, mut blank): (Vec<String>, Vec<&str>) = (Vec::new(), Vec::new());
    for line in trimmed.lines() {
        if line.trim().is_empty() {
            blank.push(line);
            continue;
        }
        match blank.len() {
            0..=2 => shown.extend(blank.iter().map(|line| (*line).to_owned())),
            count => shown.push(format!("({count} blank lines)")),
        }
        blank.clear();
        shown.push(line.to_owned());
    }
    shown.join("\n")
}

/// The first line of a text that has any characters in it, cut after 100.
pub fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    if line.chars().count() > 100 { line.chars().take(99).chain(['…']).collect() } else { line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_text_and_no_foreign_markup() {
        let evil = "<img src=x onerror=alert(1)>\"'";
        let mut table = Table::new(evil, &[(evil, Cells::Text), ("n", Cells::Numbers)]);
        table.row([escape(evil)]);
        let response = Response { name: evil, note: evil, text: evil };
        let parts = [
            document(evil, "", &[Section::new("a", evil, "x".into()), Section::new("b", evil, "x".into())]),
            table.html(),
            tiles(&[Tile::new(evil, evil, evil)]),
            notices(evil, &[evil.to_owned()]),
            exchange(evil, &[response], true),
        ];
        for html in parts {
            assert!(
                html.contains("&lt;img") && !html.contains("<img") && !html.contains("onerror=alert(1)>"),
                "{html}"
            );
        }
    }

    #[test]
    fn what_has_no_content_is_left_out() {
        assert_eq!(Table::new("t", &[("a", Cells::Text)]).html(), "");
        assert_eq!((tiles(&[]), notices("n", &[]), list(&[])), Default::default());
        let page = document("t", "", &[Section::new("one", "One", "x".into())]);
        assert!(!page.contains("<nav"), "an index of one section tells nothing");
    }

    #[test]
    fn many_blank_lines_are_counted() {
        assert_eq!(squeezed("a\n\nb"), "a\n\nb");
        assert_eq!(squeezed("a\n\n \n\n  b\n\n\n"), "a\n(3 blank lines)\n  b");
        assert_eq!((squeezed(""), squeezed(" \n\n")), ("(empty)".into(), "(white space only)".into()));
    }

    #[test]
    fn a_fold_is_named_by_its_first_line_with_text() {
        assert_eq!(first_line("\n  \n a b \nc"), "a b");
        assert_eq!(first_line(&"x".repeat(200)).chars().count(), 100);
    }
}
