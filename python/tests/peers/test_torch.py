"""Under torch's DataLoader, torchdata's StatefulDataLoader and accelerate: the order, the shares and the state."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.utils.data import DataLoader

import simplemix as sm


def mixture(total: int = 64) -> sm.Mixture:
    def table(name: str) -> sm.Table:
        return sm.Table.from_rows({"x": f"{name}{i}"} for i in range(60))

    return sm.Mixture({"off": table("f"), "on": table("n")}, total=total, seed=3, batch=8)


ALL = [row["x"] for row in mixture()]


def batches(data: object, **options: object) -> list[list[str]]:
    return [batch["x"] for batch in DataLoader(data, **options)]  # type: ignore[arg-type]


def test_wrong_ranks_workers_and_states_are_refused() -> None:
    mix = mixture()
    with pytest.raises(sm.Error, match="`rank` is 2, expected 0 to 1"):
        mix.to_iterable(2, 2)
    with pytest.raises(sm.Error, match="`world_size` is 0"):
        mix.to_iterable(0, 0)
    with pytest.raises(sm.Error, match="`batch_size` is 0"):
        mix.to_iterable(batch_size=0)
    with pytest.raises(Exception, match="there are 2 workers and no `batch_size`"):
        batches(mix.to_iterable(), batch_size=4, num_workers=2)
    for state in ({"position": 65}, {"position": -1}, {}, {"position": "3"}, {"position": 3, "taken": -1}):
        with pytest.raises(sm.Error, match="of the state is"):
            mix.to_iterable().load_state_dict(state)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [1, 4, 5])
def test_workers_keep_the_order(workers: int, size: int) -> None:
    found = batches(mixture().to_iterable(batch_size=size), batch_size=size, num_workers=workers)
    assert found == [ALL[start : start + size] for start in range(0, 64, size)]


def test_a_mixture_is_a_map_style_dataset() -> None:
    for workers in (0, 2):
        assert sum(batches(mixture(), batch_size=8, num_workers=workers), []) == ALL
    spawned = DataLoader(mixture(), batch_size=8, num_workers=1, multiprocessing_context="spawn")
    assert sum((batch["x"] for batch in spawned), []) == ALL


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 4), (4, 1), (2, 3), (4, 2)])
def test_a_run_continues_on_any_number_of_ranks(before: int, after: int) -> None:
    ranks = [mixture().to_iterable(rank, before) for rank in range(before)]
    running = [iter(rank) for rank in ranks]
    seen = [next(rank)["x"] for _ in range(24 // before) for rank in running]
    states = [rank.state_dict() for rank in ranks]
    assert states == [{"position": 24}] * before
    later = [mixture().to_iterable(rank, after) for rank in range(after)]
    for rank in later:
        rank.load_state_dict(states[0])
    rest = [iter(rank) for rank in later]
    while True:
        row = [value["x"] for rank in rest if (value := next(rank, None)) is not None]
        if not row:
            break
        seen += row
    assert seen == ALL
    assert later[0].state_dict() == {"position": 64}
    # The next epoch begins anew.
    assert [row["x"] for row in later[0]] == ALL[:: after]


def test_the_sampler_says_the_same() -> None:
    data = mixture()
    sampler = sm.torch.MixtureSampler(data, 1, 2)
    running = iter(sampler)
    assert [next(running) for _ in range(3)] == [1, 3, 5]
    assert sampler.state_dict() == {"position": 6}
    other = sm.torch.MixtureSampler(data, 0, 3)
    other.load_state_dict(sampler.state_dict())
    assert list(other) == list(range(6, 64, 3)) and list(other) == list(range(0, 64, 3))
    assert sum(batches(data, sampler=sm.torch.MixtureSampler(data), batch_size=8, num_workers=2), []) == ALL


@pytest.mark.parametrize("workers", [0, 2, 3])
def test_a_stateful_loader_continues_where_it_was(workers: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader() -> object:
        return stateful(mixture().to_iterable(batch_size=4), batch_size=4, num_workers=workers)

    first = loader()
    running = iter(first)  # type: ignore[call-overload]
    seen = [next(running)["x"] for _ in range(5)]
    state = pickle.loads(pickle.dumps(first.state_dict()))  # type: ignore[attr-defined]
    second = loader()
    second.load_state_dict(state)  # type: ignore[attr-defined]
    seen += [batch["x"] for batch in second]  # type: ignore[attr-defined]
    assert sum(seen, []) == ALL


def test_a_stateful_loader_continues_with_the_sampler() -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def loader() -> object:
        return stateful(mixture(), sampler=sm.torch.MixtureSampler(mixture()), batch_size=4, num_workers=0)

    first = loader()
    running = iter(first)  # type: ignore[call-overload]
    seen = [next(running)["x"] for _ in range(5)]
    second = loader()
    second.load_state_dict(first.state_dict())  # type: ignore[attr-defined]
    assert sum(seen + [batch["x"] for batch in second], []) == ALL  # type: ignore[attr-defined]


@pytest.mark.parametrize("dispatch", [None, False])
def test_accelerate_gives_each_rank_its_part(dispatch: bool | None) -> None:
    accelerate = pytest.importorskip("accelerate")
    from accelerate.data_loader import IterableDatasetShard, prepare_data_loader

    loader = DataLoader(mixture().to_iterable(), batch_size=8)
    prepared = prepare_data_loader(loader, num_processes=1, process_index=0, dispatch_batches=dispatch)
    assert sum((batch["x"] for batch in prepared), []) == ALL
    parts = [list(IterableDatasetShard(mixture().to_iterable(), batch_size=4, num_processes=2, process_index=rank)) for rank in (0, 1)]
    both = [row["x"] for start in range(0, 32, 4) for part in parts for row in part[start : start + 4]]
    assert both == ALL
    assert accelerate.__version__


def test_a_batch_of_tensors_has_every_share() -> None:
    table = sm.Table.from_rows({"n": i} for i in range(40))
    mix = sm.Mixture({"a": table, "b": table}, {"a": 3, "b": 1}, total=40, seed=1, batch=8)
    for batch in DataLoader(mix.to_iterable(), batch_size=8):
        assert batch["n"].dtype == torch.int64 and batch["source"].count("a") == 6
