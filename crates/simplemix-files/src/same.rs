//! Whether two paths name one file.

use std::path::Path;

/// Whether both paths name the same file, by whatever links; false if one of them is missing.
///
/// # Examples
/// ```
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("a.parquet");
/// std::fs::write(&path, "x")?;
/// assert!(simplemix_files::is_same_file(&path, dir.path().join(".").join("a.parquet")));
/// assert!(!simplemix_files::is_same_file(&path, dir.path().join("b.parquet")));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn is_same_file(a: impl AsRef<Path>, b: impl AsRef<Path>) -> bool {
    let (Ok(a), Ok(b)) = (rustix::fs::stat(a.as_ref()), rustix::fs::stat(b.as_ref())) else { return false };
    (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_name_the_same_file() {
        let dir = tempfile::tempdir().unwrap();
        let [file, other, hard, soft] = ["file", "other", "hard", "soft"].map(|name| dir.path().join(name));
        std::fs::write(&file, "x").unwrap();
        std::fs::write(&other, "x").unwrap();
        std::fs::hard_link(&file, &hard).unwrap();
        std::os::unix::fs::symlink(&file, &soft).unwrap();
        assert!(is_same_file(&file, &hard) && is_same_file(&soft, &file));
        assert!(!is_same_file(&file, &other) && !is_same_file(&file, dir.path().join("none")));
    }
}
