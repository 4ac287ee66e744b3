//! One run folder for all processes: each sees what the first one writes there.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::run_folder::RunFolder;
use crate::team::Team;

/// Folder of what processes other than the first one write.
const PROCESSES: &str = "processes";
/// File that the first process writes for the others to see, until all have looked.
const SEEN: &str = "processes/seen";

/// Time after which a file that a network's file system does not show is in another folder, or a quarter of the time limit if
/// that is less.
const PATIENCE: Duration = Duration::from_secs(30);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// A word that no other start writes.
#[expect(clippy::disallowed_methods, reason = "a word of its own for each start, on which no result depends")]
fn fresh() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}

/// Sees that the processes share `folder`, which the first one has made.
pub(super) fn see(folder: &RunFolder, team: &Team) -> Result<()> {
    let Some(group) = team.group() else { return Ok(()) };
    let own = fresh();
    if team.is_first() {
        simplemix_files::create_dir_all(folder.path().join(PROCESSES))?;
        folder.write(SEEN, &own)?;
    }
    let word = team.told(&own, "seeing that the run folder is shared")?;
    if !team.is_first() && !sees(folder, &word, PATIENCE.min(group.limit() / 4)) {
        return Err(Error::NotShared { path: folder.path().to_owned(), rank: team.rank() });
    }
    team.any(false)?;
    if team.is_first() {
        simplemix_files::remove_file(folder.path().join(SEEN))?;
    }
    Ok(())
}

/// Whether the file of the first process is there, or comes.
fn sees(folder: &RunFolder, word: &str, patience: Duration) -> bool {
    let is_there = || simplemix_files::read_to_string(folder.path().join(SEEN)).is_ok_and(|found| found == word);
    let looks = patience.div_duration_f64(PAUSE) as usize;
    (0..looks).any(|_| {
        is_there() || {
            std::thread::sleep(PAUSE);
            false
        }
    }) || is_there()
}
