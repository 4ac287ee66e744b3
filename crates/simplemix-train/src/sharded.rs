//! A model's weights divided among processes, with their gradients (ZeRO stage 3, Rajbhandari et al. 2020, arXiv:1910.02054).
//!
//! The weights of a stage, a layer or the root, lie in a row, of which each process keeps an equal part. Before a stage runs the
//! row is gathered, and the next one's meanwhile; afterwards its memory goes to a later stage. In a backward pass a stage's
//! gradients are whole, in f32; then each process takes the sum of its part and adds it to that of earlier micro-batches. Processes
//! do so in one order, also those that have no pairs at the time. Trained and frozen weights have rows of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use simplemix_model::weights::{self, Deferred, TensorFile};
use simplemix_model::{Divider, ModelConfig, Residence, Stage};
use simplemix_torch::group::{Group, Work};
use simplemix_torch::{exchange_memory, set_gradient, zero_all};
use tch::{Device, Kind, Tensor};

use crate::adamw::Piece;
use crate::error::{Error, Result};
use crate::span::{Member, Span, padded};
use crate::team::Team;

/// Name and shape of a tensor.
type Named = (String, Vec<i64>);

/// Weights of a model that processes divide among themselves.
#[derive(Debug)]
pub(crate) struct Sharded {
    group: Arc<Group>,
    team: Team,
    kind: Kind,
    device: Device,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    stages: BTreeMap<Stage, Rows>,
    /// Memory that no stage uses, of weights and of gradients.
    spare: Vec<Tensor>,
    /// Sums of gradients under way.
    sums: Option<Sums>,
    /// Most bytes of gathered weights at a time.
    peak_bytes: u64,
}

/// Weights of a stage.
#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Row>,
    /// How often the stage was entered and not yet left.
    entered: usize,
    /// Gathers under way.
    gathers: Vec<Work>,
    /// Whether the rows have their memory.
    is_whole: bool,
}

/// Tensors side by side, of which this process keeps a part.
#[derive(Debug)]
struct Row {
    members: Vec<(String, Member)>,
    /// Tensors of the model, views of the row.
    tensors: Vec<Tensor>,
    /// All of the row, without memory but while it is gathered.
    whole: Tensor,
    /// In place of the memory, while the row has it.
    empty: Option<Tensor>,
    part: Tensor,
    trained: Option<Trained>,
}

/// Gradients of a row.
#[derive(Debug)]
struct Trained {
    /// Sum over micro-batches of this process's part, f32.
    part: Tensor,
    /// All of the row in a backward pass, f32.
    whole: Option<Tensor>,
}

/// Gradients of a stage that processes add up.
#[derive(Debug)]
struct Sums {
    stage: Stage,
    work: Work,
    whole: Tensor,
    part: Tensor,
}

/// Where the weights of a model lie when processes divide them.
pub(crate) struct Layout<'a> {
    /// Names and shapes of all tensors.
    pub(crate) tensors: &'a [Named],
    /// Stages of those in layers; others are of the root.
    pub(crate) stages: &'a BTreeMap<String, Stage>,
    /// Those that lie in rows of their own, since they are trained.
    pub(crate) is_trained: &'a dyn Fn(&str) -> bool,
    pub(crate) kind: Kind,
    pub(crate) device: Device,
}

/// Divides the weights of models among the processes of `team`: each keeps its part.
pub(crate) struct Divide<'a> {
    pub(crate) team: &'a Team,
    pub(crate) kind: Kind,
    pub(crate) device: Device,
    /// Weights that lie in rows of their own.
    pub(crate) is_trained: &'a dyn Fn(&str) -> bool,
    /// Whether those have gradients.
    pub(crate) has_gradients: bool,
    /// Weights that were divided while they were read.
    pub(crate) sharded: Option<Arc<Sharded>>,
}

impl Divide<'_> {
    fn room(&self, config: &ModelConfig, tensors: &[Named]) -> simplemix_torch::Result<Arc<Sharded>> {
        let (stages, is_trained) = (config.stages(), self.is_trained);
        let layout = Layout { tensors, stages: &stages, is_trained, kind: self.kind, device: self.device };
        let DividedBytes { weights, gradients, gathered } =
            DividedBytes::of(&layout, self.team.size() as u64, self.has_gradients);
        tracing::info!(weights, gradients, gathered, "bytes of a process's part of the weights");
        Ok(Arc::new(Sharded::new(&layout, self.team, self.has_gradients)?))
    }

    /// Divides weights that have been read, unless that was done meanwhile.
    pub(crate) fn rest(self, config: &ModelConfig, parameters: &[(String, Tensor)]) -> Result<Arc<Sharded>> {
        if let Some(sharded) = self.sharded {
            return Ok(sharded);
        }
        let tensors: Vec<_> = parameters.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        let sharded = self.room(config, &tensors)?;
        sharded.take_over(parameters);
        Ok(sharded)
    }
}

impl Divider for Divide<'_> {
    fn begin(&mut self, config: &ModelConfig, tensors: &[Named]) -> simplemix_torch::Result<Arc<dyn Residence>> {
        let sharded = self.room(config, tensors)?;
        self.sharded = Some(Arc::clone(&sharded));
        Ok(sharded)
    }

    fn take(&mut self, name: &str, weight: &Tensor) -> simplemix_torch::Result<Tensor> {
        let sharded = self.sharded.as_ref().expect("weights come after their names");
        sharded.keep(name, weight);
        Ok(sharded.own(name))
    }
}

impl Sharded {
    /// Makes room for this process's part of all tensors. `has_gradients` says whether there are gradients of what is trained.
    fn new(layout: &Layout<'_>, team: &Team, has_gradients: bool) -> simplemix_torch::Result<Self> {
        let group = team.shared_group().expect("weights are divided among several processes");
        let _guard = tch::no_grad_guard();
        let mut stages: BTreeMap<(Stage, bool), Vec<&Named>> = BTreeMap::new();
        for tensor in layout.tensors {
            let stage = layout.stages.get(&tensor.0).copied().unwrap_or(Stage::Root);
            stages.entry((stage, (layout.is_trained)(&tensor.0))).or_default().push(tensor);
        }
        let mut all: BTreeMap<Stage, Rows> = BTreeMap::new();
        for ((stage, is_trained), tensors) in stages {
            let row = Row::new(&tensors, layout, team, is_trained && has_gradients)?;
            all.entry(stage).or_default().rows.push(row);
        }
        let state = State { stages: all, spare: Vec::new(), sums: None, peak_bytes: 0 };
        let (team, kind, device) = (team.clone(), layout.kind, layout.device);
        Ok(Self { group, team, kind, device, state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps this process's part of `tensor`, a weight by its name.
    fn keep(&self, name: &str, tensor: &Tensor) {
        let mut state = self.lock();
        let (row, number) = state.find(name);
        row.keep(number, tensor, &self.team);
    }

    /// The model's own tensor of this name.
    fn own(&self, name: &str) -> Tensor {
        let mut state = self.lock();
        let (row, number) = state.find(name);
        row.tensors[number].shallow_clone()
    }

    /// Keeps this process's parts of a model's tensors, which have memory from now on while their stage is whole.
    fn take_over(&self, tensors: &[(String, Tensor)]) {
        let mut state = self.lock();
        for (name, tensor) in tensors {
            let (row, number) = state.find(name);
            row.keep(number, tensor, &self.team);
            let own = std::mem::replace(&mut row.tensors[number], tensor.shallow_clone());
            tensor.shallow_clone().set_data(&own);
        }
    }

    /// Moves each weight by `share` of the way towards that of `other`, which is divided in the same way.
    pub(crate) fn move_towards(&self, other: &Self, share: f64) -> bool {
        let _guard = tch::no_grad_guard();
        let (own, other) = (self.lock(), other.lock());
        let rows = |state: &State| state.stages.values().flat_map(|stage| &stage.rows).count();
        let pairs = || own.stages.values().zip(other.stages.values()).flat_map(|(a, b)| a.rows.iter().zip(&b.rows));
        let is_same = rows(&own) == rows(&other) && pairs().all(|(a, b)| a.members == b.members);
        if is_same {
            pairs().for_each(|(own, other)| drop(own.part.shallow_clone().lerp_(&other.part, share)));
        }
        is_same
    }

    /// Rows of what is trained, by the numbers of `parameters`, and this process's pieces of each with their gradients.
    pub(crate) fn pieces(&self, parameters: &[(String, Tensor)]) -> Result<Vec<(Span, Vec<Piece>)>> {
        let number = |name: &str| parameters.iter().position(|(known, _)| known == name);
        let state = self.lock();
        let mut all = Vec::new();
        for row in state.stages.values().flat_map(|stage| &stage.rows) {
            let Some(trained) = &row.trained else { continue };
            let of = |(name, member): &(String, Member)| Some(Member { parameter: number(name)?, ..*member });
            let members: Vec<Member> = row.members.iter().filter_map(of).collect();
            let (length, first) = (row.whole.size()[0], self.first(row));
            let span = Span { members, length, is_rounded: self.kind != Kind::Float };
            let piece = |(member, start, count): (&Member, i64, i64)| {
                let tensor = row.part.narrow(0, start - first, count).detach();
                set_gradient(&tensor, Some(&trained.part.narrow(0, start - first, count)))?;
                Ok(Piece { parameter: member.parameter, start: start - member.start, tensor })
            };
            let pieces = span.here(&self.team).map(piece).collect::<Result<_>>()?;
            all.push((span, pieces));
        }
        Ok(all)
    }

    fn first(&self, row: &Row) -> i64 {
        self.team.rank() as i64 * row.part.size()[0]
    }

    /// Clears the gradients.
    pub(crate) fn clear(&self) -> Result<()> {
        let state = self.lock();
        let trained = state.stages.values().flat_map(|stage| &stage.rows).filter_map(|row| row.trained.as_ref());
        Ok(zero_all(&trained.map(|trained| &trained.part).collect::<Vec<_>>())?)
    }

    /// Bytes that this process has: as [`DividedBytes::of`] foretells them.
    #[cfg(test)]
    fn bytes(&self) -> DividedBytes {
        let state = self.lock();
        let rows = || state.stages.values().flat_map(|stage| &stage.rows);
        let gradients = rows().filter_map(|row| row.trained.as_ref()).map(|trained| bytes(&trained.part)).sum();
        DividedBytes { weights: rows().map(|row| bytes(&row.part)).sum(), gradients, gathered: state.peak_bytes }
    }
}

/// Memory of a process that has its part of a model's weights, in bytes. Moments and f32 copies of the optimiser are a process's part of
/// theirs on top of it: `gradients` twice, and once more for weights in half precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DividedBytes {
    /// Weights that are held throughout.
    pub(crate) weights: u64,
    /// Gradients that are held throughout, f32.
    pub(crate) gradients: u64,
    /// Most of what is whole at a time: weights of the root and of two layers, and in a backward pass their gradients in f32, of which
    /// those of one layer are being added up.
    pub(crate) gathered: u64,
}

impl DividedBytes {
    /// Bytes of `layout` among so many `processes`; `has_gradients` as in [`Divide`].
    pub(crate) fn of(layout: &Layout<'_>, processes: u64, has_gradients: bool) -> Self {
        let mut rows: BTreeMap<(Stage, bool), u64> = BTreeMap::new();
        for (name, shape) in layout.tensors {
            let stage = layout.stages.get(name).copied().unwrap_or(Stage::Root);
            *rows.entry((stage, (layout.is_trained)(name))).or_default() += shape.iter().product::<i64>() as u64;
        }
        rows.values_mut().for_each(|count| *count = count.next_multiple_of(processes));
        let is_counted = |is_trained: bool, trained_only: bool| is_trained || !trained_only;
        let of_stage = |wanted: Stage, trained_only: bool| -> u64 {
            let here = rows
                .iter()
                .filter(|((stage, is_trained), _)| *stage == wanted && is_counted(*is_trained, trained_only));
            here.map(|(_, count)| count).sum()
        };
        let layer = |trained_only: bool| {
            let layers = rows.keys().map(|(stage, _)| *stage).filter(|stage| *stage != Stage::Root);
            layers.map(|stage| of_stage(stage, trained_only)).max().unwrap_or(0)
        };
        let whole = |trained_only: bool| of_stage(Stage::Root, trained_only) + 2 * layer(trained_only);
        let all = |trained_only: bool| -> u64 {
            rows.iter()
                .filter(|((_, is_trained), _)| is_counted(*is_trained, trained_only))
                .map(|(_, count)| count)
                .sum()
        };
        let element = layout.kind.elt_size_in_bytes() as u64;
        let summed = whole(true) + layer(true) / processes;
        let gradients = if has_gradients { [4 * all(true) / processes, 4 * summed] } else { [0, 0] };
        Self {
            weights: element * all(false) / processes,
            gradients: gradients[0],
            gathered: element * whole(false) + gradients[1],
        }
    }
}

/// Bytes of a tensor's numbers.
fn bytes(tensor: &Tensor) -> u64 {
    (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64
}

/// Writes `tensors` to `path`, or helps the process that does: those that `sharded` divides are put together one at a time.
pub(crate) fn save_weights(
    path: Option<PathBuf>,
    tensors: &[(String, Tensor)],
    sharded: Option<&Sharded>,
) -> Result<()> {
    let Some(sharded) = sharded else {
        return path.map_or(Ok(()), |path| Ok(weights::save(&path, tensors)?));
    };
    let deferred = |(name, tensor): &(String, Tensor)| {
        let is_divided = sharded.has(name);
        let (own_name, own) = (name.clone(), tensor.shallow_clone());
        let make = move || if is_divided { sharded.whole(&own_name) } else { Ok(own.detach()) };
        (name.clone(), Deferred { kind: tensor.kind(), shape: tensor.size(), make: Box::new(make) })
    };
    Ok(weights::save_deferred(path.as_deref(), tensors.iter().map(deferred).collect())?)
}

/// Reads `tensors` from a file of [`save_weights`].
pub(crate) fn restore_weights(path: &Path, tensors: &[(String, Tensor)], sharded: Option<&Sharded>) -> Result<()> {
    let mut file = TensorFile::open(path)?;
    let _guard = tch::no_grad_guard();
    for (name, tensor) in tensors {
        let stored = file.tensor(name)?;
        match (&stored, sharded) {
            (Some(stored), Some(sharded)) if stored.size() == tensor.size() && sharded.has(name) => {
                sharded.keep(name, stored);
            }
            (Some(stored), _) if stored.size() == tensor.size() => tensor.shallow_clone().copy_(stored),
            (found, _) => return Err(Error::misshapen(name, found.as_ref(), &tensor.size())),
        }
    }
    Ok(())
}

impl Row {
    fn new(tensors: &[&Named], layout: &Layout<'_>, team: &Team, has_gradients: bool) -> simplemix_torch::Result<Self> {
        let mut held = 0;
        let member = |(number, (name, shape)): (usize, &&Named)| {
            let (start, count) = (held, shape.iter().product());
            held += count;
            (name.clone(), Member { parameter: number, start, count })
        };
        let members: Vec<(String, Member)> = tensors.iter().enumerate().map(member).collect();
        let length = padded(held, team);
        let part = length / team.size() as i64;
        let zeros = |kind: Kind| Tensor::f_zeros([part], (kind, layout.device));
        let trained = if has_gradients { Some(Trained { part: zeros(Kind::Float)?, whole: None }) } else { None };
        let new = |count: i64| Tensor::f_empty([count], (layout.kind, layout.device));
        let whole = new(length)?;
        let own = |((_, member), (_, shape)): (&(String, Member), &&Named)| {
            // A tensor of its own on the row's memory, which may require gradients.
            let mut own = new(0)?;
            own.set_data(&whole.f_narrow(0, member.start, member.count)?.f_view(shape.as_slice())?);
            Ok(own)
        };
        let tensors = members.iter().zip(tensors).map(own).collect::<Result<_, tch::TchError>>()?;
        // The memory goes, and the tensors stay.
        exchange_memory(&whole, &new(0)?)?;
        Ok(Self { members, tensors, whole, empty: None, part: zeros(layout.kind)?, trained })
    }

    fn number(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|(known, _)| known == name)
    }

    /// Keeps this process's part of one of the tensors.
    fn keep(&self, number: usize, tensor: &Tensor, team: &Team) {
        let _guard = tch::no_grad_guard();
        let (count, member) = (self.part.size()[0], self.members[number].1);
        let first = team.rank() as i64 * count;
        if let Some((start, count)) = member.within(first, count) {
            let own = tensor.reshape([-1]).narrow(0, start - member.start, count);
            self.part.narrow(0, start - first, count).copy_(&own);
        }
    }
}

impl State {
    /// A tensor's row, and its number there.
    fn find(&mut self, name: &str) -> (&mut Row, usize) {
        let rows = self.stages.values_mut().flat_map(|stage| &mut stage.rows);
        let found = rows.filter_map(|row| row.number(name).map(|number| (row, number))).next();
        found.expect("weights of the model that was divided")
    }

    fn stage(&mut self, stage: Stage) -> &mut Rows {
        self.stages.entry(stage).or_default()
    }

    /// Memory for so many numbers.
    fn memory(&mut self, count: i64, (kind, device): (Kind, Device)) -> simplemix_torch::Result<Tensor> {
        let fits = |spare: &Tensor| spare.size()[0] == count && spare.kind() == kind;
        if let Some(at) = self.spare.iter().position(fits) {
            return Ok(self.spare.swap_remove(at));
        }
        // Rows of other lengths have left these.
        self.spare.clear();
        Ok(Tensor::f_empty([count], (kind, device))?)
    }

    /// Begins to gather a stage, unless that has been done.
    fn begin(&mut self, stage: Stage, group: &Group) -> simplemix_torch::Result<()> {
        if self.stage(stage).is_whole {
            return Ok(());
        }
        let mut rows = std::mem::take(&mut self.stage(stage).rows);
        let begun = rows.iter_mut().map(|row| self.gather(row, group)).collect::<simplemix_torch::Result<Vec<Work>>>();
        let own = self.stage(stage);
        own.rows = rows;
        (own.gathers, own.is_whole) = (begun?, true);
        self.note_peak();
        Ok(())
    }

    fn gather(&mut self, row: &mut Row, group: &Group) -> simplemix_torch::Result<Work> {
        let memory = self.memory(row.whole.size()[0], (row.whole.kind(), row.whole.device()))?;
        exchange_memory(&row.whole, &memory)?;
        row.empty = Some(memory);
        group.all_gather(&row.whole, &row.part, "gathering weights")
    }

    /// Waits until a stage is whole.
    fn finish(&mut self, stage: Stage) -> simplemix_torch::Result<()> {
        std::mem::take(&mut self.stage(stage).gathers).into_iter().try_for_each(Work::wait)
    }

    /// Gives the memory of a stage back.
    fn release(&mut self, stage: Stage) -> simplemix_torch::Result<()> {
        let own = self.stage(stage);
        own.is_whole = false;
        let mut free = Vec::new();
        for row in &mut own.rows {
            let Some(memory) = row.empty.take() else { continue };
            exchange_memory(&row.whole, &memory)?;
            free.push(memory);
        }
        self.spare.extend(free);
        Ok(())
    }

    /// Gives all memory back that no stage uses, once no pass is under way.
    fn rest(&mut self) -> simplemix_torch::Result<()> {
        let begun: Vec<Stage> = self.stages.iter().filter(|(_, rows)| rows.is_whole).map(|(stage, _)| *stage).collect();
        for stage in begun {
            self.finish(stage)?;
            self.release(stage)?;
        }
        for row in self.stages.values_mut().flat_map(|stage| &mut stage.rows) {
            row.end_backward()?;
        }
        self.spare.clear();
        Ok(())
    }

    /// Adds the sums that are under way to those of earlier micro-batches.
    fn finish_sums(&mut self) -> simplemix_torch::Result<()> {
        let Some(Sums { stage, work, whole, part }) = self.sums.take() else { return Ok(()) };
        work.wait()?;
        let trained = self.stage(stage).rows.iter_mut().find_map(|row| row.trained.as_mut());
        let sum = &mut trained.expect("sums are of what is trained").part;
        let _ = tch::no_grad(|| sum.f_add_(&part))?;
        self.spare.extend([whole, part]);
        Ok(())
    }

    fn note_peak(&mut self) {
        let rows = || self.stages.values().flat_map(|stage| stage.rows.iter().map(|row| (stage.is_whole, row)));
        let weights: u64 = rows().filter(|(is_whole, _)| *is_whole).map(|(_, row)| bytes(&row.whole)).sum();
        let gradients = rows().filter_map(|(_, row)| row.trained.as_ref()?.whole.as_ref()).map(bytes).sum::<u64>();
        let sums = self.sums.as_ref().map_or(0, |sums| bytes(&sums.whole) + bytes(&sums.part));
        let spare: u64 = self.spare.iter().map(bytes).sum();
        self.peak_bytes = self.peak_bytes.max(weights + gradients + sums + spare);
    }
}

impl Row {
    /// Takes the whole gradients away from the tensors.
    fn end_backward(&mut self) -> simplemix_torch::Result<Option<Tensor>> {
        let Some(whole) = self.trained.as_mut().and_then(|trained| trained.whole.take()) else { return Ok(None) };
        self.tensors.iter().try_for_each(|tensor| set_gradient(tensor, None))?;
        Ok(Some(whole))
    }
}

impl Residence for Sharded {
    fn enter(&self, stage: Stage, next: Option<Stage>) -> simplemix_torch::Result<()> {
        let mut state = self.lock();
        state.begin(stage, &self.group)?;
        if let Some(next) = next {
            state.begin(next, &self.group)?;
        }
        state.finish(stage)?;
        state.stage(stage).entered += 1;
        Ok(())
    }

    fn leave(&self, stage: Stage) {
        let mut state = self.lock();
        let own = state.stage(stage);
        own.entered -= 1;
        let is_free = own.entered == 0;
        let left = if is_free { state.release(stage) } else { Ok(()) };
        let is_idle = state.stages.values().all(|rows| rows.entered == 0);
        let rested = if is_idle { state.rest() } else { Ok(()) };
        if let Err(error) = left.and(rested) {
            tracing::warn!("weights are not given back: {error}");
        }
    }

    fn begin_backward(&self, stage: Stage) -> simplemix_torch::Result<()> {
        let mut state = self.lock();
        let mut rows = std::mem::take(&mut state.stage(stage).rows);
        let begun = rows.iter_mut().try_for_each(|row| {
            let Some(trained) = &mut row.trained else { return Ok(()) };
            let whole = state.memory(row.whole.size()[0], (Kind::Float, self.device))?;
            zero_all(&[&whole])?;
            for ((_, member), tensor) in row.members.iter().zip(&row.tensors) {
                let gradient = whole.narrow(0, member.start, member.count).view(tensor.size().as_slice());
                set_gradient(tensor, Some(&gradient))?;
            }
            trained.whole = Some(whole);
            Ok(())
        });
        state.stage(stage).rows = rows;
        state.note_peak();
        begun
    }

    fn end_backward(&self, stage: Stage) -> simplemix_torch::Result<()> {
        let mut state = self.lock();
        state.finish_sums()?;
        let mut rows = std::mem::take(&mut state.stage(stage).rows);
        let ended = rows.iter_mut().map(Row::end_backward).collect::<simplemix_torch::Result<Vec<_>>>();
        state.stage(stage).rows = rows;
        if let Some(whole) = ended?.into_iter().flatten().next() {
            let part = state.memory(whole.size()[0] / self.group.size() as i64, (Kind::Float, self.device))?;
            let work = self.group.reduce_scatter(&part, &whole, "adding up gradients")?;
            state.sums = Some(Sums { stage, work, whole, part });
        }
        state.note_peak();
        if stage == Stage::Root {
            state.finish_sums()?;
        }
        Ok(())
    }

    fn has(&self, name: &str) -> bool {
        self.lock().stages.values().flat_map(|stage| &stage.rows).any(|row| row.number(name).is_some())
    }

    fn whole(&self, name: &str) -> simplemix_torch::Result<Tensor> {
        let (own, member, part, shape) = {
            let mut state = self.lock();
            let (row, number) = state.find(name);
            let (member, part) = (row.members[number].1, row.part.size()[0]);
            let first = self.first(row);
            let own = member.within(first, part).map(|(start, count)| row.part.narrow(0, start - first, count));
            (own, member, part, row.tensors[number].size())
        };
        let row = member.assembled(&self.team, (part, self.kind), own.as_ref(), "gathering a weight")?;
        Ok(row.f_view(shape.as_slice())?)
    }
}

#[cfg(test)]
#[path = "sharded_tests.rs"]
mod tests;
