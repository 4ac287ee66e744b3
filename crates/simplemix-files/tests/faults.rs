//! Every operation of every kind of output fails once; the name then has its old content or all of the new, nothing else
//! is left, and the next attempt succeeds.
#![cfg(debug_assertions)]
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::{Path, PathBuf};

use simplemix_files::{
    AppendFile, AtomicFile, AtomicFolder, Lock, Result, create_dir_all, faults, remove_file, remove_folder, write,
};

/// Files below a folder, by path, with their content.
fn tree(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.push((path.clone(), "folder".into()));
            found.extend(tree(&path));
        } else {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found.sort();
    found
}

/// Runs `act` after `prepare` with each of its operations failing. `between` are the states beside before and after that
/// are allowed, as the number of files and folders.
fn fail_each(prepare: impl Fn(&Path) -> Result<()>, act: impl Fn(&Path) -> Result<()>, between: &[usize]) {
    let fresh = || {
        let dir = tempfile::tempdir().unwrap();
        prepare(dir.path()).unwrap();
        dir
    };
    let relative = |dir: &Path| -> Vec<(PathBuf, String)> {
        tree(dir).into_iter().map(|(path, text)| (path.strip_prefix(dir).unwrap().to_owned(), text)).collect()
    };
    let dir = fresh();
    let before = relative(dir.path());
    let counter = faults::on_this_thread(None);
    act(dir.path()).unwrap();
    let operations = counter.operations();
    drop(counter);
    let after = relative(dir.path());
    assert!(operations > 0);
    for operation in 1..=operations {
        let dir = fresh();
        let plan = faults::on_this_thread(Some(operation));
        let error = act(dir.path()).unwrap_err().to_string();
        drop(plan);
        assert!(error.starts_with(&dir.path().join("it").display().to_string()), "{error}");
        let found = relative(dir.path());
        let whole = found == before || found == after || between.contains(&found.len());
        assert!(whole, "operation {operation}: {error}\n{found:?}");
        act(dir.path()).unwrap();
        assert_eq!(relative(dir.path()), after);
    }
}

fn nothing(_: &Path) -> Result<()> {
    Ok(())
}

#[test]
fn a_file() {
    fail_each(nothing, |dir| write(dir.join("it"), "new"), &[]);
    fail_each(|dir| write(dir.join("it"), "old"), |dir| write(dir.join("it"), "new"), &[]);
    let in_pieces = |dir: &Path| {
        let mut file = AtomicFile::create(dir.join("it"))?;
        for piece in ["one", "two", "three"] {
            let failed = |source| simplemix_files::Error::Io { path: dir.join("it"), action: "write", source };
            file.write_all(piece.as_bytes()).map_err(failed)?;
        }
        file.commit()
    };
    fail_each(nothing, in_pieces, &[]);
}

#[test]
fn a_folder() {
    let make = |dir: &Path, text: &str| {
        let folder = AtomicFolder::create(dir.join("it"))?;
        folder.write("one", text)?;
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        folder.write("inner/two", text)?;
        folder.commit()
    };
    fail_each(nothing, |dir| make(dir, "new"), &[]);
    fail_each(|dir| make(dir, "old"), |dir| make(dir, "new"), &[]);
    fail_each(|dir| make(dir, "old"), |dir| remove_folder(dir.join("it")), &[]);
}

#[test]
fn the_rest() {
    // One or two of the three folders.
    fail_each(nothing, |dir| create_dir_all(dir.join("it/b/c")), &[1, 2]);
    fail_each(|dir| write(dir.join("it"), "old"), |dir| remove_file(dir.join("it")), &[]);
    fail_each(nothing, |dir| Lock::acquire(dir.join("it")).map(drop), &[]);
    let append = |dir: &Path| {
        let mut file = AppendFile::open_locked(dir.join("it"))?;
        file.truncate(0)?;
        file.append(b"line\n")?;
        file.sync()
    };
    // An empty file, before its first line.
    fail_each(nothing, append, &[1]);
}

#[test]
fn a_failed_append_leaves_no_half_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("it");
    let mut file = AppendFile::open(&path).unwrap();
    file.append(b"one\n").unwrap();
    let plan = faults::on_this_thread(Some(1));
    file.append(b"two\n").unwrap_err();
    drop(plan);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\n");
    file.append(b"three\n").unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\nthree\n");
}
