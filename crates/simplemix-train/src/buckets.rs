//! Parameters laid side by side in memory, so that processes exchange many of them in one call.
//!
//! A bucket holds the gradients of some parameters, from the last to the first, as a backward pass finishes them. Where the
//! optimiser is sharded it holds their weights too, and each process updates one part of each bucket (ZeRO stage 1, Rajbhandari et
//! al. 2020, arXiv:1910.02054).

use simplemix_torch::group::Work;
use tch::{Device, Kind, Tensor};

use crate::adamw::Piece;
use crate::error::{Error, Result};
use crate::sending::Sum;
use crate::span::{Member, Span, padded};
use crate::team::Team;

/// Some parameters' gradients, and weights where they are sharded.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// f32, a multiple of the number of processes long.
    gradients: Tensor,
    weights: Option<Tensor>,
    members: Vec<Member>,
}

impl Bucket {
    /// Buckets of those `parameters` that `numbers` name, which get their gradients there, and with `shards` their weights. Each holds
    /// about `bytes` of gradients.
    pub(crate) fn all(
        parameters: &[(String, Tensor)],
        numbers: Vec<usize>,
        team: &Team,
        shards: bool,
        bytes: usize,
    ) -> Result<Vec<Self>> {
        let mut rest = numbers;
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
                let is_full = held as usize * size_of::<f32>() >= bytes;
                next = rest.pop_if(|number| !is_full && sort(*number) == sort(first));
            }
            all.push(Self::new(parameters, members, padded(held, team), shards)?);
        }
        Ok(all)
    }

    fn new(parameters: &[(String, Tensor)], members: Vec<Member>, length: i64, shards: bool) -> Result<Self> {
        let _guard = tch::no_grad_guard();
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

    /// Places of the parameters.
    pub(crate) fn span(&self) -> Span {
        let is_rounded = self.weights.as_ref().is_some_and(|weights| weights.kind() != Kind::Float);
        Span { members: self.members.clone(), length: self.gradients.size()[0], is_rounded }
    }

    /// Pieces of the parameters in this process's part, with their gradients.
    pub(crate) fn pieces(&self, team: &Team) -> Result<Vec<Piece>> {
        let weights = self.weights.as_ref().expect("a sharded bucket has weights");
        let piece = |(member, start, count): (&Member, i64, i64)| {
            let tensor = weights.narrow(0, start, count).detach();
            simplemix_torch::set_gradient(&tensor, Some(&self.gradients.narrow(0, start, count)))?;
            Ok(Piece { parameter: member.parameter, start: start - member.start, tensor })
        };
        self.span().here(team).map(piece).collect()
    }

    /// Numbers of the parameters here, in their order.
    pub(crate) fn parameters(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|member| member.parameter)
    }

    /// Gradients to be added up: all of them, or this process's part.
    pub(crate) fn sum(&self, team: &Team) -> Sum {
        Sum { gradients: self.gradients.shallow_clone(), part: self.weights.as_ref().map(|_| self.part(team)) }
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
}
