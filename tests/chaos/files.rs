//! Folders as trees in memory.

use std::path::{Path, PathBuf};

use super::Tree;

/// Everything in a folder. What goes away while it is read is left out.
pub(super) fn tree(root: &Path) -> Tree {
    fn add(root: &Path, folder: &Path, found: &mut Tree) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).unwrap_or(&path).to_owned();
            if path.is_dir() {
                found.insert(name, None);
                add(root, &path, found);
            } else if let Ok(bytes) = std::fs::read(&path) {
                found.insert(name, Some(bytes));
            }
        }
    }
    let mut found = Tree::new();
    add(root, root, &mut found);
    found
}

/// Makes a folder hold what it held. What cannot be changed shows in the comparison that follows.
pub(super) fn restore(root: &Path, before: &Tree) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_folder = path.is_dir() && !path.is_symlink();
        let _ = if is_folder { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    for (name, bytes) in before {
        let path = root.join(name);
        let _ = match bytes {
            Some(bytes) => std::fs::write(path, bytes),
            None => std::fs::create_dir(path),
        };
    }
}

/// Files that a folder has in common with an earlier state. Times, speeds and the command line differ from run to run; all else
/// is the same. The report of a pipeline has the times of its stages, which two quick runs may have alike by chance.
pub(super) fn lasting(root: &Path, earlier: &Tree) -> Tree {
    let has_stages = |folder: &Path| root.join(folder).join("stages").is_dir();
    let is_timed = |path: &Path| path.ends_with("report.html") && path.parent().is_some_and(has_stages);
    let is_same = |(path, bytes): &(PathBuf, Option<Vec<u8>>)| earlier.get(path) == Some(bytes) && !is_timed(path);
    tree(root).into_iter().filter(is_same).collect()
}

/// Whether a path leads through a hidden folder, or to a hidden file.
pub(super) fn is_hidden(path: &Path) -> bool {
    path.iter().any(|part| part.as_encoded_bytes().starts_with(b"."))
}

/// A line of the log of operations: name, and path relative to the folder.
pub(super) fn operation(root: &Path, line: &str) -> Option<(String, PathBuf)> {
    let (name, path) = line.split_once(' ')?;
    let path = Path::new(path);
    let canonical = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let path = path.strip_prefix(&canonical).or_else(|_| path.strip_prefix(root)).unwrap_or(path);
    Some((name.to_owned(), path.to_owned()))
}
