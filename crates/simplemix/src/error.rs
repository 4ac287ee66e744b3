//! One error for programs that only report errors.

use std::error::Error as StdError;
use std::fmt;

/// Error of any part. Returned from `main`, it prints its text and the causes of it.
///
/// A program that reacts to errors takes the parts' own enums, such as [`crate::train::Error`].
///
/// ```
/// let error = simplemix::Error::from("x".parse::<f64>().unwrap_err());
/// assert_eq!(format!("{error:?}"), "invalid float literal");
/// ```
pub struct Error(Box<dyn StdError + Send + Sync>);

/// Result of a program that only reports errors.
///
/// ```no_run
/// fn main() -> simplemix::Result<()> {
///     let pairs = simplemix::data::read_pairs("mine.jsonl", &Default::default())?;
///     println!("{} pairs", pairs.len());
///     Ok(())
/// }
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl<E: Into<Box<dyn StdError + Send + Sync>>> From<E> for Error {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Display for Error {
    /// The text, with the causes that it does not hold already.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let because = error.to_string();
            if !text.contains(&because) {
                text = format!("{text}: {because}");
            }
            cause = error.source();
        }
        f.write_str(&text)
    }
}

impl fmt::Debug for Error {
    /// As [`fmt::Display`], since this is what a program prints when `main` returns it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn causes_follow_once() {
        let source = std::io::Error::other("disk full");
        let error = crate::train::Error::Io { path: PathBuf::from("run"), action: "write", source };
        assert_eq!(format!("{:?}", Error::from(error)), "run: writing failed (write): disk full");
        let source = std::io::Error::other("disk full");
        let error = crate::data::Error::Io { path: PathBuf::from("p"), action: "write", source };
        assert_eq!(Error::from(error).to_string(), "p: writing failed (write): disk full");
    }
}
