"""Who may write into a run folder, and what becomes of a rival."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudolabel.errors import MachineError
from pseudolabel.runs import disk, layout, writing
from tests.pseudolabel.small_run import (
    _quick,  # noqa: F401
    ended,
    forked,
)


def race(out: Path, ready: int, gate: int, leave: int) -> None:
    """Wait for the gate, then hold the folder until told to leave; exit status 3 where it is taken."""
    os.write(ready, b".")
    os.read(gate, 1)
    try:
        with writing.open_run(out, "generate", {}) as run:
            disk.write_text(run.path / "winner", str(os.getpid()))
            os.write(ready, b"w")
            os.read(leave, 1)
    except MachineError as fault:
        os.write(ready, b"l" if "in use by process" in str(fault) else b"?")
        raise
    except BaseException:
        os.write(ready, b"!")
        raise


def test_of_four_that_start_at_once_one_wins(tmp_path: Path) -> None:
    for number in range(5):
        pipes = [os.pipe() for _ in range(3)]
        (answers, ready), (gate, open_gate), (leave, let_leave) = pipes
        work = functools.partial(race, tmp_path / str(number), ready, gate, leave)
        children = [forked(work) for _ in range(4)]
        assert b"".join(os.read(answers, 1) for _ in range(4)) == b"...."
        os.write(open_gate, b"gggg")
        outcome = b"".join(os.read(answers, 1) for _ in range(4))
        os.write(let_leave, b"g")
        assert sorted(outcome) == sorted(b"wlll")
        assert sorted(ended(child) for child in children) == [0, 3, 3, 3]
        assert sorted(p.name for p in (tmp_path / str(number)).iterdir()) == ["fingerprint.json", "winner"]
        for pipe in pipes:
            os.close(pipe[0])
            os.close(pipe[1])


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A folder held by another process until it is killed."""
    answer, ready = os.pipe()

    def hold() -> None:
        with writing.open_run(tmp_path / "run", "generate", {}):
            os.write(ready, b"h")
            time.sleep(60)

    child = forked(hold)
    os.read(answer, 1)
    yield tmp_path / "run", child
    os.close(answer)
    os.close(ready)
    try:
        os.kill(child, signal.SIGKILL)
        ended(child)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_the_error_of_the_second_names_the_holder_of_the_folder(holder: tuple[Path, int]) -> None:
    out, child = holder
    with (
        pytest.raises(MachineError, match=rf"in use by process {child} on .+ since \d{{4}}-.*--wait"),
        writing.open_run(out, "generate", {}),
    ):
        pass
    with (
        pytest.raises(MachineError, match=f"process {child}"),
        writing.open_run(out, "generate", {"another": 1}, overwrite=True),
    ):
        pass
    os.kill(child, signal.SIGKILL)
    ended(child)
    with writing.open_run(out, "generate", {}):
        pass  # a kill leaves no stale lock


def test_wait_begins_when_the_holder_has_ended(
    holder: tuple[Path, int], capfd: pytest.CaptureFixture[str]
) -> None:
    out, child = holder

    def wait() -> None:
        with writing.open_run(out, "generate", {}, wait=True) as run:
            disk.write_text(run.path / "waited", "")

    waiting = forked(wait)
    output = ""
    while "waiting" not in output:
        output += capfd.readouterr().err
        time.sleep(0.01)
    assert not (out / "waited").exists()
    os.kill(child, signal.SIGKILL)
    ended(child)
    assert ended(waiting) == 0
    assert (out / "waited").exists()
    output += capfd.readouterr().err
    assert output.count(f"in use by process {child}") == 1


def test_a_worker_that_outlives_a_killed_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    answer, ready = os.pipe()

    def work() -> None:
        os.write(ready, os.getpid().to_bytes(4, "big"))
        time.sleep(30)

    def hold() -> None:
        with writing.open_run(tmp_path / "run", "generate", {}):
            forked(work)
            time.sleep(30)

    child = forked(hold)
    worker = int.from_bytes(os.read(answer, 4), "big")
    try:
        os.kill(child, signal.SIGKILL)
        ended(child)
        os.kill(worker, 0)
        with writing.open_run(tmp_path / "run", "generate", {}):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(answer)
        os.close(ready)


def test_a_forked_worker_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    with writing.open_run(tmp_path / "run", "generate", {}) as run:
        assert ended(forked(run.close)) == 0
        assert (run.path / ".lock").exists()
        with pytest.raises(MachineError, match="in use"), writing.open_run(run.path, "generate", {}):
            pass


def test_without_locks_a_second_writer_is_reported_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with writing.open_run(tmp_path / "run", "generate", {}) as first:
        assert "has no locks" in capsys.readouterr().err
        with writing.open_run(tmp_path / "run", "generate", {}) as second:
            with pytest.raises(MachineError, match="another process has written here"):
                first.complete([])
            second.complete([])
        with pytest.raises(MachineError, match="another process has written here"):
            first.complete([])


def test_a_lock_on_a_file_that_has_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder leaves, and another comes, between our opening of the file and our lock on it."""
    flock, rivals = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not rivals:
            (tmp_path / "run" / ".lock").unlink()
            rivals.append(os.open(tmp_path / "run" / ".lock", os.O_RDWR | os.O_CREAT))
            flock(rivals[0], fcntl.LOCK_EX)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(MachineError, match="in use"), writing.open_run(tmp_path / "run", "generate", {}):
        pass
    os.close(rivals[0])
    with writing.open_run(tmp_path / "run", "generate", {}):
        pass


def test_a_lock_file_that_somebody_removed_does_not_cost_the_run(tmp_path: Path) -> None:
    with writing.open_run(tmp_path / "run", "generate", {}) as run:
        (run.path / ".lock").unlink()
        run.complete([])
    assert (tmp_path / "run" / layout.MANIFEST).exists()
