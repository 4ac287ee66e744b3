//! Commands in pages of documentation, taken apart as a shell would.

/// A command as a page has it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Documented {
    /// Line of the page that it begins on, from 1.
    pub(crate) line: usize,
    /// Words after quotes, comments, prompts and variables before the program are gone.
    pub(crate) words: Vec<String>,
    /// Stands in a sentence, or has `...` in the place of words.
    pub(crate) is_partial: bool,
}

/// Commands of a page whose first words are `program`: those in blocks, and those between backticks.
pub(crate) fn commands(page: &str, program: &[&str]) -> Vec<Documented> {
    let mut found = Vec::new();
    for (line, text, is_block) in texts(page) {
        for words in split(&text) {
            // Variables for one command stand before it, a launcher of processes has its own flags, and a program may be named by
            // its path.
            let launched = ["torchrun", "srun"].contains(&words[0].as_str());
            let skipped =
                words.iter().take_while(|word| is_assignment(word) || launched && *word != program[0]).count();
            let mut words: Vec<String> = words.into_iter().skip(skipped).collect();
            if let Some(first) = words.first_mut().filter(|first| first.ends_with("/simplemix")) {
                *first = "simplemix".to_owned();
            }
            if words.len() < program.len() || words.iter().zip(program).any(|(word, name)| word != name) {
                continue;
            }
            let is_partial = !is_block || words.iter().any(|word| word.contains("..."));
            words.retain(|word| word != "...");
            found.push(Documented { line, words, is_partial });
        }
    }
    found
}

fn is_assignment(word: &str) -> bool {
    let name = word.split_once('=').map(|(name, _)| name);
    name.is_some_and(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
}

/// Lines of blocks, and spans between backticks, each with its first line and whether it is one of a block.
fn texts(page: &str) -> Vec<(usize, String, bool)> {
    let mut found = Vec::new();
    let mut fence: Option<bool> = None;
    let mut may_be_code = true;
    let mut joined: Option<(usize, String)> = None;
    let mut paragraph: Option<(usize, String)> = None;
    for (index, line) in page.lines().enumerate() {
        let text = line.trim_start();
        let is_indented = fence.is_none() && line.starts_with("    ") && may_be_code;
        if let Some(language) = text.strip_prefix("```") {
            fence = match fence {
                Some(_) => None,
                None => Some(["", "text", "sh", "bash", "console"].contains(&language.trim())),
            };
            may_be_code = true;
            continue;
        }
        if fence == Some(true) || is_indented {
            found.extend(paragraph.take().into_iter().flat_map(|(line, text)| spans(line, &text)));
            let (first, mut whole) = joined.take().unwrap_or((index + 1, String::new()));
            let text = if whole.is_empty() { text.strip_prefix("$ ").unwrap_or(text) } else { text };
            match text.trim_end().strip_suffix('\\') {
                Some(part) => {
                    whole.push_str(part);
                    joined = Some((first, whole));
                }
                None => {
                    whole.push_str(text);
                    found.push((first, whole, true));
                }
            }
            may_be_code = true;
        } else if fence.is_none() {
            may_be_code = text.is_empty();
            if text.is_empty() {
                found.extend(paragraph.take().into_iter().flat_map(|(line, text)| spans(line, &text)));
            } else {
                let (_, whole) = paragraph.get_or_insert((index + 1, String::new()));
                whole.push_str(line);
                whole.push('\n');
            }
        }
    }
    found.extend(paragraph.into_iter().flat_map(|(line, text)| spans(line, &text)));
    found
}

/// Spans between single backticks of a paragraph that begins on `line`.
fn spans(line: usize, text: &str) -> Vec<(usize, String, bool)> {
    let mut at = line;
    let mut found = Vec::new();
    for (i, part) in text.split('`').enumerate() {
        if i % 2 == 1 {
            found.push((at, part.replace('\n', " "), false));
        }
        at += part.matches('\n').count();
    }
    found
}

/// Words of each command of a line: quotes hold words together, a comment ends the line, and `|`, `&&`, `;` end a command. What is
/// redirected is left out.
fn split(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![Vec::new()];
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut is_target = false;
    for c in line.chars().chain([' ']) {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            (c, None) if c.is_whitespace() => {
                let Some(whole) = word.take() else { continue };
                match whole.as_str() {
                    "|" | "&&" | ";" => commands.push(Vec::new()),
                    ">" | ">>" | "<" | "2>" => is_target = true,
                    _ if is_target => is_target = false,
                    _ => commands.last_mut().into_iter().for_each(|words: &mut Vec<String>| words.push(whole.clone())),
                }
            }
            ('#', None) if word.is_none() => break,
            _ => word.get_or_insert_default().push(c),
        }
    }
    commands.into_iter().filter(|words| !words.is_empty()).collect()
}

mod tests {
    use super::{Documented, commands};

    const PAGE: &str = "Text with `simplemix mix --size N` and `other`,\nand `simplemix\nclean`.\n\n    \
                        $ KEY=a target/release/simplemix run 'a b.toml' \\\n        --seed 1   # comment\n    simplemix: no command\n\n\
                        ```toml\nsimplemix = 1\n```\n\n```text\nsimplemix show x | head -3\n```\n    \
                        cat x.json && simplemix train ... > y.txt\n    srun --nodes 2 simplemix logps --data x\n";

    #[test]
    fn commands_of_blocks_and_sentences_are_words() {
        let found = commands(PAGE, &["simplemix"]);
        let expect = |line, words: &[&str], is_partial| {
            let words = words.iter().map(|word| (*word).to_owned()).collect();
            Documented { line, words, is_partial }
        };
        let expected = [
            expect(1, &["simplemix", "mix", "--size", "N"], true),
            expect(2, &["simplemix", "clean"], true),
            expect(5, &["simplemix", "run", "a b.toml", "--seed", "1"], false),
            expect(14, &["simplemix", "show", "x"], false),
            expect(16, &["simplemix", "train"], true),
            expect(17, &["simplemix", "logps", "--data", "x"], false),
        ];
        assert_eq!(found, expected);
    }
}
