//! `simplemix clean`: what killed processes have left.

use std::path::PathBuf;

use simplemix_files::{Leftover, cache_dir, leftovers};

use crate::failure::{Fails, Failure, Result};
use crate::lines::{print, warn};

/// Remove temporary files that killed processes have left
///
/// Looks through the folders and everything below them for the hidden files and folders in which simplemix makes its
/// outputs, and for its lock files, and removes those that no living process owns. Everything else stays, also unfinished
/// work that the same command continues.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
  simplemix clean\n  \
  simplemix clean runs data --dry-run")]
pub(crate) struct Args {
    /// Folders to look through [default: the current folder and the cache folder]
    #[arg(value_name = "FOLDER")]
    folders: Vec<PathBuf>,
    /// Only list what would be removed
    #[arg(long)]
    dry_run: bool,
}

pub(crate) fn run(args: &Args) -> Result {
    let folders = folders(args);
    let mut unread = Vec::new();
    let mut found: Vec<Leftover> = Vec::new();
    for folder in &folders {
        let below = leftovers(folder, &mut |error| unread.push(error)).input()?;
        // One folder may be inside another.
        found.extend(below.into_iter().filter(|left| !is_known(&found, left)).collect::<Vec<_>>());
    }
    for error in &unread {
        warn(&format!("warning: {error}"));
    }
    let (mut bytes, mut count, mut failed) = (0, 0, 0);
    for left in &found {
        match done(left, args.dry_run) {
            Ok(None) => {}
            Ok(Some(line)) => {
                print(&line);
                bytes += left.bytes;
                count += 1;
            }
            Err(error) => {
                warn(&format!("error: {error}"));
                failed += 1;
            }
        }
    }
    let names: Vec<String> = folders.iter().map(|folder| folder.display().to_string()).collect();
    let (what, names) = (if args.dry_run { "would be removed" } else { "removed" }, names.join(", "));
    print(&match count {
        0 => format!("nothing to remove in {names}"),
        _ => format!("{count} {what} from {names}, {}", size(bytes)),
    });
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Run(anyhow::anyhow!("{failed} of {} could not be removed", found.len()))),
    }
}

/// The folders that are named, or those to look through by default.
fn folders(args: &Args) -> Vec<PathBuf> {
    if !args.folders.is_empty() {
        return args.folders.clone();
    }
    let cache = cache_dir().ok().filter(|cache| cache.is_dir());
    std::iter::once(PathBuf::from(".")).chain(cache).collect()
}

fn is_known(found: &[Leftover], left: &Leftover) -> bool {
    found.iter().any(|known| simplemix_files::is_same_file(&known.path, &left.path))
}

/// Removes a leftover, and says so; `None` if a process has taken it in the meantime.
fn done(left: &Leftover, dry_run: bool) -> simplemix_files::Result<Option<String>> {
    let back = left.puts_back().map(|folder| format!("; {} is put back", folder.display())).unwrap_or_default();
    let line = format!("{} ({}){back}", left.path.display(), size(left.bytes));
    Ok((dry_run || left.remove()?).then_some(line))
}

fn size(bytes: u64) -> String {
    match bytes as f64 {
        b if b < 1e3 => format!("{b} bytes"),
        b if b < 1e6 => format!("{:.1} kB", b / 1e3),
        b if b < 1e9 => format!("{:.1} MB", b / 1e6),
        b => format!("{:.1} GB", b / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        assert_eq!([12, 3_400, 5_600_000, 7_800_000_000].map(size), ["12 bytes", "3.4 kB", "5.6 MB", "7.8 GB"]);
    }
}
