//! Rust source split into code, comments and literals.
//!
//! A small scanner, not a parser: checks of comments and keywords need no more, and xtask has to
//! build quickly.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const INCLUDES: [&str; 3] = ["include", "include_str", "include_bytes"];

/// A comment of one line, or a whole block comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Comment {
    /// Line of the file, counted from 1.
    pub(crate) line: usize,
    /// `//`, `///`, `//!` or `/*`.
    pub(crate) marker: &'static str,
    /// Text after the marker.
    pub(crate) text: String,
    /// Nothing but white space is before it on its line.
    pub(crate) alone: bool,
}

/// A source file, scanned.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// The code, with a space in place of every character of a comment or literal.
    pub(crate) code: String,
    pub(crate) comments: Vec<Comment>,
    /// Paths in `include!("..")`, `include_str!("..")`, `include_bytes!("..")` and `#[path = ".."]`.
    pub(crate) included: Vec<String>,
}

impl Source {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self::scan(&text))
    }

    pub(crate) fn scan(text: &str) -> Self {
        let mut scanner = Scanner { chars: text.chars().collect(), at: 0, line: 1, source: Self::default() };
        while scanner.at < scanner.chars.len() {
            scanner.step();
        }
        scanner.source
    }

    /// Lines, counted from 1, whose code holds `words`, not as a part of a longer word.
    pub(crate) fn lines_with(&self, words: &str) -> impl Iterator<Item = usize> {
        self.code.lines().enumerate().filter(move |(_, line)| holds(line, words)).map(|(index, _)| index + 1)
    }
}

fn holds(line: &str, words: &str) -> bool {
    line.match_indices(words)
        .any(|(at, _)| !line[..at].ends_with(is_in_word) && !line[at + words.len()..].starts_with(is_in_word))
}

/// All Rust files below a folder, sorted, without those of builds and hidden folders.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    files(folder, ".rs")
}

/// All files below a folder whose names have this ending, sorted, without those of builds and hidden folders.
///
/// # Errors
/// A folder that cannot be read.
pub(crate) fn files(folder: &Path, ending: &str) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    collect(folder, ending, &mut files)?;
    files.sort();
    Ok(files)
}

fn collect(folder: &Path, ending: &str, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !name.starts_with('.') && name != "target" {
                collect(&path, ending, files)?;
            }
        } else if name.ends_with(ending) {
            files.push(path);
        }
    }
    Ok(())
}

fn is_in_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

struct Scanner {
    chars: Vec<char>,
    at: usize,
    line: usize,
    source: Source,
}

impl Scanner {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    /// Passes one character, kept in the code or blanked.
    fn pass(&mut self, kept: bool) {
        let Some(c) = self.peek(0) else { return };
        self.at += 1;
        if c == '\n' {
            self.line += 1;
        }
        self.source.code.push(if kept || c == '\n' { c } else { ' ' });
    }

    fn pass_blank(&mut self, count: usize) {
        for _ in 0..count {
            self.pass(false);
        }
    }

    fn step(&mut self) {
        match (self.peek(0), self.peek(1)) {
            (Some('/'), Some('/')) => self.line_comment(),
            (Some('/'), Some('*')) => self.block_comment(),
            (Some('"'), _) => self.string(),
            (Some('\''), _) => self.quote(),
            (Some('r'), Some('"' | '#')) if self.starts_raw_string() => self.raw_string(),
            _ => self.pass(true),
        }
    }

    fn is_alone(&self) -> bool {
        self.source.code.chars().rev().take_while(|c| *c != '\n').all(char::is_whitespace)
    }

    fn line_comment(&mut self) {
        let (line, alone) = (self.line, self.is_alone());
        let rest = self.chars[self.at..].iter().take_while(|c| **c != '\n').collect::<String>();
        // Four slashes and more are a plain comment, such as a ruler.
        let marker = match rest.as_bytes() {
            [b'/', b'/', b'/', b'/', ..] => "//",
            [b'/', b'/', b'/', ..] => "///",
            [b'/', b'/', b'!', ..] => "//!",
            _ => "//",
        };
        self.pass_blank(rest.chars().count());
        self.source.comments.push(Comment { line, marker, text: rest[marker.len()..].to_owned(), alone });
    }

    fn block_comment(&mut self) {
        let (line, alone, start) = (self.line, self.is_alone(), self.at);
        let mut depth = 0;
        while self.at < self.chars.len() {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                _ => {
                    self.pass(false);
                    continue;
                }
            }
            self.pass_blank(2);
            if depth == 0 {
                break;
            }
        }
        let text = self.chars[start..self.at].iter().collect::<String>();
        let text = text.trim_start_matches(['/', '*', '!']).trim_end_matches(['/', '*']).to_owned();
        self.source.comments.push(Comment { line, marker: "/*", text, alone });
    }

    fn string(&mut self) {
        let (start, includes) = (self.at + 1, self.ends_with_include());
        self.pass(false);
        while let Some(c) = self.peek(0) {
            if c == '\\' {
                self.pass_blank(2);
                continue;
            }
            self.pass(false);
            if c == '"' {
                break;
            }
        }
        if includes {
            let end = self.at.saturating_sub(1).max(start);
            self.source.included.push(self.chars[start..end].iter().collect());
        }
    }

    fn ends_with_include(&self) -> bool {
        let code = self.source.code.trim_end();
        let called = code.strip_suffix('(').and_then(|code| code.strip_suffix('!'));
        let called = called.is_some_and(|code| INCLUDES.iter().any(|name| code.ends_with(name)));
        called || code.strip_suffix('=').is_some_and(|code| code.trim_end().ends_with("#[path"))
    }

    /// A character literal, or the start of a lifetime or label.
    fn quote(&mut self) {
        if self.peek(1) == Some('\\') {
            self.pass_blank(3);
            while self.peek(0).is_some_and(|c| c != '\'') {
                self.pass(false);
            }
            self.pass(false);
        } else if self.peek(2) == Some('\'') {
            self.pass_blank(3);
        } else {
            self.pass(true);
        }
    }

    fn hashes(&self) -> usize {
        self.chars[self.at + 1..].iter().take_while(|c| **c == '#').count()
    }

    fn starts_raw_string(&self) -> bool {
        let in_word = |c: &char| is_in_word(*c) && !['b', 'c'].contains(c);
        let before = self.at.checked_sub(1).and_then(|at| self.chars.get(at));
        !before.is_some_and(in_word) && self.peek(1 + self.hashes()) == Some('"')
    }

    fn raw_string(&mut self) {
        let hashes = self.hashes();
        self.pass_blank(2 + hashes);
        while let Some(c) = self.peek(0) {
            self.pass(false);
            if c == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                self.pass_blank(hashes);
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Source;

    #[test]
    fn strings_hold_no_comments_and_no_code() {
        let source = Source::scan("let a = \"// no \\\" unsafe\"; // yes\nlet b = br#\"/* \" unsafe\"#;\n'x' unsafe");
        assert_eq!(source.comments.len(), 1);
        assert_eq!(source.comments[0].text, " yes");
        assert!(!source.comments[0].alone);
        assert_eq!(source.lines_with("unsafe").collect::<Vec<_>>(), [3]);
    }

    #[test]
    fn lifetimes_are_code_and_characters_are_not() {
        let source = Source::scan("fn f<'a>(x: &'a str) { x == '\"' || x == '\\'' || x == '\\u{2f}' } // end");
        assert_eq!(source.comments.len(), 1);
        assert!(source.code.contains("<'a>(x: &'a str)"));
    }

    #[test]
    fn markers_are_told_apart() {
        let source = Source::scan("//! a\n/// b\n// c\n//// d\n/* e /* f */ */\n");
        let found: Vec<_> = source.comments.iter().map(|c| (c.line, c.marker, c.text.trim())).collect();
        assert_eq!(
            found,
            [(1, "//!", "a"), (2, "///", "b"), (3, "//", "c"), (4, "//", "// d"), (5, "/*", "e /* f */")]
        );
        assert!(source.comments.iter().all(|comment| comment.alone));
    }

    #[test]
    fn included_paths_are_kept() {
        let text = "#[path = \"a.rs\"] mod a;\nconst B: &str = include_str!(\"../b.txt\");\nlet c = f(\"c\");\n";
        assert_eq!(Source::scan(text).included, ["a.rs", "../b.txt"]);
    }

    #[test]
    fn words_are_whole() {
        let source = Source::scan("unsafe_code\nunsafe {}\nr#unsafe\n");
        assert_eq!(source.lines_with("unsafe").collect::<Vec<_>>(), [2, 3]);
        let source = Source::scan("eprintln!();\nprintln!();\nprint!();\nstd::io::stdout();\nc.stdout(p);\n");
        assert_eq!(source.lines_with("println!").collect::<Vec<_>>(), [2]);
        assert_eq!(source.lines_with("io::stdout").collect::<Vec<_>>(), [4]);
    }
}
