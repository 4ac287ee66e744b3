//! Fenced blocks of Rust in a Markdown page.

/// A block between fences that start with ```` ```rust ````.
pub(crate) struct Block {
    /// Line of the page that the code starts on, counted from 1.
    pub(crate) line: usize,
    pub(crate) code: String,
    /// File that `<!-- excerpt: PATH -->` above the block names: the block repeats a part of it.
    pub(crate) excerpt_of: Option<String>,
}

/// The blocks of a page. Words after `rust` on a fence, such as `no_run`, have no effect.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut lines = page.lines().enumerate();
    let mut above = None;
    while let Some((index, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let code: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            if language.split(',').next() == Some("rust") {
                found.push(Block { line: index + 2, code: code.join("\n"), excerpt_of: above.take() });
            }
        }
        let name = line.strip_prefix("<!-- excerpt: ").and_then(|rest| rest.strip_suffix(" -->"));
        if name.is_some() || !line.is_empty() {
            above = name.map(str::to_owned);
        }
    }
    found
}
