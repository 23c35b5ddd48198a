"""Lanes: batches side by side on a CPU, in order, each in one thread of torch, whatever their number."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pseudolabel.commands.generate import generate
from pseudolabel.pipeline.lanes import Lanes
from tests.pseudolabel.commands.untrained import digests, place_fixture, recipe  # noqa: F401


class Busy:
    """Stands for a classifier; says when two threads use it at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def work(self, job: int) -> tuple[int, int, int]:
        """Later jobs are done sooner."""
        assert self.lock.acquire(blocking=False), "two threads use one classifier"
        time.sleep(0.03 if job % 3 == 0 else 0.001)
        self.lock.release()
        return job, torch.get_num_threads(), threading.get_ident()


@pytest.fixture(name="threads")
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def lanes_of(count: int, workers_made: list[Busy]) -> Lanes:
    torch.set_num_threads(count)

    def new() -> Any:
        workers_made.append(Busy())
        return workers_made[-1]

    return Lanes(new, torch.device("cpu"))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("count", [1, 2, 4])
def test_jobs_come_back_in_order_each_in_one_thread_of_torch(count: int) -> None:
    created: list[Busy] = []
    lanes = lanes_of(count, created)
    results = list(lanes.run(range(20), Busy.work))  # type: ignore[arg-type]
    assert [job for job, _ in results] == [done[0] for _, done in results] == list(range(20))
    assert {done[1] for _, done in results} == {1}
    assert len(created) <= count
    assert len({done[2] for _, done in results}) <= count
    assert torch.get_num_threads() == count
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [count], "threads to come have what they had"


@pytest.mark.usefixtures("threads")
def test_jobs_run_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=30)
    lanes = lanes_of(2, [])
    assert len(list(lanes.run(range(4), lambda classifier, job: both.wait()))) == 4


@pytest.mark.usefixtures("threads")
def test_an_error_comes_at_its_turn() -> None:
    lanes = lanes_of(2, [])

    def work(classifier: Any, job: int) -> int:
        if job == 3:
            raise RuntimeError("the fourth")
        return job

    results = []
    with pytest.raises(RuntimeError, match="the fourth"):
        results.extend(job for job, _ in lanes.run(range(9), work))
    assert torch.get_num_threads() == 2


def test_on_a_gpu_there_is_one_lane() -> None:
    assert Lanes(Busy, torch.device("cuda")).count == 1  # type: ignore[arg-type]


@pytest.mark.usefixtures("threads")
def test_the_number_of_cores_changes_no_byte(place: Path, tmp_path: Path) -> None:
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        generate(recipe(place, batch=1), tmp_path / str(count), workers=count - 1, quiet=True)
    assert digests(tmp_path / "1") == digests(tmp_path / "2") == digests(tmp_path / "3")
