//! Texts for reading: wrapped, cut and in columns on a terminal, whole in a pipe.

use std::fmt;

use console::{Style, Term, measure_text_width};

use simplemix_eval::plain;

/// Width of columns where there is no terminal.
const PIPE_WIDTH: usize = 100;
/// Narrowest terminal for which texts are wrapped.
const LEAST_WIDTH: usize = 40;
/// Most lines of a text on a terminal.
const MOST_LINES: usize = 16;

/// A text that is laid out, and holds nothing that would control a terminal but our own style.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Laid(String);

impl fmt::Display for Laid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How texts are laid out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Width of the terminal; `None` in a pipe.
    width: Option<usize>,
    /// Whether long texts are cut.
    is_cut: bool,
}

impl Layout {
    /// The layout for standard output; with `full`, no text is cut.
    pub(crate) fn of_stdout(full: bool) -> Self {
        let width = Term::stdout().size_checked().map(|(_, width)| usize::from(width).max(LEAST_WIDTH));
        Self { width, is_cut: width.is_some() && !full }
    }

    /// A line that begins something new, bold on a terminal that has colours.
    pub(crate) fn heading(self, text: &str) -> Laid {
        bold(&plain::clean_line(text))
    }

    /// A heading over each of two columns.
    pub(crate) fn headings(self, texts: [&str; 2]) -> Laid {
        bold(&self.columns(texts).0)
    }

    /// A text, indented by two columns.
    pub(crate) fn text(self, text: &str) -> Laid {
        let lines = match self.width {
            Some(width) => self.cut(wrapped(text, width - 2)),
            None => clean(text).split('\n').map(str::to_owned).collect(),
        };
        Laid(lines.iter().map(|line| format!("  {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n"))
    }

    /// Two texts beside each other, each in half of the width.
    pub(crate) fn columns(self, texts: [&str; 2]) -> Laid {
        const BETWEEN: &str = " | ";
        let half = (self.width.unwrap_or(PIPE_WIDTH) - 2 - BETWEEN.len()) / 2;
        let [left, right] = texts.map(|text| self.cut(wrapped(text, half)));
        let line = |at: usize| {
            let left = left.get(at).map_or("", String::as_str);
            let fill = " ".repeat(half.saturating_sub(measure_text_width(left)));
            let line = format!("  {left}{fill}{BETWEEN}{}", right.get(at).map_or("", String::as_str));
            line.trim_end().to_owned()
        };
        Laid((0..left.len().max(right.len())).map(line).collect::<Vec<_>>().join("\n"))
    }

    fn cut(self, mut lines: Vec<String>) -> Vec<String> {
        let more = lines.len().saturating_sub(MOST_LINES);
        // A line that says that one is missing could as well be that line.
        if self.is_cut && more > 1 {
            lines.truncate(MOST_LINES);
            lines.push(format!("... {more} more lines, shown by --full"));
        }
        lines
    }
}

fn bold(text: &str) -> Laid {
    Laid(Style::new().for_stdout().bold().apply_to(text).to_string())
}

/// The text with blanks for tabs, and without characters that would control a terminal.
fn clean(text: &str) -> String {
    plain::clean(text).replace('\t', "    ")
}

/// Lines of at most `width` columns, broken between words where that is possible.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    clean(text).split('\n').flat_map(|line| wrapped_line(line, width)).collect()
}

fn wrapped_line(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_inclusive(' ') {
        if !line.is_empty() && measure_text_width(&line) + measure_text_width(word.trim_end()) > width {
            lines.push(std::mem::take(&mut line).trim_end().to_owned());
        }
        for c in word.chars() {
            // A word that is wider than a line.
            if c != ' ' && !line.is_empty() && measure_text_width(&line) + char_width(c) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line.trim_end().to_owned());
    lines
}

fn char_width(c: char) -> usize {
    measure_text_width(c.encode_utf8(&mut [0; 4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words_and_wide_characters_count_twice() {
        assert_eq!(wrapped("one two three\n\n  four", 9), ["one two", "three", "", "  four"]);
        assert_eq!(wrapped("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrapped("日本語", 4), ["日本", "語"]);
        assert_eq!(clean("a\tb\r\n\u{1b}[31mred"), "a    b\n\\u{1b}[31mred");
    }

    #[test]
    fn a_pipe_gets_whole_texts_and_a_terminal_short_ones() {
        let long = (0..30).map(|i| i.to_string()).collect::<Vec<_>>().join("\n");
        let pipe = Layout { width: None, is_cut: false };
        assert_eq!(pipe.text(&long).to_string().lines().count(), 30);
        assert_eq!(pipe.text("a\n\nb").0, "  a\n\n  b");
        let terminal = Layout { width: Some(40), is_cut: true };
        let shown = terminal.text(&long).0;
        assert!(shown.ends_with("\n  15\n  ... 14 more lines, shown by --full"), "{shown}");
        assert_eq!(Layout { is_cut: false, ..terminal }.text(&long).0.lines().count(), 30);
    }

    #[test]
    fn columns_stand_beside_each_other() {
        let shown = Layout { width: Some(45), is_cut: true }.columns(["one two three four five", "六\nseven"]).0;
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines, ["  one two three four   | 六", "  five                 | seven"]);
    }
}
