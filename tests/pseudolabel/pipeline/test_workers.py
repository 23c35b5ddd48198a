"""The worker pool: every job once, in threads and processes, and what happens when a worker dies."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudolabel.errors import MachineError
from pseudolabel.pipeline import workers as worker_pool
from pseudolabel.pipeline.workers import pool


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_every_job_is_made_and_put_once(workers: int) -> None:
    inside: set[int] = set()

    def put(job: int, result: int) -> tuple[int, int]:
        inside.add(threading.get_ident())
        return job, result

    with pool(lambda job: job * job, put, workers=workers, processes=False) as submit:
        results = [future.result() for future in [submit(job) for job in range(20)]]
    assert results == [(job, job * job) for job in range(20)]
    assert (inside == {threading.get_ident()}) == (workers == 0)


def test_processes_make_and_this_process_puts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_settle", os.getpid)  # the real one imports torch
    with pool(str.upper, lambda job, result: (job, result, os.getpid()), workers=2, processes=True) as submit:
        results = [future.result() for future in [submit(word) for word in ("one", "two", "three")]]
    assert results == [(word, word.upper(), os.getpid()) for word in ("one", "two", "three")]


@pytest.mark.parametrize("processes", [False, True])
def test_what_a_job_raises_comes_back(processes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_settle", os.getpid)
    with (
        pool(int, lambda job, result: result, workers=1, processes=processes) as submit,
        pytest.raises(ValueError, match="invalid literal"),
    ):
        submit("x").result()


def test_a_worker_process_that_dies_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_pool, "_settle", os.getpid)
    with (
        pool(os._exit, lambda job, result: result, workers=1, processes=True) as submit,
        pytest.raises(MachineError, match=r"worker process died .* the same command continues"),
    ):
        submit(9).result()


WORKING = """
import os, signal, sys, time
from pseudolabel.pipeline.workers import make_ready, pool

def busy(seconds):
    time.sleep(seconds)
    return os.getpid()

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: None)
    make_ready()
    with pool(busy, lambda job, made: made, workers=1, processes=True) as submit:
        print(submit(0).result(), flush=True)
        future = submit(float(sys.argv[1]))
        print(future.result(), flush=True)
"""


@contextlib.contextmanager
def working(folder: Path, seconds: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process group of its own whose worker, the second value, has a job of so many seconds."""
    script = folder / "working.py"
    script.write_text(WORKING)
    words = [sys.executable, str(script), str(seconds)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stdout is not None
        try:
            yield run, int(run.stdout.readline())
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)


def test_a_signal_to_the_whole_group_leaves_workers_at_work(tmp_path: Path) -> None:
    with working(tmp_path, 1.0) as (run, worker):
        os.killpg(run.pid, signal.SIGTERM)
        assert run.stdout is not None
        assert run.stdout.readline() == f"{worker}\n"
        assert run.wait(20) == 0


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    with working(tmp_path, 60.0) as (run, worker):
        run.kill()
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            try:
                os.kill(worker, 0)
            except ProcessLookupError:
                return
            time.sleep(0.05)
    pytest.fail(f"process {worker} is still there")
