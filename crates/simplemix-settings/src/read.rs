//! Holding a table against the declared sections, so that an error names the key that the user wrote.

use crate::error::{Error, Moved, Result};
use crate::field::{Field, Section};
use crate::nearest::nearest;
use crate::value::toml_text;

/// Refuses unknown keys, keys of older versions, and values of the wrong type or out of range, all at once. `sections` begins with the top level.
pub(crate) fn check_table(sections: &[Section], table: &toml::Table) -> Result {
    let Some((top, inner)) = sections.split_first() else { return Ok(()) };
    let mut reader = Reader { sections, moved: Vec::new(), errors: Vec::new() };
    for (key, value) in table {
        match (top.field(key), inner.iter().find(|section| section.name == key), value) {
            (Some(field), _, value) => reader.value(field, &top.path(key), value),
            (None, Some(section), toml::Value::Table(values)) => reader.section(section, values),
            _ => reader.stray(top, key, value),
        }
    }
    let Reader { moved, mut errors, .. } = reader;
    if !moved.is_empty() {
        errors.push(Error::Moved(moved));
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::all(errors)) }
}

struct Reader<'a> {
    sections: &'a [Section],
    /// Keys of older versions that were found.
    moved: Vec<Moved>,
    /// Other faults.
    errors: Vec<Error>,
}

impl Reader<'_> {
    fn section(&mut self, section: &Section, values: &toml::Table) {
        for (key, value) in values {
            match section.field(key) {
                Some(field) => self.value(field, &section.path(key), value),
                None => self.stray(section, key, value),
            }
        }
    }

    /// A value of another type, or a number out of range.
    fn value(&mut self, field: &Field, path: &str, value: &toml::Value) {
        let checked = field.check_type(path, value).and_then(|()| field.check_range(path, value));
        self.errors.extend(checked.err());
    }

    /// A key that `section` does not have: one of an older version, or a mistake.
    fn stray(&mut self, section: &Section, key: &str, value: &toml::Value) {
        let path = section.path(key);
        // A former table may be keys of sections now, and a former key may be in a section.
        let parts: Vec<&str> = value.as_table().into_iter().flat_map(toml::Table::keys).map(String::as_str).collect();
        let within: Vec<Moved> = parts.iter().filter_map(|part| self.moved(&format!("{path}.{part}"))).collect();
        if let Some(moved) = self.moved(&path).or_else(|| self.moved(key).filter(|_| section.name.is_empty())) {
            self.moved.push(moved);
        } else if !within.is_empty() && within.len() == parts.len() {
            self.moved.extend(within);
        } else if self.sections[1..].iter().any(|section| section.name == key) {
            self.errors.push(Error::value(path, toml_text(value), "a table"));
        } else {
            self.errors.push(Error::Unknown { meant: self.meant(section, key), key: path });
        }
    }

    /// Where a key of an older version is now.
    fn moved(&self, old: &str) -> Option<Moved> {
        let own = |section: &Section, field: &Field| {
            // At the top level of these settings, paths of older keys begin with the section's name.
            let was = field.was?;
            (was == old || section.path(was) == old).then(|| section.path(field.key))
        };
        let mut all = self.sections.iter().flat_map(|section| section.fields.iter().map(move |field| (section, field)));
        all.find_map(|(section, field)| own(section, field)).map(|new| Moved { old: old.to_owned(), new })
    }

    /// The known key that `key` resembles most: in its own section if possible, else anywhere, by old names too.
    fn meant(&self, section: &Section, key: &str) -> Option<String> {
        let own: Vec<&str> = section.fields.iter().map(|field| field.key).collect();
        if let Some(name) = nearest(key, &own) {
            return Some(section.path(name));
        }
        let all = || self.sections.iter().flat_map(|section| section.fields.iter().map(move |field| (section, field)));
        let names: Vec<&str> = all()
            .flat_map(|(_, field)| [Some(field.key), field.was])
            .flatten()
            .chain(self.sections.iter().map(|section| section.name).filter(|name| !name.is_empty()))
            .collect();
        let name = nearest(key, &names)?;
        let path = all().find(|(_, field)| field.key == name || field.was == Some(name));
        Some(path.map_or_else(|| name.to_owned(), |(section, field)| section.path(field.key)))
    }
}
