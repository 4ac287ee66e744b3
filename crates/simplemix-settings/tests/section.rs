//! The results of a declaration.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::PathBuf;

use simplemix_settings::{Error, Settings, choice, markdown, section, toml_template};

choice! {
    /// Shape of the learning rate.
    pub enum Schedule {
        /// Straight.
        Linear = "linear";
        /// Curved.
        HalfCosine = "half-cosine", old "half_cosine", old "cos";
    }
}

section! {
    /// AdamW and the learning rate.
    pub struct Optimizer("optimizer") {
        /// Peak
        /// learning rate.
        learning_rate: f64 = 1e-6, in above(0.0), from "TRL", was "learning_rate";
        /// Shape of it.
        schedule: Schedule = Schedule::Linear;
        /// Decay of the mean gradient.
        beta1: f64 = 0.9, in from_to_below(0.0, 1.0), was "adamw.beta1";
        /// Decay of the mean squared gradient.
        beta2: f64 = 0.999, in from_to_below(0.0, 1.0), was "adamw.beta2";
    }
}

section! {
    /// Low-rank adapter.
    #[derive(Eq)]
    pub struct Lora("lora") {
        /// Rank; 0 for none.
        rank: i64 = 0, in at_least(0.0), was "lora_rank";
        /// Layers; all if empty.
        targets: Vec<String> = Vec::new(), alias "modules";
    }
}

section! {
    /// A run.
    pub struct Run("") {
        /// Model folder.
        model: Option<PathBuf> = None;
        /// Tokens of a pair.
        max_length: usize = 1024, in at_least(2.0), unit "tokens";
    }
    sections {
        /// AdamW and the learning rate.
        optimizer: Optimizer;
        /// Low-rank adapter.
        lora: Lora;
    }
}

fn read(text: &str) -> Result<Run, Error> {
    let run = Run::from_table(text.parse().unwrap())?;
    run.check_ranges().map(|()| run)
}

fn refused(text: &str) -> String {
    read(text).unwrap_err().to_string()
}

#[test]
fn what_is_absent_has_its_default() {
    let run = read("[optimizer]\nschedule = 'cos'").unwrap();
    let expected = Optimizer { schedule: Schedule::HalfCosine, ..Optimizer::default() };
    assert_eq!(run, Run { optimizer: expected, ..Run::default() });
    assert_eq!(toml::from_str::<Run>(&toml::to_string(&run).unwrap()).unwrap(), run);
    assert_eq!(read("lora.modules = ['q']").unwrap().lora.targets, ["q"]);
}

#[test]
fn errors_name_the_key_with_what_was_found_and_expected() {
    for (text, expected) in [
        ("max_length = 1", "`max_length` is 1, expected a whole number >= 2"),
        ("max_length = -1", "`max_length` is -1, expected a whole number >= 2"),
        ("model = 3", "`model` is 3, expected a path"),
        ("optimizer.learning_rate = 0", "`optimizer.learning_rate` is 0, expected a number above 0"),
        ("optimizer.learning_rate = nan", "`optimizer.learning_rate` is NaN, expected a number above 0"),
        ("optimizer.learning_rate = 'fast'", "`optimizer.learning_rate` is \"fast\", expected a number above 0"),
        ("optimizer.schedule = 'up'", "`optimizer.schedule` is \"up\", expected `linear` or `half-cosine`"),
        ("optimizer.beta1 = 1", "`optimizer.beta1` is 1, expected a number from 0 to below 1"),
        ("lora.targets = 'q_proj'", "`lora.targets` is \"q_proj\", expected a list of texts"),
        ("lora = 16", "`lora` is 16, expected a table"),
    ] {
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn unknown_keys_come_with_the_nearest() {
    for (text, expected) in [
        ("optimizer.learning_rat = 1", "unknown key `optimizer.learning_rat`; did you mean `optimizer.learning_rate`?"),
        ("learning_rat = 1", "unknown key `learning_rat`; did you mean `optimizer.learning_rate`?"),
        ("[optimiser]\nbeta1 = 1", "unknown key `optimiser`; did you mean `optimizer`?"),
        ("lora.beta1 = 1", "unknown key `lora.beta1`; did you mean `optimizer.beta1`?"),
        ("colour = 1", "unknown key `colour`"),
    ] {
        assert_eq!(refused(text), expected);
    }
}

#[test]
fn all_keys_at_fault_are_named_at_once() {
    let found = Run::from_table("colour = 1\nmax_length = 1\nlora_rank = 2\n[optimizer]\nbeta1 = 'x'".parse().unwrap());
    let Err(Error::Several(errors)) = found else { panic!("{found:?}") };
    let mut texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.sort();
    assert_eq!(
        texts,
        [
            "`lora_rank` is now `lora.rank`",
            "`max_length` is 1, expected a whole number >= 2",
            "`optimizer.beta1` is \"x\", expected a number from 0 to below 1",
            "unknown key `colour`",
        ]
    );
}

#[test]
fn keys_of_older_versions_come_with_what_replaced_them() {
    assert_eq!(refused("lora_rank = 16"), "`lora_rank` is now `lora.rank`");
    assert_eq!(
        refused("learning_rate = 1\nlora_rank = 16\n[adamw]\nbeta1 = 1\nbeta2 = 1"),
        "`adamw.beta1` is now `optimizer.beta1`, `adamw.beta2` is now `optimizer.beta2`, \
         `learning_rate` is now `optimizer.learning_rate`, `lora_rank` is now `lora.rank`"
    );
}

#[test]
fn a_template_holds_the_defaults() {
    let text = toml_template(Run::SECTIONS);
    assert_eq!(read(&text).unwrap(), Run::default());
    assert!(text.starts_with("# A run\n\n# Model folder.\n# A path\n# model =\n"), "{text}");
    let rate = "[optimizer]\n\n# Peak learning rate.\n# A number above 0\nlearning_rate = 1e-6\n";
    assert!(text.contains(rate), "{text}");
}

#[test]
fn tables_of_the_documentation_hold_the_declarations() {
    let text = markdown(Run::SECTIONS);
    assert!(text.contains("| `max_length` | a whole number >= 2, tokens | `1024` | Tokens of a pair. |"), "{text}");
    assert!(text.contains("`[optimizer]`: AdamW and the learning rate:\n"), "{text}");
    assert!(text.contains("| `learning_rate` | a number above 0 | `1e-6` (TRL) | Peak learning rate. |"), "{text}");
}
