//! Files that are read: regular ones only.
//!
//! Opening a named pipe waits until somebody writes to it, and a device may have no end. Files are read more than once too: to
//! tell their kind, their hash, their rows.

use std::fs::{self, File, FileType};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

/// Longest text that is read at once. The longest that programs write, a tokenizer.json, has some ten MB.
const MAX_TEXT: u64 = 1 << 30;

/// Opens a file to read it.
///
/// # Errors
/// As [`File::open`], and [`ErrorKind::InvalidInput`] for what is no regular file, with its kind and what to do.
///
/// # Examples
/// ```
/// let error = simplemix_files::open("/dev/null").unwrap_err();
/// assert!(error.to_string().starts_with("it is a device, expected a regular file"));
/// ```
pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
    open_at(path.as_ref())
}

fn open_at(path: &Path) -> io::Result<File> {
    check(fs::metadata(path)?.file_type())?;
    let file = File::open(path)?;
    // Another file may have the name by now.
    check(file.metadata()?.file_type())?;
    Ok(file)
}

/// Reads a text file of at most 1 GiB.
///
/// # Errors
/// As [`open`] and [`fs::read_to_string`]; [`ErrorKind::InvalidData`] for a longer file.
pub fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    text_at(path.as_ref())
}

fn text_at(path: &Path) -> io::Result<String> {
    let file = open_at(path)?;
    let length = file.metadata()?.len();
    if length > MAX_TEXT {
        let text = format!("it has {length} bytes, expected a text of at most {MAX_TEXT}");
        return Err(io::Error::new(ErrorKind::InvalidData, text));
    }
    let mut text = String::new();
    // It may grow while it is read.
    file.take(MAX_TEXT).read_to_string(&mut text)?;
    Ok(text)
}

/// Reads a file.
///
/// # Errors
/// As [`open`] and [`fs::read`].
pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_at(path.as_ref())?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Refuses what is no regular file.
pub(crate) fn check(kind: FileType) -> io::Result<()> {
    let found = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => return Err(refused("it is a folder, expected a regular file")),
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(refused(&format!(
        "it is {found}, expected a regular file, which is read more than once: write what it gives to a file, and name that"
    )))
}

fn refused(text: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        let [pipe, socket, link, file] = ["pipe", "socket", "link", "file"].map(|name| dir.path().join(name));
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let _listener = UnixListener::bind(&socket).unwrap();
        std::os::unix::fs::symlink(&pipe, &link).unwrap();
        fs::write(&file, "text").unwrap();
        for (path, found) in [
            (dir.path(), "it is a folder, expected a regular file"),
            (&pipe, "it is a pipe, expected a regular file, which is read more than once: write"),
            (&link, "it is a pipe,"),
            (&socket, "it is a socket,"),
            (Path::new("/dev/zero"), "it is a device,"),
        ] {
            let errors = [open(path).unwrap_err(), read(path).unwrap_err(), read_to_string(path).unwrap_err()];
            for error in errors {
                assert!(error.to_string().starts_with(found), "{error}");
                assert_eq!(error.kind(), ErrorKind::InvalidInput);
            }
        }
        assert_eq!((read(&file).unwrap(), read_to_string(&file).unwrap()), (b"text".to_vec(), "text".to_owned()));
        File::create(&file).unwrap().set_len(MAX_TEXT + 1).unwrap();
        assert_eq!(read_to_string(&file).unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(open(dir.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }
}
