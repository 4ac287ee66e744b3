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
        let here = move |member| Some((member, Member::within(member, first, count)?));
        self.members.iter().filter_map(here).map(|(member, (start, count))| (member, start, count))
    }

    /// Numbers of the parameters of which this process has a piece.
    pub(crate) fn parameters_here(&self, team: &Team) -> impl Iterator<Item = usize> {
        self.here(team).map(|(member, ..)| member.parameter)
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

    /// Number of the parameters here, in their order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|member| member.parameter)
    }

    /// A row of a parameter's numbers, f32, from pieces that the processes have; `own` is this one's.
    pub(crate) fn assembled(
        &self,
        team: &Team,
        parameter: usize,
        own: Option<&Tensor>,
    ) -> simplemix_torch::Result<Tensor> {
        let member =
            self.members.iter().find(|member| member.parameter == parameter).expect("a parameter of the bucket");
        let part = self.gradients.numel() as i64 / team.size() as i64;
        let range = |rank: usize| {
            let (start, count) = member.within(rank as i64 * part, part)?;
            Some(start - member.start..start - member.start + count)
        };
        team.assemble((member.count, Kind::Float), range, own, "gathering the optimiser's state")
    }
}

impl Member {
    /// First entry and number of entries that are among `count` from `first` on.
    fn within(&self, first: i64, count: i64) -> Option<(i64, i64)> {
        let start = self.start.max(first);
        let end = (self.start + self.count).min(first + count);
        (start < end).then_some((start, end - start))
    }
}
