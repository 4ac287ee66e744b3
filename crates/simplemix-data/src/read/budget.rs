//! Memory that a compressed file may expand to, in relation to its bytes: a few bytes can stand for gigabytes.

/// Bytes that each byte of a file may expand to. Texts seldom shrink to less than a twentieth.
pub(super) const RATIO: u64 = 256;
/// Bytes beyond the ratio that are held at a time, so that small files may repeat themselves.
pub(super) const ALLOWANCE: u64 = 64 << 20;
/// Longest row, in bytes.
const MAX_ROW: u64 = 1 << 30;

/// Bytes beyond what `stored` bytes may expand to.
pub(super) fn excess(expanded: u64, stored: u64) -> u64 {
    expanded.saturating_sub(stored.saturating_mul(RATIO))
}

/// Longest row of a compressed file of `length` bytes.
pub(super) fn max_row(length: u64) -> u64 {
    MAX_ROW.min(ALLOWANCE.saturating_add(length.saturating_mul(RATIO)))
}

/// Longest row of a compressed text file of `length` bytes. A parsed row takes more memory than its text.
pub(super) fn max_compressed_text(length: u64) -> u64 {
    MAX_ROW.min((ALLOWANCE / 4).saturating_add(length.saturating_mul(RATIO)))
}

/// Longest row of a text file.
pub(super) fn max_text() -> u64 {
    MAX_ROW
}

/// Most rows of a file of `length` bytes: rows of nulls take no bytes.
pub(super) fn max_rows(length: u64) -> u64 {
    (1u64 << 20).saturating_add(length.saturating_mul(RATIO))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_files_may_repeat_themselves_and_large_ones_may_be_large() {
        assert_eq!((excess(1 << 20, 1 << 12), excess((1 << 20) + 5, 1 << 12)), (0, 5));
        assert_eq!((max_row(0), max_row(1 << 20), max_row(u64::MAX)), (64 << 20, 320 << 20, 1 << 30));
        assert_eq!(max_compressed_text(1 << 10), (16 << 20) + (256 << 10));
        assert_eq!(max_rows(10), (1 << 20) + 2560);
    }
}
