//! The native half of the Python package `simplemix`: Arrow in and out by the PyCapsule protocol, draws and slices of mixtures,
//! the reader of pairs, and win rates.
//!
//! Names and defaults that users see are in `python/simplemix`; what crosses the border here is Arrow, JSON and numbers. No thread
//! outlives a call, so that a process may fork between any two.

mod alpaca;
mod blend;
mod capsule;
mod cell;
mod columns;
mod digest;
mod failure;
mod mixture;
mod parity;
mod read;
mod table;
mod work;

use pyo3::prelude::*;

/// The module `simplemix._native`.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("Error", module.py().get_type::<failure::Error>())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<table::Table>()?;
    module.add_class::<mixture::Mixture>()?;
    module.add_function(wrap_pyfunction!(parity::interleave, module)?)?;
    module.add_function(wrap_pyfunction!(parity::exact_index, module)?)?;
    module.add_function(wrap_pyfunction!(parity::weight, module)?)?;
    module.add_function(wrap_pyfunction!(read::read_pairs, module)?)?;
    module.add_function(wrap_pyfunction!(read::inspect, module)?)?;
    module.add_function(wrap_pyfunction!(read::convert, module)?)?;
    module.add_function(wrap_pyfunction!(blend::mix_files, module)?)?;
    module.add_function(wrap_pyfunction!(blend::verify_files, module)?)?;
    module.add_function(wrap_pyfunction!(alpaca::win_rates, module)?)?;
    Ok(())
}
