//! Links and headings of a Markdown page, as GitHub and mdBook read them.
//!
//! Code, in fences, indented or between backticks, holds neither. Links to items, which rustdoc follows in the crates' pages, have no
//! target in parentheses and are left out.

/// A link or an image with its target as it is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Link {
    /// Line that the target stands on, from 1.
    pub(crate) line: usize,
    /// Place of the target in the page, in bytes.
    pub(crate) at: usize,
    pub(crate) target: String,
}

/// All links of a page whose targets stand beside them or in a definition, `[name]: target`.
pub(crate) fn links(page: &str) -> Vec<Link> {
    let prose = without_code(page);
    let mut found = Vec::new();
    let mut rest = 0;
    while let Some(at) = prose[rest..].find("](").map(|at| rest + at + 2) {
        let end = prose[at..].find([')', '\n']).map_or(prose.len(), |end| at + end);
        // A title may follow the target.
        let target = page[at..end].split(' ').next().unwrap_or_default();
        found.push(Link { line: line_of(page, at), at, target: target.to_owned() });
        rest = at;
    }
    let mut start = 0;
    for line in prose.split_inclusive('\n') {
        if line.starts_with('[')
            && let Some(end) = line.find("]: ")
        {
            let at = start + end + 3;
            let target = line[end + 3..].split_whitespace().next().unwrap_or_default();
            found.push(Link { line: line_of(page, at), at, target: target.to_owned() });
        }
        start += line.len();
    }
    found
}

fn line_of(page: &str, at: usize) -> usize {
    page[..at].matches('\n').count() + 1
}

/// A heading of a page.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Heading {
    /// 1 for the title.
    pub(crate) level: usize,
    /// Text without Markdown.
    pub(crate) text: String,
    /// Name that links reach it by.
    pub(crate) anchor: String,
}

/// The headings of a page, those marked by `#`.
pub(crate) fn headings(page: &str) -> Vec<Heading> {
    let mut found: Vec<Heading> = Vec::new();
    let prose = without_code_blocks(page);
    for line in prose.lines() {
        let level = line.bytes().take_while(|byte| *byte == b'#').count();
        let Some(text) = line[level..].strip_prefix(' ').filter(|_| (1..=6).contains(&level)) else { continue };
        let text = plain(text.trim());
        let name = anchor(&text);
        let before = found.iter().filter(|heading| anchor(&heading.text) == name).count();
        let anchor = if before == 0 { name } else { format!("{name}-{before}") };
        found.push(Heading { level, text, anchor });
    }
    found
}

/// Text of a heading without its Markdown: links become their text, marks of code and emphasis go.
fn plain(text: &str) -> String {
    let mut output = String::new();
    let mut rest = text;
    while let Some(start) = rest.find('[') {
        output.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        let Some((name, after)) = rest.split_once("](") else { continue };
        output.push_str(name);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    output.push_str(rest);
    output.replace(['`', '*'], "")
}

/// Name of a heading in links: lower case, spaces as dashes, without other signs.
fn anchor(text: &str) -> String {
    let kept = text.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect::<String>().to_lowercase()
}

/// The page with spaces in the place of all code, so that places stay what they are.
fn without_code(page: &str) -> String {
    let mut text = without_code_blocks(page).into_bytes();
    let mut at = 0;
    while let Some(start) = text[at..].iter().position(|byte| *byte == b'`').map(|start| at + start) {
        let ticks = text[start..].iter().take_while(|byte| **byte == b'`').count();
        let after = start + ticks;
        // A span ends with as many backticks, in the same paragraph.
        let paragraph = text[after..].windows(2).position(|pair| pair == b"\n\n").map_or(text.len(), |end| after + end);
        let close = (after..paragraph).find(|close| {
            text[*close..].iter().take_while(|byte| **byte == b'`').count() == ticks && text[close - 1] != b'`'
        });
        at = match close {
            Some(close) => {
                text[start..close + ticks].iter_mut().filter(|byte| **byte != b'\n').for_each(|byte| *byte = b' ');
                close + ticks
            }
            None => after,
        };
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// The page with spaces in the place of blocks of code.
fn without_code_blocks(page: &str) -> String {
    let mut output = String::with_capacity(page.len());
    let mut fence: Option<&str> = None;
    let mut may_be_code = true;
    for line in page.split_inclusive('\n') {
        let text = line.trim_start();
        let indent = line.len() - text.len();
        let mark = ["```", "~~~"].into_iter().find(|mark| text.starts_with(mark));
        let is_code = match (fence, mark) {
            (Some(open), Some(mark)) if mark == open => {
                fence = None;
                true
            }
            (Some(_), _) => true,
            (None, Some(mark)) => {
                fence = Some(mark);
                true
            }
            (None, None) => indent >= 4 && may_be_code && !text.is_empty(),
        };
        // Indented text is code after an empty line or other code; otherwise it continues a paragraph.
        may_be_code = is_code || text.is_empty();
        if is_code {
            output.extend(line.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        } else {
            output.push_str(line);
        }
    }
    output
}

#[cfg(test)]
mod tests {
    use super::{headings, links};

    fn targets(page: &str) -> Vec<(usize, String)> {
        links(page).into_iter().map(|link| (link.line, link.target)).collect()
    }

    #[test]
    fn links_images_and_definitions_are_found_with_their_lines() {
        let page = "See [a](a.md#x),\n![pic of\ntwo lines](b.svg \"title\") and [`code`](c.md).\n\n[d]: d.md\n";
        let expected = [(1, "a.md#x"), (3, "b.svg"), (3, "c.md"), (5, "d.md")];
        assert_eq!(targets(page), expected.map(|(line, target)| (line, target.to_owned())));
        let link = &links(page)[0];
        assert!(page[link.at..].starts_with("a.md#x"));
    }

    #[test]
    fn code_holds_no_links() {
        let page = "`[a](b)` and ``[c](`d)``\n\n    [e](f)\n\n```text\n[g](h)\n```\n\n- item\n  [i](j)\n[`k`] x\n";
        assert_eq!(targets(page), [(10, "j".to_owned())]);
        // One backtick alone is a sign.
        assert_eq!(targets("a ` b [c](d)\n\n`"), [(1, "d".to_owned())]);
    }

    #[test]
    fn headings_are_named_as_github_names_them() {
        let page = "# A `b`: C's [d](e.md)\n\n```sh\n# no heading\n```\n\n## Twice\n\n## Twice\n#no\n## x_y - 2.0\n";
        let found: Vec<_> =
            headings(page).into_iter().map(|heading| (heading.level, heading.text, heading.anchor)).collect();
        let expected = [
            (1, "A b: C's d", "a-b-cs-d"),
            (2, "Twice", "twice"),
            (2, "Twice", "twice-1"),
            (2, "x_y - 2.0", "x_y---20"),
        ];
        assert_eq!(found, expected.map(|(level, text, anchor)| (level, text.to_owned(), anchor.to_owned())));
    }
}
