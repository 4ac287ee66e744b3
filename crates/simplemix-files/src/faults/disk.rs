//! Simulated loss of power: which bytes and names a disk may lose, because they were not synced.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, PoisonError};

use super::{ENVIRONMENT, Fault};
use crate::system::parent;
use crate::temporary::MARK;

/// State of the disk since the process began; none unless the power will be lost.
static DISK: LazyLock<Option<Mutex<Disk>>> =
    LazyLock::new(|| (ENVIRONMENT.fault == Fault::PowerLoss).then(|| Mutex::new(Disk::default())));

/// Device and number of a file.
type Id = (u64, u64);

#[derive(Debug, Default)]
struct Disk {
    unsynced: BTreeMap<Id, Unsynced>,
    synced: BTreeSet<Id>,
    renames: Vec<Rename>,
    /// Files that were made in a folder that was not synced.
    made: Vec<PathBuf>,
    links: u32,
}

/// A file that was written since its last sync.
#[derive(Debug)]
struct Unsynced {
    file: File,
    /// Length at the last sync.
    length: u64,
}

/// A rename whose folder was not synced.
#[derive(Debug)]
struct Rename {
    from: PathBuf,
    to: PathBuf,
    /// Another name of the file that was replaced.
    replaced: Option<PathBuf>,
    is_exchange: bool,
}

fn with(act: impl FnOnce(&mut Disk)) {
    if let Some(disk) = &*DISK {
        act(&mut disk.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// A file is about to be written.
pub(crate) fn writes(file: &File) {
    // A file that cannot be opened again is a device, which loses nothing.
    with(|disk| drop(disk.writes(file)));
}

/// A file was synced.
pub(crate) fn synced(file: &File) {
    with(|disk| drop(disk.synced(file)));
}

/// A file was made.
pub(crate) fn made(path: &Path) {
    with(|disk| disk.made.push(path.to_path_buf()));
}

/// The names in a folder were synced.
pub(crate) fn synced_folder(folder: &Path) {
    with(|disk| disk.synced_folder(folder));
}

/// A file of this name is about to be replaced; its content gets another name.
pub(crate) fn replaces(path: &Path) -> Option<PathBuf> {
    let mut link = None;
    with(|disk| link = disk.keep(path));
    link
}

/// A rename that replaced what had the name `to`.
pub(crate) fn renamed(from: &Path, to: &Path, replaced: Option<PathBuf>) {
    with(|disk| disk.renamed(from, to, replaced, false));
}

/// A rename to a name that was free.
pub(crate) fn appeared(from: &Path, to: &Path) {
    with(|disk| disk.renamed(from, to, None, false));
}

/// An exchange of names.
pub(crate) fn exchanged(one: &Path, other: &Path) {
    with(|disk| disk.renamed(one, other, None, true));
}

/// Loses what is not on disk, in a way that the number chooses.
pub(super) fn lose_power(way: u64) {
    with(|disk| disk.lose_power(way));
}

fn id(found: &fs::Metadata) -> Id {
    (found.dev(), found.ino())
}

impl Disk {
    fn writes(&mut self, file: &File) -> io::Result<()> {
        let found = file.metadata()?;
        self.synced.remove(&id(&found));
        if let Entry::Vacant(place) = self.unsynced.entry(id(&found)) {
            // Not a copy of the handle, which would hold the lock of the file for longer.
            let again = OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
            place.insert(Unsynced { file: again, length: found.len() });
        }
        Ok(())
    }

    fn synced(&mut self, file: &File) -> io::Result<()> {
        let id = id(&file.metadata()?);
        self.unsynced.remove(&id);
        self.synced.insert(id);
        Ok(())
    }

    fn synced_folder(&mut self, folder: &Path) {
        let is_in = |path: &Path| crate::is_same_file(parent(path), folder);
        self.made.retain(|path| !is_in(path));
        for rename in self.renames.extract_if(.., |rename| is_in(&rename.to)) {
            rename.replaced.map(fs::remove_file);
        }
    }

    fn keep(&mut self, path: &Path) -> Option<PathBuf> {
        self.links += 1;
        let link = parent(path).join(format!(".{}-{}.powerloss", self.links, std::process::id()));
        fs::hard_link(path, &link).is_ok().then_some(link)
    }

    fn renamed(&mut self, from: &Path, to: &Path, replaced: Option<PathBuf>, is_exchange: bool) {
        self.made.retain(|path| path != from);
        // Only names that somebody looks for matter.
        if !to.iter().any(|part| String::from_utf8_lossy(part.as_encoded_bytes()).contains(MARK)) {
            self.note_unsynced(to);
        }
        self.renames.push(Rename { from: from.to_path_buf(), to: to.to_path_buf(), replaced, is_exchange });
    }

    /// Notes the files at or below a path that were written by others and never synced.
    fn note_unsynced(&mut self, path: &Path) {
        let Ok(found) = path.symlink_metadata() else { return };
        if found.is_dir() {
            for entry in fs::read_dir(path).into_iter().flatten().flatten() {
                self.note_unsynced(&entry.path());
            }
        } else if found.is_file()
            && !self.synced.contains(&id(&found))
            && !self.unsynced.contains_key(&id(&found))
            && let Ok(file) = OpenOptions::new().write(true).open(path)
        {
            self.unsynced.insert(id(&found), Unsynced { file, length: 0 });
        }
    }

    fn lose_power(&mut self, way: u64) {
        for (place, unsynced) in self.unsynced.values_mut().enumerate() {
            // A file that is gone has nothing to lose.
            let _ = unsynced.lose(way + place as u64);
        }
        let are_lost = (way / 4).is_multiple_of(2);
        for rename in self.renames.drain(..).rev() {
            rename.end(are_lost);
        }
        for path in self.made.drain(..).filter(|_| are_lost) {
            // One that was removed since is gone anyway.
            let _ = fs::remove_file(path);
        }
    }
}

impl Unsynced {
    /// Loses the bytes after the last sync, in one of four ways.
    fn lose(&mut self, way: u64) -> io::Result<()> {
        let (start, end) = (self.length, self.file.metadata()?.len());
        let half = start + end.saturating_sub(start) / 2;
        match way % 4 {
            0 => self.file.set_len(start.min(end)),
            1 => self.file.set_len(half.min(end)),
            2 => self.zero(start, end),
            _ => self.zero(start, half),
        }
    }

    fn zero(&mut self, start: u64, end: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(start))?;
        self.file.write_all(&vec![0; end.saturating_sub(start) as usize])
    }
}

impl Rename {
    /// Takes the rename back if it is lost.
    fn end(self, is_lost: bool) {
        let Self { from, to, replaced, is_exchange } = self;
        let is_lost = is_lost && to.symlink_metadata().is_ok();
        // A rename that cannot be taken back has reached the disk after all.
        match replaced {
            _ if is_lost && is_exchange => drop(crate::system::exchange_names(&from, &to)),
            Some(replaced) if is_lost => drop(fs::rename(&to, &from).and_then(|()| fs::rename(replaced, &to))),
            Some(replaced) => drop(fs::remove_file(replaced)),
            None if is_lost => drop(fs::rename(&to, &from)),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &mut Disk, path: &Path, text: &str) -> File {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        disk.writes(&file).unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    #[test]
    fn bytes_after_the_last_sync_are_lost_in_four_ways() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let left = [0, 1, 2, 3].map(|way| {
            let _ = fs::remove_file(&path);
            let mut disk = Disk::default();
            let file = write(&mut disk, &path, "kept");
            disk.synced(&file).unwrap();
            write(&mut disk, &path, "lost");
            disk.lose_power(way);
            fs::read(&path).unwrap()
        });
        assert_eq!(left, [&b"kept"[..], b"keptlo", b"kept\0\0\0\0", b"kept\0\0st"]);
    }

    #[test]
    fn renames_are_lost_until_their_folder_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        for (is_synced, number, expected) in [(false, 0, "old"), (true, 0, "new"), (false, 4, "new")] {
            fs::write(&to, "old").unwrap();
            let mut disk = Disk::default();
            let file = write(&mut disk, &from, "new");
            disk.synced(&file).unwrap();
            let replaced = disk.keep(&to);
            fs::rename(&from, &to).unwrap();
            disk.renamed(&from, &to, replaced, false);
            if is_synced {
                disk.synced_folder(dir.path());
            }
            disk.lose_power(number);
            assert_eq!(fs::read_to_string(&to).unwrap(), expected);
            assert!(!fs::read_dir(dir.path()).unwrap().any(|entry| entry.unwrap().file_name().len() > 4));
            let _ = fs::remove_file(&from);
        }
    }

    #[test]
    fn a_file_that_got_its_name_without_a_sync_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| dir.path().join(name));
        fs::create_dir(&from).unwrap();
        fs::write(from.join("by others"), "text").unwrap();
        let mut disk = Disk::default();
        fs::rename(&from, &to).unwrap();
        disk.renamed(&from, &to, None, false);
        disk.synced_folder(dir.path());
        disk.lose_power(4);
        assert_eq!(fs::read(to.join("by others")).unwrap(), b"");
    }

    #[test]
    fn new_files_are_lost_until_their_folder_is_synced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for (is_synced, way, is_there) in [(false, 0, false), (true, 0, true), (false, 4, true)] {
            let mut disk = Disk::default();
            let file = write(&mut disk, &path, "text");
            disk.made.push(path.clone());
            disk.synced(&file).unwrap();
            if is_synced {
                disk.synced_folder(dir.path());
            }
            disk.lose_power(way);
            assert_eq!(path.exists(), is_there, "{is_synced} {way}");
            let _ = fs::remove_file(&path);
        }
    }
}
