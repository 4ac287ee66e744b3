//! Numbers of several tensors side by side, of which each process has an equal part.

use tch::{Kind, Tensor};

use crate::team::Team;

/// Place of a tensor among others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    /// Number of the tensor in its list.
    pub(crate) parameter: usize,
    pub(crate) start: i64,
    pub(crate) count: i64,
}

/// Tensors side by side.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) members: Vec<Member>,
    /// Numbers of all processes' parts together.
    pub(crate) length: i64,
    /// Whether the optimiser keeps f32 copies.
    pub(crate) is_rounded: bool,
}

impl Member {
    /// First entry and number of entries that are among `count` from `first` on.
    pub(crate) fn within(&self, first: i64, count: i64) -> Option<(i64, i64)> {
        let start = self.start.max(first);
        let end = (self.start + self.count).min(first + count);
        (start < end).then_some((start, end - start))
    }

    /// All of the tensor in a row, from the pieces of processes with parts of `part` numbers; `own` is this one's.
    pub(crate) fn assembled(
        &self,
        team: &Team,
        (part, kind): (i64, Kind),
        own: Option<&Tensor>,
        doing: &'static str,
    ) -> simplemix_torch::Result<Tensor> {
        let range = |rank: usize| {
            let (start, count) = self.within(rank as i64 * part, part)?;
            Some(start - self.start..start - self.start + count)
        };
        team.assemble((self.count, kind), range, own, doing)
    }
}

impl Span {
    /// Numbers of a part.
    fn part(&self, team: &Team) -> i64 {
        self.length / team.size() as i64
    }

    /// Tensors of which this process's part has entries, with the first entry and the number of them.
    pub(crate) fn here(&self, team: &Team) -> impl Iterator<Item = (&Member, i64, i64)> {
        let count = self.part(team);
        let first = team.rank() as i64 * count;
        let here = move |member: &Member| member.within(first, count);
        self.members.iter().filter_map(move |member| here(member).map(|(start, count)| (member, start, count)))
    }

    /// Parts of the optimiser's state, by the ends of their names.
    pub(crate) fn state_names(&self) -> &'static [&'static str] {
        if self.is_rounded { &["exp_avg", "exp_avg_sq", "master"] } else { &["exp_avg", "exp_avg_sq"] }
    }

    /// One part of the optimiser's state of a tensor in a row, from the pieces of all processes.
    pub(crate) fn state(&self, team: &Team, member: &Member, own: Option<&Tensor>) -> simplemix_torch::Result<Tensor> {
        member.assembled(team, (self.part(team), Kind::Float), own, "gathering the optimiser's state")
    }
}

/// The next multiple of the number of processes.
pub(crate) fn padded(length: i64, team: &Team) -> i64 {
    let processes = team.size() as i64;
    (length + processes - 1) / processes * processes
}
