//! Folders that appear, are replaced and are deleted as a whole.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::claim;
use crate::error::{At, Error, Result};
use crate::system::{self, parent};
use crate::temporary::{self, Workshop};

/// A folder being filled, which gets its name with [`AtomicFolder::commit`]. Until then a folder of that name stays as it
/// is; dropping it in between leaves nothing.
///
/// Fill it through [`AtomicFolder::write`], [`AtomicFolder::create_file`] and [`AtomicFolder::copy`], or hand
/// [`AtomicFolder::path`] to a library that writes files of its own. `commit` syncs them all.
///
/// # Examples
/// ```
/// use simplemix_files::AtomicFolder;
///
/// # let dir = tempfile::tempdir()?;
/// let place = dir.path().join("model");
/// let folder = AtomicFolder::create(&place)?;
/// folder.write("config.json", "{}")?;
/// std::fs::write(folder.path().join("weights"), [0; 16])?;
/// assert!(!place.exists());
/// folder.commit()?;
/// assert!(place.join("config.json").is_file());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct AtomicFolder {
    final_path: PathBuf,
    /// The folder that is replaced: that behind `path` if it is a symbolic link.
    target: PathBuf,
    path: PathBuf,
    workshop: Workshop,
}

impl AtomicFolder {
    /// Starts a folder inside one that exists, and removes what killed writers of the same folder have left.
    ///
    /// # Errors
    /// [`Error::Io`] if nothing can be created beside `path`, or if there is something of this name that is no folder.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        Self::create_at(path.as_ref())
    }

    fn create_at(path: &Path) -> Result<Self> {
        let target = temporary::target(path).at(path, "write")?;
        claim::check_folder(path, &target)?;
        temporary::remove_leftovers_of(&target);
        let workshop = Workshop::beside(&target).at(path, "create")?;
        let new = workshop.new_folder();
        fs::create_dir(&new).at(path, "create")?;
        Ok(Self { final_path: path.to_path_buf(), target, path: new, workshop })
    }

    /// Where the files are to be put until [`AtomicFolder::commit`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The final name.
    pub fn final_path(&self) -> &Path {
        &self.final_path
    }

    /// Writes a file in it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> Result<()> {
        let mut file = self.create_file(name)?;
        file.write_all(bytes.as_ref()).at(&file.path, "write")
    }

    /// Starts a file in it, in place of one of this name.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn create_file(&self, name: impl AsRef<Path>) -> Result<FolderFile> {
        self.create_file_at(name.as_ref())
    }

    fn create_file_at(&self, name: &Path) -> Result<FolderFile> {
        let (place, path) = (self.path.join(name), self.final_path.join(name));
        let open = || OpenOptions::new().read(true).write(true).create(true).truncate(true).open(place);
        let file = system::create(&path, open).at(&path, "create")?;
        Ok(FolderFile { path, file })
    }

    /// Copies the content of the file `from` into it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn copy(&self, from: impl AsRef<Path>, name: impl AsRef<Path>) -> Result<()> {
        let from = from.as_ref();
        let mut source = crate::input::open(from).at(from, "read")?;
        let mut file = self.create_file(name)?;
        io::copy(&mut source, &mut file).map(|_| ()).at(&file.path, "write")
    }

    /// Syncs all files and folders in it to disk and gives it its name, in place of a folder that has it. The permissions
    /// of that folder are kept; private files inside, as some libraries write them, get those that the umask gives.
    ///
    /// # Errors
    /// [`Error::Io`]. The name then has its old content, or, if only the last sync failed, all of the new.
    pub fn commit(self) -> Result<()> {
        self.sync()?;
        if let Ok(replaced) = fs::metadata(&self.target) {
            fs::set_permissions(&self.path, replaced.permissions()).at(&self.final_path, "set permissions")?;
        }
        match system::rename_new(&self.path, &self.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                replace(&self.path, &self.target, &self.workshop)
            }
            renamed => renamed,
        }
        .at(&self.final_path, "rename")?;
        system::sync_folder(parent(&self.target), &self.final_path).at(&self.final_path, "sync")
    }

    /// Like [`AtomicFolder::commit`], but never replaces anything.
    ///
    /// # Errors
    /// [`Error::Exists`] if the name is taken, [`Error::Io`].
    pub fn commit_new(self) -> Result<()> {
        self.sync()?;
        match system::rename_new(&self.path, &self.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { path: self.final_path.clone() });
            }
            renamed => renamed.at(&self.final_path, "rename")?,
        }
        system::sync_folder(parent(&self.target), &self.final_path).at(&self.final_path, "sync")
    }

    fn sync(&self) -> Result<()> {
        let usual = fs::metadata(&self.path).at(&self.final_path, "read")?.permissions().mode();
        sync_tree(&self.path, &self.final_path, usual)
    }
}

/// Syncs a folder and all inside. `usual` are the permissions of a folder under the umask; `path` is its final name.
fn sync_tree(folder: &Path, path: &Path, usual: u32) -> Result<()> {
    for entry in fs::read_dir(folder).at(path, "read")? {
        let entry = entry.at(path, "read")?;
        let (place, path) = (entry.path(), path.join(entry.file_name()));
        let kind = entry.file_type().at(&path, "read")?;
        if kind.is_dir() {
            sync_tree(&place, &path, usual)?;
        } else if kind.is_file() {
            share(&place, usual).at(&path, "set permissions")?;
            File::open(&place).and_then(|file| system::sync(&file, &path)).at(&path, "sync")?;
        }
    }
    system::sync_folder(folder, path).at(path, "sync")
}

/// Makes a file that was created as its owner's alone as readable as any other that the user makes.
fn share(place: &Path, usual: u32) -> io::Result<()> {
    let mode = fs::metadata(place)?.permissions().mode();
    let shared = mode | (usual & 0o666);
    if shared == mode { Ok(()) } else { fs::set_permissions(place, Permissions::from_mode(shared)) }
}

/// Puts the folder `new` in place of `target`.
fn replace(new: &Path, target: &Path, workshop: &Workshop) -> io::Result<()> {
    if system::exchange(new, target)? { Ok(()) } else { replace_in_two_steps(new, target, workshop) }
}

/// Moves the old folder aside, then the new one to its place; a kill in between is mended by the next writer.
fn replace_in_two_steps(new: &Path, target: &Path, workshop: &Workshop) -> io::Result<()> {
    let old = workshop.old_folder();
    system::rename(target, &old, target)?;
    if let Err(error) = system::rename(new, target, target) {
        fs::rename(&old, target)?;
        return Err(error);
    }
    // From here on it must not be put back, since it will soon be half deleted.
    system::rename(&old, &workshop.gone_folder(), target)
}

/// A file in an [`AtomicFolder`], open for writing. It is complete once it is dropped: the folder's commit syncs it.
#[derive(Debug)]
pub struct FolderFile {
    path: PathBuf,
    file: File,
}

impl FolderFile {
    /// The final name.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Write for FolderFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        system::write(&self.file, &self.path, bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for FolderFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// Deletes a folder such that no half of it is ever found under its name; one that is not there is no error.
///
/// # Errors
/// [`Error::Io`] if it cannot be moved out of the way; it is whole then.
pub fn remove_folder(path: impl AsRef<Path>) -> Result<()> {
    remove_folder_at(path.as_ref())
}

fn remove_folder_at(path: &Path) -> Result<()> {
    if path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        return Ok(());
    }
    let workshop = Workshop::beside(path).at(path, "remove")?;
    system::rename(path, &workshop.gone_folder(), path).at(path, "remove")?;
    drop(workshop);
    system::sync_folder(parent(path), path).at(path, "remove")
}

/// Gives the folder `from` the name `to`, in the same folder, durably.
///
/// # Errors
/// [`Error::Exists`] if the name is taken, [`Error::Io`].
pub fn rename_folder(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Result<()> {
    rename_folder_at(from.as_ref(), to.as_ref())
}

fn rename_folder_at(from: &Path, to: &Path) -> Result<()> {
    match system::rename_new(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Error::Exists { path: to.to_path_buf() });
        }
        renamed => renamed.at(from, "rename")?,
    }
    system::sync_folder(parent(to), to).at(to, "sync")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::temporary::tests::names;

    fn make(place: &Path, file: &str) -> AtomicFolder {
        let folder = AtomicFolder::create(place).unwrap();
        folder.write(file, file).unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        folder.write("inner/deep", "deep").unwrap();
        folder
    }

    #[test]
    fn a_folder_appears_whole_and_is_replaced_whole() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f");
        drop(make(&place, "dropped"));
        assert!(names(dir.path()).is_empty());
        make(&place, "one").commit().unwrap();
        assert_eq!(names(&place), ["inner", "one"]);
        let second = make(&place, "two");
        assert_eq!(names(&place), ["inner", "one"]);
        second.commit().unwrap();
        assert_eq!((names(&place), names(dir.path())), (vec!["inner".into(), "two".into()], vec!["f".into()]));
    }

    #[test]
    fn commit_new_keeps_a_folder_of_this_name() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f");
        make(&place, "one").commit_new().unwrap();
        assert!(matches!(make(&place, "two").commit_new(), Err(Error::Exists { .. })));
        assert_eq!(names(&place), ["inner", "one"]);
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(AtomicFolder::create(dir.path().join("file")).is_err());
    }

    #[test]
    fn two_renames_do_where_names_cannot_be_exchanged() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f");
        make(&place, "one").commit().unwrap();
        let second = make(&place, "two");
        replace_in_two_steps(&second.path, &second.target, &second.workshop).unwrap();
        assert_eq!(names(&place), ["inner", "two"]);
        assert_eq!(names(&second.workshop.gone_folder()), ["inner", "one"]);
        drop(second);
        // A new folder that cannot come leaves the old one.
        let third = make(&place, "three");
        fs::remove_dir_all(third.path()).unwrap();
        assert!(replace_in_two_steps(&third.path, &third.target, &third.workshop).is_err());
        assert_eq!(names(&place), ["inner", "two"]);
    }

    #[test]
    fn private_files_become_as_readable_as_others() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("f");
        let folder = make(&place, "usual");
        let file = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
        file.persist(folder.path().join("private")).unwrap();
        folder.commit().unwrap();
        let mode = |name: &str| fs::metadata(place.join(name)).unwrap().permissions().mode();
        assert_eq!(mode("private"), mode("usual"));
        fs::set_permissions(&place, Permissions::from_mode(0o750)).unwrap();
        make(&place, "next").commit().unwrap();
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o7777, 0o750);
    }

    #[test]
    fn files_are_copied_and_folders_deleted() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("from"), "text").unwrap();
        let place = dir.path().join("f");
        let folder = AtomicFolder::create(&place).unwrap();
        folder.copy(dir.path().join("from"), "to").unwrap();
        let error = folder.copy(dir.path().join("none"), "to").unwrap_err().to_string();
        assert!(error.contains("none: cannot read: "), "{error}");
        folder.commit().unwrap();
        assert_eq!(fs::read_to_string(place.join("to")).unwrap(), "text");
        let other = dir.path().join("g");
        rename_folder(&place, &other).unwrap();
        fs::create_dir(&place).unwrap();
        assert!(matches!(rename_folder(&place, &other), Err(Error::Exists { .. })));
        assert_eq!(names(&other), ["to"]);
        remove_folder(&other).unwrap();
        remove_folder(&place).unwrap();
        remove_folder(&place).unwrap();
        assert_eq!(names(dir.path()), ["from"]);
    }
}
