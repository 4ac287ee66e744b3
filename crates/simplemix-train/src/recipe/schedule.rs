//! Learning-rate schedules by the names and arguments that transformers has for them.

use super::keys::Keys;
use super::translation::{Source, Translation};

/// Arguments that a schedule takes here.
const COSINE: &[&str] = &["min_lr_rate", "min_lr", "num_cycles"];
const WSD: &[&str] =
    &["num_decay_steps", "min_lr_ratio", "decay_type", "warmup_type", "num_cycles", "num_stable_steps"];

/// Reads a schedule: `names` are the keys of its name and of its arguments.
pub(super) fn schedule(source: &Source<'_>, names: [&str; 2], default: &str, to: &mut Translation) {
    let keys = source.keys;
    let [name_key, kwargs_key] = names;
    let Ok(name) = keys.text(name_key) else {
        return to.refuse(keys, name_key, "the name of a schedule");
    };
    let kwargs = to.take(keys.table(kwargs_key));
    let (schedule, arguments): (&str, &[&str]) = match name.unwrap_or(default) {
        "linear" => ("linear", &[]),
        "cosine" => ("cosine", &["num_cycles"]),
        "cosine_with_min_lr" => ("cosine", COSINE),
        "constant" | "constant_with_warmup" => ("constant", &[]),
        "inverse_sqrt" => ("inverse-sqrt", &[]),
        "warmup_stable_decay" => ("warmup-stable-decay", WSD),
        _ => {
            let expected = "linear, cosine, cosine_with_min_lr, constant, constant_with_warmup, inverse_sqrt or warmup_stable_decay";
            return to.refuse(keys, name_key, expected);
        }
    };
    to.set("optimizer.schedule", schedule);
    for argument in kwargs.iter().flat_map(Keys::names).filter(|argument| !arguments.contains(argument)) {
        to.unfollowed.push(format!("`{kwargs_key}.{argument}` is set, expected {}", expected(arguments)));
    }
    let nothing = Keys::default();
    let kwargs = kwargs.as_ref().unwrap_or(&nothing);
    if to.take(kwargs.number("num_cycles")).is_some_and(|cycles| cycles != 0.5) {
        to.refuse(kwargs, "num_cycles", "0.5: half a wave");
    }
    match name.unwrap_or(default) {
        "cosine_with_min_lr" => floor(source, kwargs, kwargs_key, to),
        "warmup_stable_decay" => stable_then_decay(kwargs, kwargs_key, to),
        _ => {}
    }
}

fn expected(arguments: &[&str]) -> String {
    match arguments.is_empty() {
        true => "no argument for this schedule".to_owned(),
        false => format!("of the arguments {}", arguments.join(", ")),
    }
}

/// The floor of a cosine: a share of the peak, or a learning rate.
fn floor(source: &Source<'_>, kwargs: &Keys, key: &str, to: &mut Translation) {
    let (share, rate) = (to.take(kwargs.number("min_lr_rate")), to.take(kwargs.number("min_lr")));
    let peak = source.keys.number("learning_rate").ok().flatten();
    match (share, rate, peak) {
        (Some(share), None, _) => to.set("optimizer.min_rate_ratio", share),
        (None, Some(rate), Some(peak)) => to.set("optimizer.min_rate_ratio", rate / peak),
        (None, Some(_), None) => to.unfollowed.push(format!("`{key}.min_lr` is set, expected `learning_rate` with it")),
        _ => to.unfollowed.push(format!("`{key}` has `min_lr_rate` and `min_lr`, or none; expected one of the two")),
    }
}

fn stable_then_decay(kwargs: &Keys, key: &str, to: &mut Translation) {
    match to.take(kwargs.whole("num_decay_steps")) {
        Some(steps) => to.set("optimizer.decay_steps", steps),
        None => to
            .unfollowed
            .push(format!("`{key}.num_decay_steps` is not set, expected the number of updates of the decay")),
    }
    if let Some(share) = to.take(kwargs.number("min_lr_ratio")) {
        to.set("optimizer.min_rate_ratio", share);
    }
    match to.take(kwargs.text("decay_type")) {
        None | Some("cosine") => {}
        Some(shape @ ("linear" | "1-sqrt")) => to.set("optimizer.decay", shape),
        Some(_) => to.refuse(kwargs, "decay_type", "cosine, linear or 1-sqrt"),
    }
    if to.take(kwargs.text("warmup_type")).is_some_and(|shape| shape != "linear") {
        to.refuse(kwargs, "warmup_type", "linear");
    }
    if kwargs.has("num_stable_steps") {
        let expected = "no such key: the learning rate stays at its peak until the decay, the last updates of the run";
        to.refuse(kwargs, "num_stable_steps", expected);
    }
}
