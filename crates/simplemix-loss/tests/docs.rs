//! docs/losses.md names every loss, with its aliases and constants.

#![allow(clippy::unwrap_used, reason = "a test")]

use simplemix_loss::LossKind;

#[test]
fn the_table_of_losses_is_whole() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/losses.md");
    let text = std::fs::read_to_string(path).unwrap();
    for kind in LossKind::all() {
        let start = format!("| `{kind}`");
        let row = text.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("no row for `{kind}`"));
        let formula = kind.formula();
        for name in formula.aliases.iter().copied().chain(formula.constants.iter().map(|constant| constant.name)) {
            assert!(row.contains(&format!("`{name}`")), "`{name}` is not in the row of `{kind}`");
        }
    }
}
