//! On-policy preference pairs: generate, score, select.
