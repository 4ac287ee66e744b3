//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::claim;
use crate::error::{At, Error, Result};
use crate::system::{self, parent};
use crate::temporary::{self, Kept, Sibling};

/// A file being written, which gets its name with [`AtomicFile::commit`]. Until then a file of that name stays as it is;
/// dropping it in between leaves nothing.
///
/// Writes are not buffered: wrap it in a [`BufWriter`](std::io::BufWriter) for small ones.
///
/// # Examples
/// ```
/// use std::io::{BufWriter, Write};
/// use simplemix_files::AtomicFile;
///
/// # let dir = tempfile::tempdir()?;
/// let path = dir.path().join("squares.txt");
/// let mut file = BufWriter::new(AtomicFile::create(&path)?);
/// for n in 0..1000 {
///     writeln!(file, "{}", n * n)?;
/// }
/// file.into_inner().map_err(|error| error.into_error())?.commit()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    /// The file that is replaced: that behind `path` if it is a symbolic link.
    target: PathBuf,
    temporary: Sibling,
}

impl AtomicFile {
    /// Starts a file in a folder that exists, and removes what killed writers of the same file have left.
    ///
    /// # Errors
    /// [`Error::Io`] if nothing can be created beside `path`, or if there is something of this name that is no regular
    /// file.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::create_at(path.as_ref())
    }

    fn create_at(path: &Path) -> Result<Self> {
        let target = temporary::target(path).at(path, "write")?;
        claim::check_kind(path, &target)?;
        temporary::remove_leftovers_of(&target);
        let temporary = Sibling::of(&target).at(path, "create")?;
        Ok(Self { path: path.to_path_buf(), target, temporary })
    }

    /// The final name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the content is until it has its name.
    pub fn temporary_path(&self) -> &Path {
        self.temporary.path()
    }

    /// Syncs the content to disk and gives it its name, in place of a file that has it. The permissions of that file are
    /// kept.
    ///
    /// # Errors
    /// [`Error::Io`]. The name then has its old content, or, if only the last sync failed, all of the new.
    pub fn commit(self) -> Result<()> {
        self.prepare()?;
        let Self { path, target, temporary } = self;
        system::rename(temporary.path(), &target, &path).and_then(|()| temporary.keep()).at(&path, "rename")?;
        system::sync_folder(parent(&target), &path).at(&path, "sync")
    }

    /// Like [`AtomicFile::commit`], but never replaces a file.
    ///
    /// # Errors
    /// [`Error::Exists`] if the name is taken, [`Error::Io`].
    pub fn commit_new(self) -> Result<()> {
        let Self { path, target, temporary } = self;
        system::sync(&temporary.file, &path).at(&path, "sync")?;
        match system::rename_new(temporary.path(), &target).and_then(|()| temporary.keep()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Error::Exists { path }),
            renamed => renamed.at(&path, "rename")?,
        };
        system::sync_folder(parent(&target), &path).at(&path, "sync")
    }

    /// Gives all of `files` their names, in this order, or none: if one cannot be renamed, those before it get their old
    /// contents back. After a crash in between, the first of them are new and the others old.
    ///
    /// # Errors
    /// [`Error::Io`]. The names then have their old contents, or, if only a last sync failed, all of the new.
    ///
    /// # Examples
    /// ```
    /// use std::io::Write;
    /// use simplemix_files::AtomicFile;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let mut receipt = AtomicFile::create(dir.path().join("receipt.json"))?;
    /// receipt.write_all(b"{}")?;
    /// let mut data = AtomicFile::create(dir.path().join("data.txt"))?;
    /// data.write_all(b"1 2 3")?;
    /// AtomicFile::commit_together(vec![receipt, data])?;
    /// assert!(dir.path().join("receipt.json").is_file() && dir.path().join("data.txt").is_file());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn commit_together(files: Vec<Self>) -> Result<()> {
        files.iter().try_for_each(Self::prepare)?;
        let mut renamed = Vec::new();
        for Self { path, target, temporary } in files {
            let old = Old::of(path, target);
            let (path, target) = (&old.path, &old.target);
            if let Err(error) = system::rename(temporary.path(), target, path).and_then(|()| temporary.keep()) {
                renamed.iter().rev().for_each(Old::put_back);
                return Err(error).at(path, "rename");
            }
            renamed.push(old);
        }
        renamed.iter().try_for_each(|old| system::sync_folder(parent(&old.target), &old.path).at(&old.path, "sync"))
    }

    /// Syncs the content and takes over the permissions of a file that it replaces.
    fn prepare(&self) -> Result<()> {
        let Self { path, target, temporary } = self;
        if let Ok(replaced) = fs::metadata(target) {
            temporary.file.set_permissions(replaced.permissions()).at(path, "set permissions")?;
        }
        system::sync(&temporary.file, path).at(path, "sync")
    }

    fn file(&self) -> &File {
        &self.temporary.file
    }
}

/// The old content of a name that was given to another file.
struct Old {
    path: PathBuf,
    target: PathBuf,
    /// Another name of the old content; none where there was none, or the file system has no links.
    kept: Option<Kept>,
    was_there: bool,
}

impl Old {
    fn of(path: PathBuf, target: PathBuf) -> Self {
        let was_there = target.symlink_metadata().is_ok();
        Self { kept: Kept::of(&target).ok().filter(|_| was_there), path, target, was_there }
    }

    /// As far as the file system lets it.
    fn put_back(&self) {
        let _ = match (&self.kept, self.was_there) {
            (Some(kept), _) => fs::rename(kept.path(), &self.target),
            (None, false) => fs::remove_file(&self.target),
            (None, true) => Ok(()),
        };
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        system::write(self.file(), &self.path, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for AtomicFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file().seek(to)
    }
}

/// Writes a file whole or not at all, durably.
///
/// # Errors
/// See [`AtomicFile::create`] and [`AtomicFile::commit`].
pub fn write(path: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes.as_ref()).map_err(|source| Error::Io { path: file.path.clone(), action: "write", source })?;
    file.commit()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn entries(folder: &Path) -> usize {
        fs::read_dir(folder).unwrap().count()
    }

    #[test]
    fn nothing_is_there_before_commit_nor_after_a_drop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert!(!path.exists());
        drop(file);
        assert_eq!(entries(dir.path()), 0);
        write(&path, "old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        file.commit().unwrap();
        assert_eq!((fs::read_to_string(&path).unwrap().as_str(), entries(dir.path())), ("new", 1));
    }

    #[test]
    fn permissions_follow_the_umask_or_the_file_that_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("usual"), "").unwrap();
        let path = dir.path().join("a");
        write(&path, "x").unwrap();
        assert_eq!(mode(&path), mode(&dir.path().join("usual")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, "y").unwrap();
        assert_eq!(mode(&path), 0o640);
    }

    #[test]
    fn commit_new_keeps_a_file_of_this_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let (first, second) = (AtomicFile::create(&path).unwrap(), AtomicFile::create(&path).unwrap());
        first.commit_new().unwrap();
        assert!(matches!(second.commit_new(), Err(Error::Exists { .. })));
        assert_eq!(entries(dir.path()), 1);
    }

    #[test]
    fn links_are_followed_and_folders_and_devices_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("far")).unwrap();
        write(dir.path().join("far/file"), "old").unwrap();
        symlink(dir.path().join("far/file"), dir.path().join("link")).unwrap();
        write(dir.path().join("link"), "new").unwrap();
        assert!(dir.path().join("link").is_symlink());
        assert_eq!(fs::read_to_string(dir.path().join("far/file")).unwrap(), "new");
        symlink(dir.path().join("nowhere"), dir.path().join("dangling")).unwrap();
        write(dir.path().join("dangling"), "new").unwrap();
        assert!(!dir.path().join("dangling").is_symlink());
        for path in [dir.path().join("far"), "/dev/null".into()] {
            let error = write(&path, "x").unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}: cannot be written: it is a ", path.display())), "{error}");
        }
        assert!(write("..", "x").is_err());
    }

    #[test]
    fn files_that_belong_together_are_replaced_together_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| dir.path().join(name));
        let made = |path: &Path| {
            let mut file = AtomicFile::create(path).unwrap();
            file.write_all(b"new").unwrap();
            file
        };
        for old in [true, false] {
            // A folder in the way of the second, which came after it was begun.
            if old {
                write(&one, "old").unwrap();
            }
            let files = vec![made(&one), made(&two)];
            fs::create_dir(&two).unwrap();
            fs::write(two.join("inside"), "").unwrap();
            AtomicFile::commit_together(files).unwrap_err();
            assert_eq!(fs::read_to_string(&one).ok().as_deref(), old.then_some("old"));
            fs::remove_dir_all(&two).unwrap();
            let _ = fs::remove_file(&one);
        }
        write(&one, "old").unwrap();
        AtomicFile::commit_together(vec![made(&one), made(&two)]).unwrap();
        assert_eq!([&one, &two].map(|path| fs::read_to_string(path).unwrap()), ["new", "new"]);
        assert_eq!(entries(dir.path()), 2);
    }

    #[test]
    fn many_writers_of_one_file_leave_the_file_of_one_of_them() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::thread::scope(|scope| {
            for number in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..20 {
                        write(path, format!("{number}").repeat(5000)).unwrap();
                    }
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!((text.len(), text.matches(&text[..1]).count()), (5000, 5000));
        assert_eq!(entries(dir.path()), 1);
    }
}
