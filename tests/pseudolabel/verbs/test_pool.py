"""The worker pool: every job once, in threads and processes, and what happens when a worker dies."""

from __future__ import annotations

import os
import threading

import pytest

from pseudolabel.errors import EnvironmentFault
from pseudolabel.verbs import _pool
from pseudolabel.verbs._pool import pool


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_job_is_made_and_put_once(workers: int) -> None:
    inside: set[int] = set()

    def put(job: int, made: int) -> tuple[int, int]:
        inside.add(threading.get_ident())
        return job, made

    with pool(lambda job: job * job, put, workers=workers, processes=False) as submit:
        found = [future.result() for future in [submit(job) for job in range(20)]]
    assert found == [(job, job * job) for job in range(20)]
    assert (inside == {threading.get_ident()}) == (workers == 0)


def test_processes_make_and_this_process_puts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "_settle", os.getpid)  # the real one imports torch
    with pool(str.upper, lambda job, made: (job, made, os.getpid()), workers=2, processes=True) as submit:
        found = [future.result() for future in [submit(word) for word in ("one", "two", "three")]]
    assert found == [(word, word.upper(), os.getpid()) for word in ("one", "two", "three")]


@pytest.mark.parametrize("processes", [False, True])
def test_what_a_job_raises_comes_back(processes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "_settle", os.getpid)
    with (
        pool(int, lambda job, made: made, workers=1, processes=processes) as submit,
        pytest.raises(ValueError, match="invalid literal"),
    ):
        submit("x").result()


def test_a_worker_process_that_dies_is_named_f15(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "_settle", os.getpid)
    with (
        pool(os._exit, lambda job, made: made, workers=1, processes=True) as submit,
        pytest.raises(EnvironmentFault, match=r"worker process died .* the same command continues"),
    ):
        submit(9).result()
