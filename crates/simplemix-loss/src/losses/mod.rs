//! Preference losses on pairs, by family. Each is a small function on plain tensors, and a [`Formula`] that binds it to a
//! name.
//!
//! Symbols: `l_w`, `l_l` summed log-probabilities of chosen and rejected response; `s_w`, `s_l` scores, which are the
//! log-ratios `log pi - log pi_ref` unless an f-divergence maps them; `d = s_w - s_l`; `n_w`, `n_l` tokens of the
//! responses; `e` label smoothing; `softplus(x) = ln(1 + e^x)`, so that `-ln sigmoid(x) = softplus(-x)` stays finite.
//! Log-probabilities are in nats; every vector is `[B]`, one number per pair; nothing is reduced.

use crate::formula::Formula;

/// Declares the families and lists their losses.
macro_rules! families {
    ($($(#[$doc:meta])* $family:ident),* $(,)?) => {
        $($(#[$doc])* pub mod $family;)*
        /// Every loss of this crate, by family.
        pub(crate) const FAMILIES: &[&[Formula]] = &[$($family::FORMULAS),*];
    };
}

families! {
    /// Losses of the margin `beta d`, logistic and related.
    margin,
    /// Squared errors of log-ratios.
    squared,
    /// Losses of each response's own log-ratio.
    absolute,
    /// Squared errors of log-ratios against the optimum for quantile rewards.
    quantile,
    /// Losses of sorted log-ratios of the batch.
    transport,
    /// Losses without a reference.
    reference_free,
    /// Log-likelihood of the chosen response.
    likelihood,
}
