//! What an answer is worth.

use crate::error::Result;
use crate::generator::Prompt;

/// Gives a number to an answer; larger is better.
pub trait Scorer {
    /// Name, for reports.
    fn name(&self) -> &str;

    /// Score of `response` to `prompt`.
    ///
    /// # Errors
    /// [`crate::Error::Prompt`] if the prompt lacks what the scorer needs.
    fn score(&self, prompt: &Prompt, response: &str) -> Result<f64>;
}

/// Share of a response's characters that are digits: a rule that even an untrained model meets by chance.
#[derive(Debug, Clone, Copy, Default)]
pub struct DigitShare;

impl Scorer for DigitShare {
    fn name(&self) -> &str {
        "digit-share"
    }

    fn score(&self, _: &Prompt, response: &str) -> Result<f64> {
        let (mut digits, mut all) = (0u32, 0u32);
        for c in response.chars() {
            digits += u32::from(c.is_ascii_digit());
            all += 1;
        }
        Ok(f64::from(digits) / f64::from(all.max(1)))
    }
}
