//! The tables of settings in docs/training.md are those of the declarations.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use simplemix_settings::{Settings, markdown, toml_template};
use simplemix_train::TrainConfig;

const BEGIN: &str =
    "<!-- settings: made from the declarations; UPDATE_DOCS=1 cargo test -p simplemix-train --test docs -->\n";
const END: &str = "<!-- end of settings -->";

#[test]
fn the_tables_of_settings_are_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/training.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("docs/training.md has the first marker");
    let (tables, after) = rest.split_once(END).expect("docs/training.md has the second marker");
    let expected = format!("\n{}\n", markdown(TrainConfig::SECTIONS));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
    } else {
        assert!(tables == expected, "docs/training.md: run UPDATE_DOCS=1 cargo test -p simplemix-train --test docs");
    }
}

/// As `simplemix train --settings` prints it.
#[test]
fn the_file_of_all_settings_holds_the_defaults() {
    let text = toml_template(TrainConfig::SECTIONS);
    assert_eq!(TrainConfig::from_toml(&text, Path::new("run.toml")).unwrap(), TrainConfig::default());
    let settings = text.lines().filter(|line| line.contains(" =") && !line.starts_with("# A")).count();
    assert!(settings >= 60, "{settings} settings");
}
