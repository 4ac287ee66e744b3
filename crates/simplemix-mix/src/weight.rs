//! Weights as exact fractions: 0.1 is one tenth, not the float beside it.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{Error, Result};

/// A weight relative to others, which need not sum to one: numerator over denominator, in lowest terms.
///
/// # Examples
/// ```
/// use simplemix_mix::Weight;
/// let tenth: Weight = "0.10".parse()?;
/// assert_eq!(tenth, "1/10".parse()?);
/// assert_eq!(tenth.to_string(), "1/10");
/// # Ok::<(), simplemix_mix::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Weight {
    numerator: u64,
    denominator: u64,
}

impl Weight {
    /// The weight `value`.
    pub fn whole(value: u64) -> Self {
        Self { numerator: value, denominator: 1 }
    }

    /// Numerator and denominator, in lowest terms.
    pub fn parts(self) -> (u64, u64) {
        (self.numerator, self.denominator)
    }

    /// The weight times `above / below`.
    ///
    /// # Errors
    /// [`Error::Fraction`] if numerator or denominator of the product needs more than 64 bits.
    pub(crate) fn times(self, above: u64, below: u64) -> Result<Self> {
        let numerator = u128::from(self.numerator) * u128::from(above);
        let denominator = u128::from(self.denominator) * u128::from(below);
        let common = gcd(numerator, denominator);
        match (u64::try_from(numerator / common), u64::try_from(denominator / common)) {
            (Ok(numerator), Ok(denominator)) => Ok(Self { numerator, denominator }),
            _ => Err(Error::Fraction { found: format!("{self} * {above}/{below}") }),
        }
    }

    /// Parts of the weight in the ratio of `weights`, which sum to it exactly.
    ///
    /// ```
    /// use simplemix_mix::Weight;
    /// let parts = "1/2".parse::<Weight>()?.divided(&["0.5".parse()?, "0.25".parse()?])?;
    /// assert_eq!(parts, ["1/3".parse()?, "1/6".parse()?]);
    /// # Ok::<(), simplemix_mix::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Fraction`] if all weights are 0, or a part needs more than 64 bits.
    pub fn divided(self, weights: &[Self]) -> Result<Vec<Self>> {
        let wrong = |what: &str| Error::Fraction { found: format!("{self} divided by weights {what}") };
        let mut common = 1u64;
        for weight in weights {
            let step = u128::from(weight.denominator) / gcd(u128::from(common), u128::from(weight.denominator));
            common = u64::try_from(u128::from(common) * step).map_err(|_| wrong("without a common denominator"))?;
        }
        let numbers = weights.iter().map(|weight| weight.numerator.checked_mul(common / weight.denominator));
        let numbers = numbers.collect::<Option<Vec<u64>>>().ok_or_else(|| wrong("that are too long"))?;
        let sum = numbers.iter().try_fold(0u64, |sum, number| sum.checked_add(*number));
        match sum.ok_or_else(|| wrong("that are too long"))? {
            0 => Err(wrong("of which none is above 0")),
            sum => numbers.into_iter().map(|number| self.times(number, sum)).collect(),
        }
    }

    /// Whether the weight is 0, so that the source gives no rows.
    pub fn is_zero(self) -> bool {
        self.numerator == 0
    }
}

impl FromStr for Weight {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        fraction(text.trim())
            .map(|(numerator, denominator)| {
                let common = gcd(u128::from(numerator), u128::from(denominator)) as u64;
                Self { numerator: numerator / common, denominator: denominator / common }
            })
            .ok_or_else(|| Error::Fraction { found: text.to_owned() })
    }
}

/// Reads `3`, `0.25`, `1/3`, `50%` or `1e-9`, of at most 18 digits.
fn fraction(text: &str) -> Option<(u64, u64)> {
    if let Some((above, below)) = text.split_once('/') {
        let below = digits(below)?;
        return (below > 0).then_some((digits(above)?, below));
    }
    if let Some(percent) = text.strip_suffix('%') {
        let (above, below) = decimal(percent.trim_end())?;
        return Some((above, below.checked_mul(100)?));
    }
    let (number, power) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (above, below) = decimal(number)?;
    let (is_below, power) = match power.strip_prefix('-') {
        Some(power) => (true, power),
        None => (false, power.strip_prefix('+').unwrap_or(power)),
    };
    let scale = 10u64.checked_pow(u32::try_from(digits(power)?).ok()?)?;
    Some(if is_below { (above, below.checked_mul(scale)?) } else { (above.checked_mul(scale)?, below) })
}

/// Reads `3` or `0.25`, of at most 18 digits.
fn decimal(text: &str) -> Option<(u64, u64)> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() && decimals.is_empty() || whole.len() + decimals.len() > 18 {
        return None;
    }
    let scale = 10u64.checked_pow(decimals.len() as u32)?;
    let part = |text: &str| if text.is_empty() { Some(0) } else { digits(text) };
    Some((part(whole)?.checked_mul(scale)?.checked_add(part(decimals)?)?, scale))
}

/// Reads a number without sign or spaces.
fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

pub(crate) fn gcd(a: u128, b: u128) -> u128 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            below => write!(f, "{}/{below}", self.numerator),
        }
    }
}

impl Serialize for Weight {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads a text, or a number through its shortest decimal form.
impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Written;

        impl Visitor<'_> for Written {
            type Value = Weight;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a weight such as 0.5, 3, \"1/3\" or \"50%\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Weight, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Weight, E> {
                Ok(Weight::whole(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Weight, E> {
                self.visit_str(&value.to_string())
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Weight, E> {
                self.visit_str(&value.to_string())
            }
        }

        deserializer.deserialize_any(Written)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_and_fractions_are_exact() {
        for (text, parts) in [
            ("0.1", (1, 10)),
            ("3", (3, 1)),
            ("2/6", (1, 3)),
            (".25", (1, 4)),
            ("1.", (1, 1)),
            ("0", (0, 1)),
            ("0.30", (3, 10)),
            ("50%", (1, 2)),
            ("12.5 %", (1, 8)),
            ("1e-9", (1, 1_000_000_000)),
            ("5e-1", (1, 2)),
            ("1.5E+2", (150, 1)),
        ] {
            assert_eq!(text.parse::<Weight>().unwrap().parts(), parts, "{text}");
        }
    }

    #[test]
    fn what_is_no_weight_is_refused() {
        for text in [
            "",
            ".",
            "-1",
            "1e",
            "e3",
            "1e400",
            "1e-30",
            "0x1",
            "0,5",
            "NaN",
            "inf",
            "1/0",
            "0.5 0.5",
            "1/2/3",
            "%",
            "5%%",
            "1/2%",
            "1234567890123456789012",
        ] {
            assert!(text.parse::<Weight>().is_err(), "{text}");
        }
    }

    #[test]
    fn json_numbers_are_read_by_their_decimals() {
        assert_eq!(serde_json::from_str::<Weight>("0.1").unwrap().parts(), (1, 10));
        assert_eq!(serde_json::from_str::<Weight>("\"1/3\"").unwrap().parts(), (1, 3));
        assert!(serde_json::from_str::<Weight>("-0.5").is_err());
        assert_eq!(serde_json::to_string(&Weight::whole(2)).unwrap(), "\"2\"");
    }
}
