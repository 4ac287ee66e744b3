//! Parameters laid side by side in memory, so that processes exchange many of them in one call.
//!
//! A bucket holds the gradients of some parameters, from the last to the first, as a backward pass finishes them. Where the
//! optimiser is sharded it holds their weights too, and each process updates one part of each bucket (ZeRO stage 1, Rajbhandari et
//! al. 2020, arXiv:1910.02054).

use simplemix_torch::group::Work;
use tch::{Device, Kind, Tensor};

use crate::adamw::Piece;
use crate::error::{Error, Result};
use crate::team::Team;

/// Bytes of gradients in a bucket, as in PyTorch's DistributedDataParallel.
const BYTES: usize = 25 << 20;

/// Some parameters' gradients, and weights where they are sharded.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// f32, a multiple of the number of processes long.
    gradients: Tensor,
    weights: Option<Tensor>,
    members: Vec<Member>,
}

/// Place of a parameter in a bucket.
#[derive(Debug)]
struct Member {
    parameter: usize,
    start: i64,
    count: i64,
}

impl Bucket {
    /// Buckets of all parameters, which get their gradients there, and with `shards` their weights.
    pub(crate) fn all(parameters: &[(String, Tensor)], team: &Team, shards: bool) -> Result<Vec<Self>> {
        let mut rest: Vec<usize> = (0..parameters.len()).collect();
        let mut all = Vec::new();
        while let Some(first) = rest.pop() {
            let tensor = |number: usize| &parameters[number].1;
            let sort = |number: usize| (tensor(number).kind(), tensor(number).device());
            let (mut members, mut held) = (Vec::new(), 0);
            let mut next = Some(first);
            while let Some(parameter) = next {
                let count = tensor(parameter).numel() as i64;
                members.push(Member { parameter, start: held, count });
                held += count;
                let is_full = held as usize * size_of::<f32>() >= BYTES;
                next = rest.pop_if(|number| !is_full && sort(*number) == sort(first));
            }
            all.push(Self::new(parameters, members, held, team.size() as i64, shards)?);
        }
        Ok(all)
    }

    fn new(
        parameters: &[(String, Tensor)],
        members: Vec<Member>,
        held: i64,
        processes: i64,
        shards: bool,
    ) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let length = held.div_euclid(processes) * processes + if held % processes == 0 { 0 } else { processes };
        let (kind, device) = (parameters[members[0].parameter].1.kind(), parameters[members[0].parameter].1.device());
        let zeros = |kind: Kind, device: Device| {
            Tensor::f_zeros([length], (kind, device)).map_err(|error| Error::from(simplemix_torch::Error::from(error)))
        };
        let gradients = zeros(Kind::Float, device)?;
        let weights = if shards { Some(zeros(kind, device)?) } else { None };
        for Member { parameter, start, count } in &members {
            let parameter = &parameters[*parameter].1;
            let view = |flat: &Tensor| flat.narrow(0, *start, *count).view(parameter.size().as_slice());
            if let Some(weights) = &weights {
                let own = view(weights);
                own.shallow_clone().copy_(parameter);
                parameter.shallow_clone().set_data(&own);
            }
            simplemix_torch::set_gradient(parameter, Some(&view(&gradients)))?;
        }
        Ok(Self { gradients, weights, members })
    }

    /// Entries of a process's part.
    fn part(&self, team: &Team) -> (i64, i64) {
        let count = self.gradients.numel() as i64 / team.size() as i64;
        (team.rank() as i64 * count, count)
    }

    /// Parts of the optimiser's state, by the ends of their names.
    pub(crate) fn state_names(&self) -> &'static [&'static str] {
        let is_rounded = self.weights.as_ref().is_some_and(|weights| weights.kind() != Kind::Float);
        if is_rounded { &["exp_avg", "exp_avg_sq", "master"] } else { &["exp_avg", "exp_avg_sq"] }
    }

    /// Parameters of which this process's part has entries, with the first entry and the number of them.
    fn here(&self, team: &Team) -> impl Iterator<Item = (&Member, i64, i64)> {
        let (first, count) = self.part(team);
        self.members.iter().filter_map(move |member| {
            let start = member.start.max(first);
            let end = (member.start + member.count).min(first + count);
            (start < end).then_some((member, start, end - start))
        })
    }

    /// Number of pieces in this process's part.
    pub(crate) fn count(&self, team: &Team) -> usize {
        self.here(team).count()
    }

    /// Pieces of the parameters in this process's part, with their gradients.
    pub(crate) fn pieces(&self, team: &Team) -> Result<Vec<Piece>> {
        let weights = self.weights.as_ref().expect("a sharded bucket has weights");
        let piece = |(member, start, count): (&Member, i64, i64)| {
            let tensor = weights.narrow(0, start, count).detach();
            simplemix_torch::set_gradient(&tensor, Some(&self.gradients.narrow(0, start, count)))?;
            Ok(Piece { parameter: member.parameter, start: start - member.start, tensor })
        };
        self.here(team).map(piece).collect()
    }

    /// Begins to add up the gradients: all of them, or this process's part.
    pub(crate) fn begin_sum(&self, team: &Team) -> Result<Option<Work>> {
        const DOING: &str = "adding up gradients";
        let Some(group) = team.group() else { return Ok(None) };
        let (first, count) = self.part(team);
        Ok(Some(match self.weights {
            None => group.all_reduce(&self.gradients, DOING)?,
            Some(_) => group.reduce_scatter(&self.gradients.narrow(0, first, count), &self.gradients, DOING)?,
        }))
    }

    /// Begins to gather the weights that each process has updated.
    pub(crate) fn begin_gather(&self, team: &Team) -> Result<Option<Work>> {
        let (Some(group), Some(weights)) = (team.group(), &self.weights) else { return Ok(None) };
        let (first, count) = self.part(team);
        // Gloo copies a part into the whole, which must not be itself.
        let own = tch::no_grad(|| weights.narrow(0, first, count).copy());
        Ok(Some(group.all_gather(weights, &own, "gathering weights")?))
    }

    /// Clears all gradients.
    pub(crate) fn clear(&self) -> Result<()> {
        Ok(simplemix_torch::zero_all(&[&self.gradients])?)
    }

    /// Whole tensors of the parameters from one tensor for each piece of this process, on the host, by the parameters' numbers.
    pub(crate) fn whole(
        &self,
        team: &Team,
        parameters: &[(String, Tensor)],
        pieces: &[&Tensor],
    ) -> Result<Vec<(usize, Tensor)>> {
        let _guard = tch::no_grad_guard();
        let (first, count) = self.part(team);
        let options = (Kind::Float, self.gradients.device());
        let part = Tensor::zeros([count], options);
        for ((_, start, count), piece) in self.here(team).zip(pieces) {
            part.narrow(0, start - first, count).copy_(piece);
        }
        let flat = Tensor::zeros([self.gradients.numel() as i64], options);
        match team.group() {
            Some(group) => group.all_gather(&flat, &part, "gathering the optimiser's state")?.wait()?,
            None => flat.shallow_clone().copy_(&part),
        }
        if !team.is_first() {
            return Ok(Vec::new());
        }
        let flat = flat.to_device(Device::Cpu);
        let of = |member: &Member| {
            let shape = parameters[member.parameter].1.size();
            (member.parameter, flat.narrow(0, member.start, member.count).view(shape.as_slice()))
        };
        Ok(self.members.iter().map(of).collect())
    }
}
