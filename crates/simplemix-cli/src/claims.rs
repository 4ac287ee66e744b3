//! Outputs of a command: each can be made, is no other's, and belongs to this process until the command ends.

use std::path::Path;

use simplemix_files::{Claim, is_same_file};

use crate::failure::{Fails, Failure, Result};
use crate::lines::warn;

/// Locks that a command holds while it works.
#[derive(Debug)]
#[must_use = "other processes are kept out until it is dropped"]
pub(crate) struct Claims(#[expect(dead_code, reason = "held, not read")] Vec<Claim>);

/// Claims the files of these flags.
pub(crate) fn claim_files(outputs: &[(&str, &Path)]) -> Result<Claims> {
    for (at, (flag, path)) in outputs.iter().enumerate() {
        if let Some((other, _)) = outputs[..at].iter().find(|(_, other)| is_same_output(path, other)) {
            let path = path.display();
            return Err(Failure::input(format!("--{flag} is {path}, as --{other} is; expected a file of its own")));
        }
    }
    outputs.iter().map(|(_, path)| told(Claim::file(path))).collect::<Result<_>>().map(Claims)
}

/// Claims the file of a flag that may be absent.
pub(crate) fn claim_optional(flag: &str, output: Option<&Path>) -> Result<Claims> {
    claim_files(&output.map(|path| (flag, path)).into_iter().collect::<Vec<_>>())
}

/// Claims a folder that is filled in place.
pub(crate) fn claim_folder(output: &Path) -> Result<Claims> {
    Ok(Claims(vec![told(Claim::folder(output))?]))
}

/// Claims a folder that is put in place as a whole.
pub(crate) fn claim_new_folder(output: &Path) -> Result<Claims> {
    Ok(Claims(vec![told(Claim::new_folder(output))?]))
}

fn told(claim: simplemix_files::Result<Claim>) -> Result<Claim> {
    let claim = claim.input()?;
    if let Some(holder) = claim.doubt() {
        warn(&format!("warning: the file system has no locks; make sure that {holder} does not write the same output"));
    }
    Ok(claim)
}

/// Whether two paths name one file, which need not be there.
fn is_same_output(a: &Path, b: &Path) -> bool {
    let folder = |path: &Path| match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => ".".into(),
    };
    is_same_file(a, b) || (a.file_name() == b.file_name() && is_same_file(folder(a), folder(b)))
}
