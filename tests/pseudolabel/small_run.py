"""A small run, and forked children to do it in under a plan of faults."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from pseudolabel.errors import MachineError
from pseudolabel.runs import disk, fault_plan, layout, writing

IDS = ["a b", "ü"]
FINGERPRINT = {
    "recipe": {"background": {"name": "power", "alpha": 4.0}, "maps": [{"name": "cam"}]},
    "input": "x",
}


def forked(work: Callable[[], object]) -> int:
    """Fork a child that does the work; returns its process id."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork beside torch's threads
        child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.environ.pop("PYTEST_CURRENT_TEST", None)
        work()
        status = 0
    except MachineError:
        status = 3
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Exit status of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def planned(plan: str, work: Callable[[], object]) -> Callable[[], object]:
    def under_plan() -> object:
        os.environ[fault_plan.VARIABLE] = plan
        return work()

    return under_plan


def tree(folder: Path) -> dict[str, bytes]:
    """Contents by relative path, hidden files too."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def mask_of(item: str) -> bytes:
    return f"mask of {item}".encode() * 20


def do_run(out: Path) -> int:
    """A small run: masks, a line each, problems, manifest; returns how many items it had to do."""
    done = 0
    with writing.open_run(out, "generate", FINGERPRINT) as run:
        finished = run.finished()
        for item in IDS:
            if item in finished:
                continue
            data = mask_of(item)
            disk.write_bytes(run.path / layout.mask_file(item), data)
            run.problem(f"{item}.jpg", "flat_map", "constant", "look at it", item=item)
            run.record({"id": item, "size": len(data), "sha256": disk.sha256_bytes(data)})
            done += 1
        run.problem("z.jpg", "damaged", "cut", "copy it again")
        run.complete(IDS)
    return done


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk: a process that is left or killed loses nothing that was not synced."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
