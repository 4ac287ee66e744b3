//! Panics of libraries that read damaged files, as errors.
//!
//! Readers of foreign formats check most of their input, not all: a negative offset in a Parquet footer, for example, fails an
//! assertion. With `panic = "abort"`, the process still ends.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    /// Number of guards around what this thread does.
    static GUARDS: Cell<usize> = const { Cell::new(0) };
}

/// Runs `work`; a panic in it is returned as its message.
///
/// `work` must own what a panic can leave inconsistent, or never use it again.
///
/// # Errors
/// The message of the panic.
///
/// # Examples
/// ```
/// let text = "short";
/// assert!(simplemix_files::guarded(|| text[..9].len()).unwrap_err().contains("9"));
/// ```
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    GUARDS.set(GUARDS.get() + 1);
    let result = catch_unwind(AssertUnwindSafe(work));
    GUARDS.set(GUARDS.get() - 1);
    result.map_err(|panic| {
        let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = words.or_else(|| panic.downcast_ref::<String>().cloned());
        message.unwrap_or_else(|| "the reader failed".to_owned())
    })
}

/// Whether a panic of this thread is caught by [`guarded`], so that a panic hook need not report it.
pub fn is_guarded() -> bool {
    GUARDS.get() > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_ends_with_its_work() {
        assert!(!is_guarded());
        assert_eq!(guarded(|| guarded(is_guarded)), Ok(Ok(true)));
        let numbers = [1];
        assert!(guarded(|| guarded(|| numbers[numbers.len()])).unwrap().unwrap_err().contains("out of bounds"));
        assert!(!is_guarded());
    }
}
