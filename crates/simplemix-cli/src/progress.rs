//! What the user sees while something takes long: a bar on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar under `name`; drawn on a terminal only.
pub(crate) fn bar(name: &str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {pos}/{len} {msg} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_prefix(name.to_owned());
    bar
}

/// A bar that counts bytes, of a total that is told later.
#[cfg(feature = "object-store")]
pub(crate) fn bytes(name: &str) -> ProgressBar {
    let bar = bar(name, 0);
    let style = ProgressStyle::with_template("{prefix:>12} [{bar:30}] {bytes}/{total_bytes} {msg} {eta}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar
}

/// A line of the command's result.
#[expect(clippy::print_stdout, reason = "a command's result goes to standard output, here and nowhere else")]
pub(crate) fn print(line: &str) {
    println!("{line}");
}

/// A line beside the result.
#[expect(clippy::print_stderr, reason = "messages go to standard error, here and nowhere else")]
pub(crate) fn warn(line: &str) {
    eprintln!("{line}");
}
