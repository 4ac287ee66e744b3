//! Which (source, row) comes next: exact, seekable mixtures of data sources.
