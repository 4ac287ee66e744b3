//! Processes that share the work of a run. The pairs of an update are dealt to them in turn, as the mixture's ranks are, so that
//! each process has every source's share; sums and statistics are those of all.

use std::ops::Range;
use std::sync::Arc;

use simplemix_torch::group::{Group, Work};
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// The processes of a run; by default this one alone.
#[derive(Debug, Clone, Default)]
pub struct Team {
    together: Option<Together>,
}

#[derive(Debug, Clone)]
struct Together {
    group: Arc<Group>,
    device: Device,
}

impl Team {
    /// The processes of `group`, whose models are on `device`.
    pub fn new(group: Arc<Group>, device: Device) -> Self {
        let together = (group.size() > 1).then_some(Together { group, device });
        Self { together }
    }

    /// The group, where there are several processes.
    pub fn group(&self) -> Option<&Group> {
        self.together.as_ref().map(|together| &*together.group)
    }

    /// As [`Team::group`], to be kept.
    pub(crate) fn shared_group(&self) -> Option<Arc<Group>> {
        self.together.as_ref().map(|together| Arc::clone(&together.group))
    }

    /// Number of this process.
    pub fn rank(&self) -> usize {
        self.group().map_or(0, Group::rank)
    }

    /// Number of processes.
    pub fn size(&self) -> usize {
        self.group().map_or(1, Group::size)
    }

    /// Whether this process writes files and shows progress.
    pub fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// This process's part of `all`, dealt in turn.
    pub(crate) fn share<T: Copy>(&self, all: &[T]) -> Vec<T> {
        self.share_of(self.rank(), all)
    }

    /// The part of `all` of process `rank`.
    pub(crate) fn share_of<T: Copy>(&self, rank: usize, all: &[T]) -> Vec<T> {
        all.iter().copied().skip(rank).step_by(self.size()).collect()
    }

    /// The largest number that any process says.
    pub(crate) fn most(&self, own: usize, doing: &'static str) -> Result<usize> {
        let mut all = vec![0.0; self.size()];
        all[self.rank()] = own as f64;
        Ok(self.sums(&all, doing)?.into_iter().fold(0.0, f64::max) as usize)
    }

    /// Tells the others what this process does, for errors.
    pub(crate) fn does(&self, text: &str) {
        if let Some(group) = self.group() {
            group.does(text);
        }
    }

    /// As [`Team::does`], for work of which parts are done.
    pub(crate) fn does_part(&self, what: &str, done: usize, all: usize) {
        if self.size() > 1 {
            self.does(&format!("{what}, {done} of {all} done"));
        }
    }

    /// Tells the others what this process does, for work that may take any time.
    pub fn does_at_length(&self, text: &str) {
        if let Some(group) = self.group() {
            group.does_at_length(text);
        }
    }

    /// Rows of all processes in the order of the whole, of which this one has `own` of its share. A process that stopped early
    /// has fewer, and what follows its last row is left out.
    pub(crate) fn gather<const K: usize>(
        &self,
        total: usize,
        own: Vec<[f64; K]>,
        doing: &'static str,
    ) -> Result<Vec<[f64; K]>> {
        Ok(self.gather_and_ask(total, own, false, doing)?.0)
    }

    /// As [`Team::gather`], and whether any process says `asked`.
    pub(crate) fn gather_and_ask<const K: usize>(
        &self,
        total: usize,
        own: Vec<[f64; K]>,
        asked: bool,
        doing: &'static str,
    ) -> Result<(Vec<[f64; K]>, bool)> {
        let Some(Together { group, device }) = &self.together else { return Ok((own, asked)) };
        let (size, most) = (group.size(), total.div_ceil(group.size()));
        // A number more says that the row is there, and a number after all rows is the answer.
        let width = K + 1;
        let part = most * width + 1;
        let mut numbers = vec![0.0; part];
        for (row, values) in numbers.chunks_exact_mut(width).zip(&own) {
            row[0] = 1.0;
            row[1..].copy_from_slice(values);
        }
        numbers[part - 1] = f64::from(u8::from(asked));
        let numbers = Tensor::from_slice(&numbers).to_device(*device);
        let whole = Tensor::zeros([(size * part) as i64], (Kind::Double, *device));
        group.all_gather(&whole, &numbers, doing)?.wait()?;
        let whole = read(&whole)?;
        group.check()?;
        let row = |at: usize| &whole[at % size * part + at / size * width..][..width];
        let found = (0..total).map(row).take_while(|row| row[0] == 1.0);
        let rows = found.map(|row| row[1..].try_into().expect("K numbers after the first")).collect();
        Ok((rows, (1..=size).any(|rank| whole[rank * part - 1] > 0.0)))
    }

    /// Whether any process says so.
    pub(crate) fn any(&self, own: bool) -> Result<bool> {
        let Some(Together { group, device }) = &self.together else { return Ok(own) };
        let sum = Tensor::from_slice(&[f64::from(u8::from(own))]).to_device(*device);
        group.all_reduce(&sum, "asking whether to stop")?.wait()?;
        let said = read(&sum)?[0] > 0.0;
        group.check()?;
        Ok(said)
    }

    /// Sums of numbers over all processes.
    pub(crate) fn sums(&self, own: &[f64], doing: &'static str) -> Result<Vec<f64>> {
        let Some(Together { group, device }) = &self.together else { return Ok(own.to_vec()) };
        let sum = Tensor::from_slice(own).to_device(*device);
        group.all_reduce(&sum, doing)?.wait()?;
        let sums = read(&sum)?;
        group.check()?;
        Ok(sums)
    }

    /// Text of the first process.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] if another process has failed.
    pub fn told(&self, own: &str, doing: &'static str) -> Result<String> {
        let Some(Together { group, device }) = &self.together else { return Ok(own.to_owned()) };
        let length = Tensor::from_slice(&[own.len() as i64]).to_device(*device);
        group.broadcast(&length, 0, doing)?.wait()?;
        let length = length.to_device(Device::Cpu).int64_value(&[0]) as usize;
        let mut bytes = own.as_bytes().to_vec();
        bytes.resize(length, 0);
        let text = Tensor::from_slice(&bytes).to_device(*device);
        if length > 0 {
            group.broadcast(&text, 0, doing)?.wait()?;
        }
        let bytes = Vec::<u8>::try_from(text.to_device(Device::Cpu)).map_err(simplemix_torch::Error::from)?;
        group.check()?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A row of `count` numbers of which each process has the range that `range(rank)` tells, none or one; `own` are this process's.
    pub(crate) fn assemble(
        &self,
        (count, kind): (i64, Kind),
        range: impl Fn(usize) -> Option<Range<i64>>,
        own: Option<&Tensor>,
        doing: &'static str,
    ) -> simplemix_torch::Result<Tensor> {
        let _guard = tch::no_grad_guard();
        let device = self.together.as_ref().map_or(Device::Cpu, |together| together.device);
        let whole = Tensor::f_zeros([count], (kind, device))?;
        let view = |range: Range<i64>| whole.narrow(0, range.start, range.end - range.start);
        if let (Some(range), Some(own)) = (range(self.rank()), own) {
            view(range).f_copy_(own)?;
        }
        let Some(group) = self.group() else { return Ok(whole) };
        let held = (0..self.size()).filter_map(|rank| Some((rank, range(rank)?)));
        let works: Vec<_> = held
            .map(|(rank, range)| group.broadcast(&view(range), rank, doing))
            .collect::<simplemix_torch::Result<_>>()?;
        works.into_iter().try_for_each(Work::wait)?;
        Ok(whole)
    }

    /// Texts of all processes, in their order.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] if another process has failed.
    pub fn texts(&self, own: &str, doing: &'static str) -> Result<Vec<String>> {
        let Some(Together { group, device }) = &self.together else { return Ok(vec![own.to_owned()]) };
        let gathered = |part: &Tensor| -> Result<Tensor> {
            let whole = Tensor::zeros([part.size()[0] * group.size() as i64], (part.kind(), *device));
            group.all_gather(&whole, &part.to_device(*device), doing)?.wait()?;
            Ok(whole.to_device(Device::Cpu))
        };
        let lengths = gathered(&Tensor::from_slice(&[own.len() as i64]))?;
        let lengths = Vec::<i64>::try_from(lengths).map_err(simplemix_torch::Error::from)?;
        group.check()?;
        let most = lengths.iter().copied().max().unwrap_or(0) as usize;
        if most == 0 {
            return Ok(vec![String::new(); group.size()]);
        }
        let mut bytes = own.as_bytes().to_vec();
        bytes.resize(most, 0);
        let bytes =
            Vec::<u8>::try_from(gathered(&Tensor::from_slice(&bytes))?).map_err(simplemix_torch::Error::from)?;
        group.check()?;
        let text = |(part, length): (&[u8], &i64)| String::from_utf8_lossy(&part[..*length as usize]).into_owned();
        Ok(bytes.chunks_exact(most).zip(&lengths).map(text).collect())
    }

    /// Sees that `value` is the same for all processes, each of which asks it at the same place of its work; `what` says in an error
    /// what differs.
    ///
    /// # Errors
    /// [`crate::Error::Torch`] with what differs, or if another process has failed.
    pub fn same(&self, what: &str, value: &str) -> Result<()> {
        let all = self.texts(value, "comparing what is to be the same")?;
        let Some((rank, other)) = all.iter().enumerate().find(|(_, other)| *other != value) else { return Ok(()) };
        Err(simplemix_torch::Error::Differs {
            what: what.to_owned(),
            rank,
            other: other.clone(),
            own_rank: self.rank(),
            own: value.to_owned(),
        }
        .into())
    }

    /// Sees that `value` is the same for all processes. No other value may go by the same `what`.
    pub(crate) fn agree(&self, what: &str, value: &str) -> Result<()> {
        self.group().map_or(Ok(()), |group| Ok(group.agree(what, value)?))
    }
}

fn read(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(tensor.to_device(Device::Cpu)).map_err(simplemix_torch::Error::from)?)
}

#[cfg(test)]
#[path = "team_tests.rs"]
pub(crate) mod tests;
