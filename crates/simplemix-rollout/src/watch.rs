//! Who looks on while a stage works, and may stop it.

/// Sees how far a stage is, and says whether it is to stop.
///
/// A stage that is stopped keeps what is done, returns [`crate::Error::Interrupted`], and goes on from there when it is
/// called again.
pub trait Watch {
    /// `done` of `total` things are done; `stage` is `generate`, `score` or `pair`.
    fn progress(&mut self, stage: &'static str, done: u64, total: u64) {
        let _ = (stage, done, total);
    }

    /// Whether to stop. Asked often.
    fn stopped(&self) -> bool {
        false
    }
}

/// Looks at nothing and never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {}
