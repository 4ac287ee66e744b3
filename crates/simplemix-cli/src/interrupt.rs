//! Ctrl-C and SIGTERM as a flag, which long work checks where it can be saved.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

use crate::failure::{Fails, Result};

static FLAG: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// The flag. The first call replaces the default handler, which ends the program.
pub(crate) fn flag() -> Result<Arc<AtomicBool>> {
    if let Some(flag) = FLAG.get() {
        return Ok(flag.clone());
    }
    let flag = Arc::new(AtomicBool::new(false));
    let set = flag.clone();
    ctrlc::set_handler(move || set.store(true, std::sync::atomic::Ordering::SeqCst)).run()?;
    Ok(FLAG.get_or_init(|| flag).clone())
}
