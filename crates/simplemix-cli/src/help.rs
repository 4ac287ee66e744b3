//! The commands as they are parsed and shown: negative numbers are values, and examples can be copied.

use clap::Command;

/// Widest line of an example; clap would break a longer one at the edge of the terminal, where no shell goes on.
const WIDTH: usize = 78;

/// `command` and all commands in it, ready for use.
pub(crate) fn prepared(command: Command) -> Command {
    let help = command.get_after_help().map(|help| with_short_lines(&help.to_string()));
    let command = match help {
        Some(help) => command.after_help(help),
        None => command,
    };
    command
        .mut_args(|arg| match arg.get_action().takes_values() {
            true => arg.allow_negative_numbers(true),
            false => arg,
        })
        .mut_subcommands(prepared)
}

/// Breaks long examples as a shell wants it: ` \` at the end of the line.
fn with_short_lines(help: &str) -> String {
    let line = |line: &str| match line.starts_with("  simplemix ") {
        true => broken(line),
        false => line.to_owned(),
    };
    help.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// The example in lines that begin with a flag or `>`, whose values stay beside it.
fn broken(example: &str) -> String {
    let mut parts: Vec<String> = Vec::new();
    for word in words(example.trim_start()) {
        match parts.last_mut().filter(|_| !word.starts_with(['-', '>'])) {
            Some(part) => *part = format!("{part} {word}"),
            None => parts.push(word.to_owned()),
        }
    }
    let (mut lines, mut line) = (Vec::new(), String::from(" "));
    for part in parts {
        if !line.trim().is_empty() && line.len() + 1 + part.len() + 2 > WIDTH {
            lines.push(format!("{line} \\"));
            line = String::from("   ");
        }
        line.push(' ');
        line.push_str(&part);
    }
    lines.push(line);
    lines.join("\n")
}

/// Words of a command; quotes stay as they are.
fn words(text: &str) -> Vec<&str> {
    let mut quote = None;
    let is_between = |c: char| {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if open == c => quote = None,
            _ => {}
        }
        quote.is_none() && c == ' '
    };
    text.split(is_between).filter(|word| !word.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;
    use crate::Cli;

    /// The commands that do something, with the words that call them.
    fn leaves(command: &Command, path: &str) -> Vec<(String, Command)> {
        let path = format!("{path}{} ", command.get_name());
        match command.has_subcommands() {
            true => shown(command).flat_map(|inner| leaves(inner, &path)).collect(),
            false => vec![(path, command.clone())],
        }
    }

    /// Commands that the help lists.
    fn shown(command: &Command) -> impl Iterator<Item = &Command> {
        command.get_subcommands().filter(|inner| !inner.is_hide_set())
    }

    /// The examples of a help text as a shell reads them.
    fn examples(help: &str) -> Vec<String> {
        let whole = help.replace("\\\n", " ");
        whole.lines().filter(|line| line.starts_with("  simplemix ")).map(|line| line.trim().to_owned()).collect()
    }

    fn parse(example: &str) -> Result<Cli, clap::Error> {
        let command = example.split(" > ").next().unwrap();
        Cli::try_parse_from(words(command).into_iter().map(|word| word.replace(['\'', '"'], "")))
    }

    #[test]
    fn every_example_of_every_help_can_be_copied_from_a_terminal() {
        let command = prepared(Cli::command()).term_width(80);
        let mut command = command.clone();
        command.build();
        let top = examples(&command.render_long_help().to_string());
        assert!(top.len() > 5);
        let mut all = top;
        for (path, leaf) in leaves(&command, "") {
            let shown = leaf.clone().term_width(80).render_long_help().to_string();
            let found = examples(&shown);
            let is_help = path.split(' ').any(|word| word == "help");
            assert!(is_help || !found.is_empty(), "{path}has no example:\n{shown}");
            assert!(found.iter().all(|example| example.starts_with(path.trim_end())), "{path}: {found:?}");
            all.extend(found);
        }
        for example in all {
            let parsed = parse(&example);
            assert!(parsed.is_ok(), "{example}\n{}", parsed.unwrap_err());
        }
    }

    #[test]
    fn long_examples_are_broken_before_a_flag() {
        let (x, y) = ("x".repeat(30), "y".repeat(40));
        let help =
            format!("Examples:\n  simplemix score --scorer 'command:python {x}' -o {y}\n\nA flag stands for a key.");
        let expected = format!(
            "Examples:\n  simplemix score --scorer 'command:python {x}' \\\n    -o {y}\n\nA flag stands for a key."
        );
        assert_eq!(with_short_lines(&help), expected);
        assert_eq!(with_short_lines(&expected.replace(" \\\n   ", "")), expected);
    }

    #[test]
    fn negative_numbers_are_values_of_every_flag_that_takes_one() {
        let of = |args: &[&str]| prepared(Cli::command()).try_get_matches_from(args).unwrap_err().to_string();
        let found = of(&["simplemix", "generate", "--model", "m", "--prompts", "p", "-o", "o", "--samples", "-1"]);
        assert!(found.contains("invalid value '-1' for '--samples <N>'"), "{found}");
        let found = of(&["simplemix", "eval", "alpaca", "--annotations", "a", "--seed", "-2e3"]);
        assert!(found.contains("invalid value '-2e3' for '--seed"), "{found}");
    }
}
