//! Flags that are settings: help, default and type come from the declarations of the settings, and so do errors.

use clap::{Arg, ArgAction, ArgMatches, Command};
use simplemix_settings::{Error, Field, Section};

/// A flag for a setting.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flag {
    /// Name without dashes.
    pub(crate) name: &'static str,
    /// Path of the setting, such as `loss.beta`.
    pub(crate) path: &'static str,
    /// Placeholder of the value; the setting's words if it has a few.
    pub(crate) value: &'static str,
    /// Heading in the help.
    pub(crate) heading: &'static str,
    /// Value of the setting, from the values that were given.
    pub(crate) read: fn(&[String]) -> Result<toml::Value, String>,
    /// Text of the help beside the meaning of the setting, such as how to give several values.
    pub(crate) hint: &'static str,
}

/// Placeholder of a flag that needs no value.
pub(crate) const SWITCH: &str = "true|false";

/// A flag that was given.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    flag: &'static Flag,
    values: Vec<String>,
}

/// A single value: TOML, or text where it is none.
pub(crate) fn one(values: &[String]) -> Result<toml::Value, String> {
    let text = values.last().map_or("", String::as_str);
    let table = format!("value = {text}").parse::<toml::Table>().ok();
    Ok(table
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| text.into()))
}

/// A single value that is text, such as a path.
pub(crate) fn text(values: &[String]) -> Result<toml::Value, String> {
    Ok(values.last().map_or("", String::as_str).into())
}

/// Adds `flags` to a command.
pub(crate) fn add(mut command: Command, flags: &'static [Flag], sections: &[Section]) -> Command {
    for flag in flags {
        let field = field(sections, flag.path);
        let mut help = field.doc().trim_end_matches('.').replace('`', "") + flag.hint;
        if let Some(default) = field.default_text().filter(|default| default != "[]") {
            help.push_str(&format!(" [default: {}]", default.trim_matches('"')));
        }
        let value = field.words().unwrap_or(flag.value);
        let arg = Arg::new(flag.name).long(flag.name).value_name(value).help(help).help_heading(flag.heading);
        let arg = match value {
            SWITCH => arg.num_args(0..=1).require_equals(true).default_missing_value("true"),
            _ => arg,
        };
        command = command.arg(arg.action(ArgAction::Append));
    }
    command
}

/// The flags that were given.
pub(crate) fn given(matches: &ArgMatches, flags: &'static [Flag]) -> Vec<Given> {
    let values = |flag: &Flag| matches.get_many::<String>(flag.name).map(|all| all.cloned().collect::<Vec<_>>());
    flags.iter().filter_map(|flag| Some(Given { values: values(flag)?, flag })).collect()
}

impl Given {
    /// The setting alone, as a table.
    pub(crate) fn table(&self) -> Result<toml::Table, String> {
        let mut table = toml::Table::new();
        self.set_in(&mut table)?;
        Ok(table)
    }

    /// Sets the setting in a table of settings, whatever it was there.
    pub(crate) fn set_in(&self, table: &mut toml::Table) -> Result<(), String> {
        let value = (self.flag.read)(&self.values).map_err(|problem| format!("--{} {problem}", self.flag.name))?;
        let (section, key) = self.flag.path.split_once('.').unwrap_or(("", self.flag.path));
        let section = match section {
            "" => Some(table),
            name => table.entry(name).or_insert_with(|| toml::Table::new().into()).as_table_mut(),
        };
        // A section that is no table is refused with the other settings.
        if let Some(section) = section {
            section.insert(key.to_owned(), value);
        }
        Ok(())
    }
}

/// The text of an error; it names the flag in place of the key that the flag stands for.
pub(crate) fn message(error: &Error, given: &[Given]) -> String {
    error.each().iter().map(|error| one_message(error, given)).collect::<Vec<_>>().join("; ")
}

fn one_message(error: &Error, given: &[Given]) -> String {
    match error {
        Error::Value { key, found, expected } => match given.iter().find(|given| given.flag.path == key) {
            Some(given) => format!("--{} is {found}, expected {expected}", given.flag.name),
            None => error.to_string(),
        },
        other => other.to_string(),
    }
}

/// The flag in place of a key of version 0.1 that had a flag of the same name.
pub(crate) fn gone(name: &str, sections: &[Section]) -> Option<String> {
    let old = name.trim_start_matches('-').replace('-', "_");
    let mut all = sections.iter().flat_map(|section| section.fields.iter().map(move |field| (section, field)));
    let (section, field) = all.find(|(_, field)| field.was == Some(&old) || field.was == Some(&format!("{old}s")))?;
    let path = section.path(field.key);
    let value = match (field.is_list(), field.words()) {
        (true, _) => "'[\"VALUE\"]'",
        (false, Some(words)) => words,
        (false, None) => "VALUE",
    };
    Some(match old.as_str() {
        "loss_constant" => format!("{name} is now --set {path}.NAME=VALUE"),
        _ => format!("{name} is now --set {path}={value}"),
    })
}

fn field(sections: &[Section], path: &str) -> &'static Field {
    let (section, key) = path.split_once('.').unwrap_or(("", path));
    let section = sections.iter().find(|known| known.name == section);
    section.and_then(|section| section.field(key)).expect("every flag is of a declared setting: a test builds them all")
}
