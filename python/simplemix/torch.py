"""Mixtures for PyTorch: an `IterableDataset` and a sampler whose state is one integer.

The integer counts pairs of the whole run, over all ranks. So a run that stops after 1,000 pairs continues at 1,000 on any number of
ranks, and `load_state_dict({"position": 1000})` is all it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import TYPE_CHECKING, Any

from torch.utils.data import IterableDataset, Sampler, get_worker_info

from . import _native

if TYPE_CHECKING:
    from ._mixture import Mixture

#: Rows that are gathered together.
AHEAD = 256


class _Place:
    """Where a rank stands in the positions from 0 to `total`."""

    def __init__(self, total: int, rank: int, world_size: int) -> None:
        if world_size < 1:
            raise _native.Error(f"`world_size` is {world_size}, expected at least 1")
        if not 0 <= rank < world_size:
            raise _native.Error(f"`rank` is {rank}, expected 0 to {world_size - 1} for a world size of {world_size}")
        self.total, self.rank, self.world_size = total, rank, world_size
        #: Position at which iteration starts, over all ranks.
        self.start = 0
        #: Rows of this process or worker that came before, which the next iteration leaves out.
        self.skip = 0
        #: Rows that the current iteration has given, those that it left out included.
        self.taken = 0
        self.ended = False

    def begin(self) -> None:
        if self.ended:
            self.start, self.skip, self.ended = 0, 0, False
        self.taken = self.skip

    def local(self) -> range:
        """Positions of this rank."""
        return range(self.start + self.rank, self.total, self.world_size)

    def end(self) -> None:
        self.ended = True

    def state(self) -> dict[str, int]:
        # Ranks go in step, so each row of this one stands for one of every rank.
        position = self.total if self.ended else min(self.start + self.taken * self.world_size, self.total)
        return {"position": position}

    def load(self, state: dict[str, int]) -> None:
        position, taken = state.get("position"), state.get("taken", 0)
        if not isinstance(position, int) or isinstance(position, bool) or not 0 <= position <= self.total:
            raise _native.Error(f"`position` of the state is {position!r}, expected a whole number from 0 to {self.total}")
        if not isinstance(taken, int) or taken < 0:
            raise _native.Error(f"`taken` of the state is {taken!r}, expected a whole number >= 0")
        self.start, self.skip, self.taken, self.ended = position, taken, taken, False


class MixtureDataset(IterableDataset[dict[str, Any]]):  # type: ignore[misc]
    """The rows of one rank, in the order of the mixture: rank r of w has the positions r, r + w, ...

    All ranks go through it in step, as training does: `state_dict()` is `{"position": pairs that all ranks together have taken}`.

    With `DataLoader(num_workers=...)`, workers take whole batches in turn, so batches come in the order that they have without
    workers; for that they need `batch_size`, the loader's own. The dataset in the main process does not see what workers take: use
    torchdata's `StatefulDataLoader`, which asks the workers and continues with as many of them, or count pairs yourself (steps times
    the batch size over all ranks), which continues with any number of workers and ranks.

    After the end, the next iteration begins at position 0.
    """

    def __init__(self, mixture: Mixture, rank: int = 0, world_size: int = 1, *, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise _native.Error(f"`batch_size` is {batch_size}, expected at least 1")
        self.mixture, self.batch_size = mixture, batch_size
        self._place = _Place(len(mixture), rank, world_size)

    def __len__(self) -> int:
        """Rows that this rank has from where it starts."""
        return len(self._place.local())

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if workers > 1 and self.batch_size is None:
            raise _native.Error(
                f"there are {workers} workers and no `batch_size`: give to_iterable the batch_size of the DataLoader, so that batches "
                "come in the order of the mixture"
            )
        place = self._place
        place.begin()
        skip = place.taken
        local = place.local()
        size = self.batch_size if workers > 1 and self.batch_size is not None else max(len(local), 1)
        for first in range(number * size, len(local), workers * size):
            of_batch = local[first : first + size]
            positions = of_batch[skip:]
            skip = max(0, skip - len(of_batch))
            for start in range(0, len(positions), AHEAD):
                part = positions[start : start + AHEAD]
                for row in self.mixture._native.take(part.start, part.stop, part.step).rows(0, len(part)):
                    place.taken += 1
                    yield row
        place.end()

    def state_dict(self) -> dict[str, int]:
        """Where it stands: one integer. In one of several workers also the rows that this one has taken."""
        worker = get_worker_info()
        if worker is None or worker.num_workers == 1:
            return self._place.state()
        return {"position": self._place.start, "taken": self._place.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues at a state, whatever the number of ranks was when it was taken."""
        self._place.load(state)


class MixtureSampler(Sampler[int]):  # type: ignore[misc]
    """The positions of one rank in their order, for a map-style dataset in the order of a mixture, such as a `Mixture` itself or
    `Mixture.to_dataset()`. `state_dict()` is one integer, and continues on any number of ranks.

    A `DataLoader` with workers asks a sampler ahead of time: with it, count pairs yourself, or use torchdata's `StatefulDataLoader`.
    """

    def __init__(self, data: Sized, rank: int = 0, world_size: int = 1) -> None:
        self._place = _Place(len(data), rank, world_size)

    def __len__(self) -> int:
        """Positions that this rank has from where it starts."""
        return len(self._place.local())

    def __iter__(self) -> Iterator[int]:
        place = self._place
        place.begin()
        for position in place.local()[place.taken :]:
            place.taken += 1
            yield position
        place.end()

    def state_dict(self) -> dict[str, int]:
        """Where it stands: one integer."""
        return self._place.state()

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continues at a state, whatever the number of ranks was when it was taken."""
        self._place.load(state)
