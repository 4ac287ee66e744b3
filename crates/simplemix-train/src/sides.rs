//! A value for each response of a pair.

/// A value for the chosen response and one for the rejected response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sides<T> {
    /// Value of the chosen response.
    pub chosen: T,
    /// Value of the rejected response.
    pub rejected: T,
}

impl<T> Sides<T> {
    /// Applies `value` to both sides.
    ///
    /// ```
    /// use simplemix_train::Sides;
    /// let tokens = Sides { chosen: 3usize, rejected: 5 };
    /// assert_eq!(tokens.map(|count| count as f64), Sides { chosen: 3.0, rejected: 5.0 });
    /// ```
    pub fn map<U>(self, mut value: impl FnMut(T) -> U) -> Sides<U> {
        Sides { chosen: value(self.chosen), rejected: value(self.rejected) }
    }
}

impl<T: Copy> Sides<T> {
    /// Groups values that alternate between chosen and rejected; an odd last value is dropped.
    pub(crate) fn from_alternating(values: &[T]) -> Vec<Self> {
        let (pairs, _) = values.as_chunks();
        pairs.iter().map(|&[chosen, rejected]| Self { chosen, rejected }).collect()
    }
}

impl<T> From<Sides<T>> for [T; 2] {
    /// The chosen side's value, then the rejected side's.
    fn from(sides: Sides<T>) -> Self {
        [sides.chosen, sides.rejected]
    }
}
