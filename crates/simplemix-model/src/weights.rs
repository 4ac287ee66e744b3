//! Tensors from the safetensors files of a model, and back.
//!
//! A file is checked whole before a byte of it becomes a tensor. At most one tensor is held twice at a time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::Dtype;
use simplemix_files::{AtomicFile, AtomicFolder};
use tch::{Device, Kind, Tensor};

use crate::config::ModelConfig;
use crate::error::{At, Doing, Error, Result};
use crate::lora::Change;
use crate::not_a_model;
use crate::residence::Residence;
use crate::rest::{Copied, Rest};
use crate::safetensors_file::{self, Layout};
use crate::safetensors_reader::Reader;

/// One file with all weights.
pub const WEIGHTS: &str = "model.safetensors";
/// Names which file holds which tensor, where there are several.
pub const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// Bytes from which weights are split over several files: transformers' 5 GB.
pub const MAX_SHARD_BYTES: usize = 5_000_000_000;

/// Bytes that are copied out of a tensor at a time while it is written.
const PIECE_BYTES: usize = 4 << 20;

/// Tensors by name, in the checkpoint's order.
pub(crate) type Parameters = Vec<(String, Tensor)>;

/// Weights of a model to be written, and the changes by name that are added to each when its turn comes.
#[derive(Clone, Copy)]
pub(crate) struct Merging<'a> {
    pub(crate) config: &'a ModelConfig,
    pub(crate) parameters: &'a Parameters,
    pub(crate) changes: Option<&'a HashMap<String, Change>>,
    /// Keeper of weights that are not whole: each is put together when its turn comes.
    pub(crate) residence: Option<&'a Arc<dyn Residence>>,
}

impl Merging<'_> {
    /// Keeper of a weight that is not whole.
    fn divided(&self, name: &str, tensor: &Tensor) -> Result<Option<(Arc<dyn Residence>, String)>> {
        match self.residence {
            Some(residence) if !simplemix_torch::has_memory(tensor)? => {
                // A head that an adapter has made of the embedding.
                let name = if residence.has(name) { name.to_owned() } else { self.config.embedding_name() };
                Ok(Some((Arc::clone(residence), name)))
            }
            _ => Ok(None),
        }
    }

    /// Tensors of the files, in their order, each with the change that it needs.
    fn stored(&self) -> Result<Vec<(String, Stored)>> {
        let change = |name: &str| self.changes?.get(name).cloned();
        let of = |(name, tensor): &(String, Tensor)| {
            let (held, turned) = (self.config.names.in_files(name), self.config.is_turned(name));
            let stored = Stored::new(tensor, change(name), turned)?;
            Ok((held, Stored { divided: self.divided(name, tensor)?, ..stored }))
        };
        let mut all: Vec<(String, Stored)> = self.parameters.iter().map(of).collect::<Result<_>>()?;
        let kind = self.parameters.first().map_or(Kind::Float, |(_, tensor)| tensor.kind());
        for (name, value) in self.config.constants() {
            all.push((name, Stored::new(&Tensor::from(value).to_kind(kind), None, false)?));
        }
        Ok(all)
    }
}

/// Loads the `wanted` tensors (names and shapes) of a model folder as `kind` on `device`. Progress is told in events of `tracing`
/// with the target `simplemix::progress`: `stage` is `loading`, `done` and `total` are numbers of tensors.
///
/// # Errors
/// [`Error::MissingFile`] or [`Error::NotAModel`] without weights, [`Error::Safetensors`] for a damaged file,
/// [`Error::Weights`] listing every tensor that is missing, misshapen or not accounted for.
pub fn load(
    folder: &Path,
    wanted: &[(String, Vec<i64>)],
    ignored: impl Fn(&str) -> bool,
    kind: Kind,
    device: Device,
) -> Result<HashMap<String, Tensor>> {
    let name_of = |name: &str| (!ignored(name)).then(|| name.to_owned());
    load_files(folder, &files(folder)?, wanted, name_of, kind, device)
}

/// Names of all tensors in `files`.
pub(crate) fn names(files: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for path in files {
        names.extend(Reader::open(path)?.names());
    }
    Ok(names)
}

/// As [`load`], from these files; `name_of` is the wanted name of a file's tensor, or none if it is ignored.
pub(crate) fn load_files(
    folder: &Path,
    files: &[PathBuf],
    wanted: &[(String, Vec<i64>)],
    name_of: impl Fn(&str) -> Option<String>,
    kind: Kind,
    device: Device,
) -> Result<HashMap<String, Tensor>> {
    load_files_with(folder, files, wanted, name_of, (kind, device), |_, tensor| Ok(tensor))
}

/// As [`load_files`]; `keep` is given each tensor, by its wanted name, and returns what is kept of it.
pub(crate) fn load_files_with(
    folder: &Path,
    files: &[PathBuf],
    wanted: &[(String, Vec<i64>)],
    name_of: impl Fn(&str) -> Option<String>,
    (kind, device): (Kind, Device),
    mut keep: impl FnMut(&str, Tensor) -> Result<Tensor>,
) -> Result<HashMap<String, Tensor>> {
    let shapes: HashMap<&str, &[i64]> = wanted.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let mut missing: BTreeSet<&str> = shapes.keys().copied().collect();
    let mut problems = Vec::new();
    let mut tensors = HashMap::new();
    tell(0, wanted.len());
    for path in files {
        let mut file = Reader::open(path)?;
        let mut names = file.names();
        names.sort_unstable();
        for name in &names {
            let Some(wanted) = name_of(name) else { continue };
            let shape = file.shape(name)?;
            missing.remove(wanted.as_str());
            match shapes.get(wanted.as_str()) {
                Some(expected) if *expected == shape => {
                    let tensor = keep(&wanted, file.tensor(name, Some(kind), device)?)?;
                    tensors.insert(wanted, tensor);
                    tell(tensors.len(), shapes.len());
                }
                Some(expected) => problems.push(format!("`{name}` is {shape:?}, expected {expected:?}")),
                None => problems.push(format!("`{name}` is not part of the model")),
            }
        }
    }
    problems.extend(missing.iter().map(|name| format!("`{name}` is missing")));
    if !problems.is_empty()
        && let Some(prefix) = common_prefix(files, &shapes)?
    {
        problems = vec![format!(
            "the name of every tensor begins with `{prefix}`, as where the state of a wrapped model was saved; write the file \
             again without it"
        )];
    }
    if problems.is_empty() {
        return Ok(tensors);
    }
    Err(Error::Weights { folder: folder.to_owned(), problems: listed(&problems) })
}

/// Checks that numbers of `files` have the values that are computed with.
///
/// # Errors
/// [`Error::Weights`] listing those that have not.
pub(crate) fn check_constants(folder: &Path, files: &[PathBuf], constants: &BTreeMap<String, f64>) -> Result<()> {
    let mut problems = Vec::new();
    if constants.is_empty() {
        return Ok(());
    }
    for path in files {
        let mut file = Reader::open(path)?;
        for name in file.names() {
            let Some(&expected) = constants.get(&name) else { continue };
            let found: Vec<f64> = Vec::try_from(file.tensor(&name, Some(Kind::Double), Device::Cpu)?.flatten(0, -1))
                .doing("reading a number")?;
            // Half precision holds them roughly.
            if !matches!(found[..], [value] if (value - expected).abs() <= 0.05 * expected.abs()) {
                problems
                    .push(format!("`{name}` is {found:?}, expected {expected}: with others the layer is not computed"));
            }
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::Weights { folder: folder.to_owned(), problems: listed(&problems) }),
    }
}

/// Tells the progress of loading.
fn tell(done: usize, total: usize) {
    tracing::trace!(target: "simplemix::progress", stage = "loading", done, total);
}

/// Writes tensors to one safetensors file, which appears whole and durably, or not at all.
///
/// # Errors
/// [`Error::Files`], [`Error::Io`], or [`Error::Input`] for a kind of tensor that is not written.
pub fn save(path: &Path, tensors: &[(String, Tensor)]) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    safetensors_file::write(&mut file, plain(tensors)?, Stored::put).at(path, "write")?;
    Ok(file.commit()?)
}

/// A tensor whose kind and shape are known, and which is made when its turn to be written comes.
pub struct Deferred<'a> {
    /// Kind of the numbers.
    pub kind: Kind,
    /// Shape.
    pub shape: Vec<i64>,
    /// Makes the tensor, on any device. Called once.
    pub make: Box<dyn Fn() -> simplemix_torch::Result<Tensor> + 'a>,
}

impl std::fmt::Debug for Deferred<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deferred").field("kind", &self.kind).field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// As [`save`], with one tensor in memory at a time. Where several processes make the tensors together, each calls this with the
/// same names and shapes, and those that do not write have no path: all tensors are made in one order.
///
/// # Errors
/// As [`save`]; errors of [`Deferred::make`], and [`Error::Input`] for a tensor that was announced otherwise.
///
/// # Examples
/// ```
/// use simplemix_model::weights::{Deferred, read_all, save_deferred};
/// use tch::{Device, Kind, Tensor};
///
/// let file = std::env::temp_dir().join(format!("deferred-{}.safetensors", std::process::id()));
/// let tensors = || {
///     let make = || Ok(Tensor::ones([2], (Kind::Float, Device::Cpu)));
///     vec![("ones".to_owned(), Deferred { kind: Kind::Float, shape: vec![2], make: Box::new(make) })]
/// };
/// save_deferred(Some(&file), tensors())?;
/// save_deferred(None, tensors())?;
/// assert_eq!(read_all(&file)?["ones"].size(), [2]);
/// # std::fs::remove_file(&file)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn save_deferred(path: Option<&Path>, tensors: Vec<(String, Deferred<'_>)>) -> Result<()> {
    let typed = |(name, tensor)| Ok((name, Typed::new(tensor)?));
    let mut tensors: Vec<(String, Typed<'_>)> = tensors.into_iter().map(typed).collect::<Result<_>>()?;
    let Some(path) = path else {
        safetensors_file::sort(&mut tensors);
        return tensors.iter().try_for_each(|(_, tensor)| tensor.made().map(drop));
    };
    let failed = Cell::new(None);
    let put = |tensor: &Typed<'_>, to: &mut dyn Write| match tensor.made() {
        Ok(made) => put(&made, to),
        Err(error) => {
            failed.set(Some(error));
            Err(io::Error::other("a tensor was not made"))
        }
    };
    let mut file = AtomicFile::create(path)?;
    let written = safetensors_file::write(&mut file, tensors, put);
    if let Some(error) = failed.into_inner() {
        return Err(error);
    }
    written.at(path, "write")?;
    Ok(file.commit()?)
}

/// A deferred tensor with its type in a file.
struct Typed<'a> {
    tensor: Deferred<'a>,
    dtype: Dtype,
    shape: Vec<usize>,
}

impl<'a> Typed<'a> {
    fn new(tensor: Deferred<'a>) -> Result<Self> {
        let dtype = dtype(tensor.kind)?;
        let shape = tensor.shape.iter().map(|&n| n as usize).collect();
        Ok(Self { tensor, dtype, shape })
    }

    fn made(&self) -> Result<Tensor> {
        let made = (self.tensor.make)()?;
        if (made.kind(), made.size()) != (self.tensor.kind, self.tensor.shape.clone()) {
            return Err(Error::Input {
                what: "tensor to save",
                found: format!("{:?} {:?}", made.kind(), made.size()),
                expected: format!("{:?} {:?}, as announced", self.tensor.kind, self.tensor.shape),
            });
        }
        Ok(made)
    }
}

impl Layout for Typed<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.tensor.kind.elt_size_in_bytes()
    }
}

/// Writes tensors to one file of a folder that is being filled.
///
/// # Errors
/// As [`save`].
pub(crate) fn save_in(folder: &AtomicFolder, name: &str, tensors: &[(String, Tensor)]) -> Result<()> {
    let pieces = plain(tensors)?.into_iter().map(|(name, tensor)| (name, Piece::Own(tensor)));
    save_pieces(folder, name, pieces.collect())
}

/// Writes weights, and the tensors of `rest`, to `folder`: one file, or several with an index if they exceed `shard_bytes`. A file
/// exceeds that size only if it holds a single tensor.
///
/// # Errors
/// As [`save`].
pub(crate) fn save_in_shards(
    folder: &AtomicFolder,
    weights: Merging<'_>,
    rest: &Rest,
    shard_bytes: usize,
) -> Result<()> {
    let mut shards = shards(weights, rest, shard_bytes)?;
    if shards.len() <= 1 {
        return save_pieces(folder, WEIGHTS, shards.pop().unwrap_or_default());
    }
    let total: usize = shards.iter().flatten().map(|(_, piece)| piece.bytes()).sum();
    let (mut weight_map, count) = (BTreeMap::new(), shards.len());
    for (i, shard) in shards.into_iter().enumerate() {
        let name = format!("model-{:05}-of-{count:05}.safetensors", i + 1);
        weight_map.extend(shard.iter().map(|(tensor, _)| (tensor.clone(), name.clone())));
        save_pieces(folder, &name, shard)?;
    }
    let index = serde_json::json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
    Ok(folder.write(WEIGHTS_INDEX, format!("{index:#}\n"))?)
}

/// Helps another process in [`save_in_shards`], which writes weights that are divided among several.
pub(crate) fn help_save(weights: Merging<'_>, rest: &Rest, shard_bytes: usize) -> Result<()> {
    for mut shard in shards(weights, rest, shard_bytes)? {
        safetensors_file::sort(&mut shard);
        for (_, piece) in shard {
            if let Piece::Own(Stored { divided: Some((residence, name)), .. }) = piece {
                drop(residence.whole(&name)?);
            }
        }
    }
    Ok(())
}

/// Tensors of each file.
fn shards<'a>(weights: Merging<'_>, rest: &'a Rest, shard_bytes: usize) -> Result<Vec<Vec<(String, Piece<'a>)>>> {
    let own = weights.stored()?.into_iter().map(|(name, tensor)| (rest.name(name), Piece::Own(tensor)));
    let copied = rest.tensors.iter().map(|(name, tensor)| (name.clone(), Piece::Copied(tensor)));
    let (mut shards, mut held) = (Vec::<Vec<_>>::new(), 0);
    for (name, piece) in own.chain(copied) {
        let size = piece.bytes();
        match shards.last_mut() {
            Some(shard) if held + size <= shard_bytes => {
                shard.push((name, piece));
                held += size;
            }
            _ => {
                shards.push(vec![(name, piece)]);
                held = size;
            }
        }
    }
    Ok(shards)
}

fn save_pieces(folder: &AtomicFolder, name: &str, pieces: Vec<(String, Piece<'_>)>) -> Result<()> {
    let mut file = folder.create_file(name)?;
    let path = file.path().to_owned();
    safetensors_file::write(&mut file, pieces, Piece::put).at(&path, "write")
}

/// A tensor of a file that is being written.
enum Piece<'a> {
    Own(Stored),
    Copied(&'a Copied),
}

impl Piece<'_> {
    fn layout(&self) -> &dyn Layout {
        match self {
            Self::Own(tensor) => tensor,
            Self::Copied(tensor) => *tensor,
        }
    }

    fn put(&self, to: &mut dyn Write) -> io::Result<()> {
        match self {
            Self::Own(tensor) => tensor.put(to),
            Self::Copied(tensor) => tensor.put(to),
        }
    }
}

impl Layout for Piece<'_> {
    fn dtype(&self) -> Dtype {
        self.layout().dtype()
    }

    fn shape(&self) -> &[usize] {
        self.layout().shape()
    }

    fn bytes(&self) -> usize {
        self.layout().bytes()
    }
}

/// The words before every tensor's name that keep them all from being wanted ones.
fn common_prefix(files: &[PathBuf], wanted: &HashMap<&str, &[i64]>) -> Result<Option<String>> {
    let names = names(files)?;
    let Some(first) = names.first() else { return Ok(None) };
    let starts = first.match_indices('.').map(|(dot, _)| &first[..=dot]);
    let strips = |prefix: &&str| {
        names.iter().all(|name| name.strip_prefix(prefix).is_some_and(|rest| wanted.contains_key(rest)))
    };
    Ok(starts.into_iter().find(strips).map(str::to_owned))
}

/// Tensors that are written as they are.
fn plain(tensors: &[(String, Tensor)]) -> Result<Vec<(String, Stored)>> {
    tensors.iter().map(|(name, tensor)| Ok((name.clone(), Stored::new(tensor, None, false)?))).collect()
}

/// Reads every tensor of one safetensors file as it is, onto the CPU.
///
/// # Errors
/// [`Error::Io`] or [`Error::Safetensors`].
pub fn read_all(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let mut file = Reader::open(path)?;
    file.names()
        .into_iter()
        .map(|name| {
            let tensor = file.tensor(&name, None, Device::Cpu)?;
            Ok((name, tensor))
        })
        .collect()
}

/// A safetensors file whose tensors are read one at a time, as they are, onto the CPU.
#[derive(Debug)]
pub struct TensorFile {
    reader: Reader,
    names: BTreeSet<String>,
}

impl TensorFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Safetensors`].
    pub fn open(path: &Path) -> Result<Self> {
        let reader = Reader::open(path)?;
        let names = reader.names().into_iter().collect();
        Ok(Self { reader, names })
    }

    /// Reads a tensor; none if the file has none of this name.
    ///
    /// # Errors
    /// As [`TensorFile::open`].
    pub fn tensor(&mut self, name: &str) -> Result<Option<Tensor>> {
        if !self.names.contains(name) {
            return Ok(None);
        }
        self.reader.tensor(name, None, Device::Cpu).map(Some)
    }
}

/// The weight files of a folder, each once.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let single = folder.join(WEIGHTS);
    if single.is_file() {
        return Ok(vec![single]);
    }
    let index = folder.join(WEIGHTS_INDEX);
    if !index.is_file() {
        not_a_model::check(folder)?;
        return Err(Error::MissingFile { folder: folder.to_owned(), file: WEIGHTS });
    }
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = index;
    let text = simplemix_files::read_to_string(&path).at(&path, "read")?;
    let index: Index = serde_json::from_str(&text).map_err(|source| Error::Json { path: path.clone(), source })?;
    let names: BTreeSet<String> = index.weight_map.into_values().collect();
    // Names come from a file, so they must not lead out of the folder.
    if let Some(name) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        let found = format!("`{name}`");
        let (key, expected) = ("weight_map".to_owned(), "names of files in this folder".to_owned());
        return Err(Error::Config { path, key, found, expected });
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// The first problems in full, the rest as a count.
fn listed(problems: &[String]) -> String {
    const SHOWN: usize = 12;
    let mut text = problems.iter().take(SHOWN).cloned().collect::<Vec<_>>().join("; ");
    if problems.len() > SHOWN {
        text.push_str(&format!("; and {} more", problems.len() - SHOWN));
    }
    text
}

/// A tensor to be written, which is merged and copied only while it is.
struct Stored {
    tensor: Tensor,
    /// Change of the weight.
    change: Option<Change>,
    /// Whether rows become columns.
    is_turned: bool,
    dtype: Dtype,
    shape: Vec<usize>,
    /// Keeper and name of a weight that is not whole.
    divided: Option<(Arc<dyn Residence>, String)>,
}

impl Stored {
    fn new(tensor: &Tensor, change: Option<Change>, is_turned: bool) -> Result<Self> {
        let dtype = dtype(tensor.kind())?;
        let mut shape: Vec<usize> = tensor.size().iter().map(|&n| n as usize).collect();
        if is_turned {
            shape.reverse();
        }
        Ok(Self { dtype, shape, tensor: tensor.detach(), change, is_turned, divided: None })
    }

    /// The weight before its change.
    fn whole(&self) -> simplemix_torch::Result<Tensor> {
        match &self.divided {
            Some((residence, name)) => residence.whole(name),
            None => Ok(self.tensor.shallow_clone()),
        }
    }

    /// Writes the tensor's bytes a piece at a time.
    fn put(&self, to: &mut dyn Write) -> io::Result<()> {
        let tensor = self.whole().map_err(io::Error::other)?;
        let tensor = match &self.change {
            Some(change) => change.merged_into(&tensor).map_err(io::Error::other)?,
            None => tensor,
        };
        put(&if self.is_turned { tensor.tr() } else { tensor }, to)
    }
}

/// Type of a kind of numbers in a file.
fn dtype(kind: Kind) -> Result<Dtype> {
    match kind {
        Kind::Double => Ok(Dtype::F64),
        Kind::Float => Ok(Dtype::F32),
        Kind::Half => Ok(Dtype::F16),
        Kind::BFloat16 => Ok(Dtype::BF16),
        Kind::Int64 => Ok(Dtype::I64),
        other => Err(Error::Input {
            what: "kind of a tensor to save",
            found: format!("{other:?}"),
            expected: "a float or Int64".to_owned(),
        }),
    }
}

/// Writes a tensor's bytes a piece at a time.
fn put(tensor: &Tensor, to: &mut dyn Write) -> io::Result<()> {
    let failed = io::Error::other::<tch::TchError>;
    let host = tensor.f_to_device(Device::Cpu).and_then(|host| host.f_contiguous()?.f_view(-1)).map_err(failed)?;
    let (numel, size) = (host.numel(), host.kind().elt_size_in_bytes());
    let most = (PIECE_BYTES / size).min(numel);
    let mut bytes = vec![0; most * size];
    for start in (0..numel).step_by(most.max(1)) {
        let count = most.min(numel - start);
        let piece = host.f_narrow(0, start as i64, count as i64).map_err(failed)?;
        piece.f_copy_data_u8(&mut bytes[..count * size], count).map_err(failed)?;
        to.write_all(&bytes[..count * size])?;
    }
    Ok(())
}

impl Layout for Stored {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn bytes(&self) -> usize {
        self.tensor.numel() * self.tensor.kind().elt_size_in_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(dir: &Path) -> Vec<(String, Vec<i64>)> {
        let a = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([2, 3]);
        let b = Tensor::from_slice(&[1.5f32, -2.0]).to_kind(Kind::BFloat16);
        save(&dir.join(WEIGHTS), &[("a".into(), a), ("b".into(), b)]).unwrap();
        vec![("a".into(), vec![2, 3]), ("b".into(), vec![2])]
    }

    #[test]
    fn what_is_saved_loads_as_the_asked_kind() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = written(dir.path());
        let back = load(dir.path(), &wanted, |_| false, Kind::Float, Device::Cpu).unwrap();
        assert_eq!(Vec::<f32>::try_from(&back["b"]).unwrap(), [1.5, -2.0]);
        assert_eq!(Vec::<f32>::try_from(&back["a"].flatten(0, -1)).unwrap(), [0., 1., 2., 3., 4., 5.]);
    }

    #[test]
    fn every_disagreement_is_in_one_error() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let wanted = [("a".to_owned(), vec![3, 2]), ("c".to_owned(), vec![1])];
        let error = load(dir.path(), &wanted, |_| false, Kind::Float, Device::Cpu).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("`a` is [2, 3], expected [3, 2]"), "{text}");
        assert!(text.contains("`b` is not part of the model"), "{text}");
        assert!(text.contains("`c` is missing"), "{text}");
    }

    #[test]
    fn damaged_files_are_errors_or_other_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = written(dir.path());
        let path = dir.path().join(WEIGHTS);
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            for bit in [0x01, 0x80] {
                let mut damaged = whole.clone();
                damaged[at] ^= bit;
                std::fs::write(&path, &damaged).unwrap();
                if let Ok(tensors) = load(dir.path(), &wanted, |_| false, Kind::Float, Device::Cpu) {
                    assert_eq!(tensors.len(), 2, "{at}");
                }
            }
        }
        // A header longer than any file.
        let mut damaged = whole.clone();
        damaged[..8].copy_from_slice(&u64::MAX.to_le_bytes());
        std::fs::write(&path, &damaged).unwrap();
        let error = load(dir.path(), &wanted, |_| false, Kind::Float, Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("not a readable safetensors file"), "{error}");
        // Numbers that are no weights.
        let text = String::from_utf8_lossy(&whole[8..]).into_owned();
        let at = 8 + text.find("\"F32\"").unwrap();
        damaged.copy_from_slice(&whole);
        damaged[at..at + 5].copy_from_slice(b"\"I32\"");
        std::fs::write(&path, &damaged).unwrap();
        let error = load(dir.path(), &wanted, |_| false, Kind::Float, Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("`a` is I32, expected F32, F16 or BF16: quantised"), "{error}");
    }

    fn deferred<'a>(kind: Kind, shape: &[i64], make: impl Fn() -> Tensor + 'a) -> Deferred<'a> {
        Deferred { kind, shape: shape.to_vec(), make: Box::new(move || Ok(make())) }
    }

    #[test]
    fn deferred_tensors_are_made_one_by_one_in_the_order_of_the_file_whoever_writes() {
        let dir = tempfile::tempdir().unwrap();
        let [a, b] = [[1f32, 2.0], [3.0, 4.0]].map(|values| Tensor::from_slice(&values));
        let order = std::cell::RefCell::new(Vec::new());
        let tensors = || {
            let made = |name: &'static str, tensor: &Tensor| {
                let tensor = tensor.shallow_clone();
                let order = &order;
                deferred(Kind::Float, &[2], move || {
                    order.borrow_mut().push(name);
                    tensor.shallow_clone()
                })
            };
            vec![("b".to_owned(), made("b", &b)), ("a".to_owned(), made("a", &a))]
        };
        let path = dir.path().join("deferred.safetensors");
        save_deferred(Some(&path), tensors()).unwrap();
        save_deferred(None, tensors()).unwrap();
        assert_eq!(*order.borrow(), ["a", "b", "a", "b"]);
        save(&dir.path().join("at-once.safetensors"), &[("b".into(), b), ("a".into(), a)]).unwrap();
        let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
        assert_eq!(read("deferred.safetensors"), read("at-once.safetensors"));
    }

    #[test]
    fn a_deferred_tensor_that_fails_or_is_another_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(WEIGHTS);
        let other = deferred(Kind::Float, &[3], || Tensor::from_slice(&[1f32, 2.0]));
        let error = save_deferred(Some(&path), vec![("a".into(), other)]).unwrap_err().to_string();
        assert!(error.contains("Float [2]") && error.contains("Float [3], as announced"), "{error}");
        let failing = || Err(simplemix_torch::Error::Rank { rank: 3, found: "has ended".to_owned() });
        let failing = Deferred { kind: Kind::Float, shape: vec![1], make: Box::new(failing) };
        let error = save_deferred(Some(&path), vec![("a".into(), failing)]).unwrap_err();
        assert!(error.to_string().contains("rank 3 has ended"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_index_does_not_lead_out_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let index = serde_json::json!({ "weight_map": { "a": "../elsewhere.safetensors" } });
        std::fs::write(dir.path().join(WEIGHTS_INDEX), index.to_string()).unwrap();
        let error = load(dir.path(), &[], |_| false, Kind::Float, Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("`weight_map` is `../elsewhere.safetensors`"), "{error}");
    }

    #[test]
    fn a_cut_file_is_an_error_at_every_length() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = written(dir.path());
        let path = dir.path().join(WEIGHTS);
        let whole = std::fs::read(&path).unwrap();
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let error = load(dir.path(), &wanted, |_| false, Kind::Float, Device::Cpu).unwrap_err();
            assert!(error.to_string().starts_with(&path.display().to_string()), "{length}: {error}");
        }
    }
}
