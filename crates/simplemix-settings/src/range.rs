//! Ranges of numbers, as they are checked and as they are said.

use std::fmt;

/// Numbers that a setting may be. NaN and infinities are never allowed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// Any finite number.
    Any,
    /// Above a bound.
    Above(f64),
    /// From a bound up.
    AtLeast(f64),
    /// Between two bounds, both included.
    Between(f64, f64),
    /// From the first bound to below the second.
    FromToBelow(f64, f64),
}

/// Numbers above `low`.
pub const fn above(low: f64) -> Range {
    Range::Above(low)
}

/// Numbers from `low` up.
pub const fn at_least(low: f64) -> Range {
    Range::AtLeast(low)
}

/// Numbers from `low` to `high`, both included.
pub const fn between(low: f64, high: f64) -> Range {
    Range::Between(low, high)
}

/// Numbers from `low` to below `high`.
pub const fn from_to_below(low: f64, high: f64) -> Range {
    Range::FromToBelow(low, high)
}

impl Range {
    /// Whether `x` is in the range.
    pub fn contains(self, x: f64) -> bool {
        x.is_finite()
            && match self {
                Self::Any => true,
                Self::Above(low) => x > low,
                Self::AtLeast(low) => x >= low,
                Self::Between(low, high) => (low..=high).contains(&x),
                Self::FromToBelow(low, high) => (low..high).contains(&x),
            }
    }
}

/// Follows the type in words: `a number` and ` above 0`.
impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => Ok(()),
            Self::Above(low) => write!(f, " above {low}"),
            Self::AtLeast(low) => write!(f, " >= {low}"),
            Self::Between(low, high) => write!(f, " from {low} to {high}"),
            Self::FromToBelow(low, high) => write!(f, " from {low} to below {high}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_held() {
        let cases = [
            (above(0.0), "a number above 0", [0.0, 1e-9]),
            (at_least(1.0), "a number >= 1", [0.5, 1.0]),
            (between(0.0, 1.0), "a number from 0 to 1", [1.1, 1.0]),
            (from_to_below(0.0, 0.5), "a number from 0 to below 0.5", [0.5, 0.0]),
            (Range::Any, "a number", [f64::NAN, -3.0]),
        ];
        for (range, text, [outside, inside]) in cases {
            assert_eq!(format!("a number{range}"), text);
            assert!(range.contains(inside) && !range.contains(outside), "{text}");
        }
    }
}
