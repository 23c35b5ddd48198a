"""Files and run folders under kills, failing disks and rivals: F1, F3, F20, F21."""

from __future__ import annotations

import collections
import errno
import fcntl
import functools
import hashlib
import json
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pseudolabel import _fault_plan, storage
from pseudolabel.errors import DataFault, EnvironmentFault, UsageFault

IDS = ["a b", "ü"]
FINGERPRINT = {
    "recipe": {"resolver": {"name": "power", "alpha": 4.0}, "maps": [{"name": "cam"}]},
    "input": "x",
}
ERRORS = ("ENOSPC", "EDQUOT", "EACCES", "EROFS", "EIO")


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
    except EnvironmentFault:
        status = 3
    finally:
        os._exit(status)


def ended(child: int) -> int:
    """Exit status of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def planned(plan: str, work: Callable[[], object]) -> Callable[[], object]:
    def under_plan() -> object:
        os.environ[_fault_plan.VARIABLE] = plan
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
    with storage.open_run(out, "generate", FINGERPRINT) as run:
        finished = run.finished()
        for item in IDS:
            if item in finished:
                continue
            data = mask_of(item)
            storage.write_bytes(run.file("masks", item, ".png"), data)
            run.problem(f"{item}.jpg", "flat_map", "constant", "look at it", item=item)
            run.record({"id": item, "size": len(data), "sha256": storage.sha256_bytes(data)})
            done += 1
        run.problem("z.jpg", "damaged", "cut", "copy it again")
        run.finish(IDS)
    return done


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for the disk: a process that is left or killed loses nothing that was not synced."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def reference(tmp_path: Path) -> dict[str, bytes]:
    do_run(tmp_path / "reference")
    return tree(tmp_path / "reference")


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "bytes": lambda path, version: storage.write_bytes(path, bytes([version]) * 999),
    "text": lambda path, version: storage.write_text(path, f"{version}\n" * 99),
    "json": lambda path, version: storage.write_json(path, {"version": version, "rows": list(range(99))}),
    "lines": lambda path, version: storage.write_json_lines(path, ({"version": version} for _ in range(5))),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_f1_left_at_every_operation_a_file_is_the_old_or_the_new_one(kind: str, tmp_path: Path) -> None:
    write = WRITERS[kind]
    write(tmp_path / "1", 1)
    write(tmp_path / "2", 2)
    old, new = (tmp_path / "1").read_bytes(), (tmp_path / "2").read_bytes()
    assert old != new
    seen = set()
    for n in range(1, 100):
        place = tmp_path / "deep" / "er" / "file"
        fresh = tmp_path / f"fresh{n}" / "file"
        for path, allowed in ((place, (old, new)), (fresh, (None, new))):
            if path is place:
                write(path, 1)
            status = ended(forked(planned(f"write:{n}:exit", lambda path=path: write(path, 2))))  # type: ignore[misc]
            assert status in (_fault_plan.LEFT, 0)
            found = path.read_bytes() if path.exists() else None
            assert found in allowed
            seen.add((path is fresh, found))
        if status == 0:
            break
    assert n > 6, "the plan must strike at every step of a write"
    assert seen == {(False, old), (False, new), (True, None), (True, new)}


def test_f1_a_run_left_at_every_operation_continues_to_the_same_bytes(
    tmp_path: Path, reference: dict[str, bytes]
) -> None:
    for n in range(1, 500):
        out = tmp_path / str(n)
        status = ended(forked(planned(f"write:{n}:exit", lambda out=out: do_run(out))))  # type: ignore[misc]
        if status == 0:
            break
        assert status == _fault_plan.LEFT
        whole = [item for item in IDS if (out / "masks" / f"{item}.png").exists()]
        assert all((out / "masks" / f"{item}.png").read_bytes() == mask_of(item) for item in whole)
        done = do_run(out)
        assert len(IDS) - len(whole) <= done <= len(IDS) - len(whole) + 1, (
            "only a mask without line is redone"
        )
        assert tree(out) == reference
    assert n > 40


def test_f1_synced_in_the_order_that_outlasts_a_power_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, str]] = []

    def sync(descriptor: int) -> None:
        place = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        size = str(place.stat().st_size) if place.is_file() else place.name
        steps.append(("sync", size))

    replace = os.replace

    def rename(old: Path, new: Path) -> None:
        assert Path(old).parent == Path(new).parent
        steps.append(("rename", new.name))
        replace(old, new)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    storage.write_bytes(tmp_path / "masks" / "a.png", b"12345")
    assert steps == [("sync", tmp_path.name), ("sync", "5"), ("rename", "a.png"), ("sync", "masks")]


def test_f1_sigkill_at_random_moments(tmp_path: Path) -> None:
    target = tmp_path / "run" / "file.json"

    def work() -> None:
        with storage.open_run(tmp_path / "run", "generate", {}):
            version = 0
            while True:
                version += 1
                storage.write_json(target, {"version": version, "rows": [version] * 5000})

    for pause in (0.02, 0.021, 0.023, 0.03, 0.041, 0.05, 0.067, 0.08):
        child = forked(work)
        time.sleep(pause)
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        if target.exists():
            found = json.loads(target.read_bytes())
            assert set(found["rows"]) == {found["version"]}
    with storage.open_run(tmp_path / "run", "generate", {}):
        assert not list((tmp_path / "run").rglob(".tmp-*")), "leftovers are swept at the next start"


def test_f1_only_temporaries_are_swept_and_links_are_not_followed(tmp_path: Path) -> None:
    with storage.open_run(tmp_path / "run", "generate", {}) as run:
        storage.write_text(run.path / "masks" / "keep", "")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".tmp-1-1").touch()
    (tmp_path / "run" / "link").symlink_to(outside)
    for name in (".tmp-12-3", "masks/.tmp-7-7", ".tmp-mine", "masks/.tmp-1-1.txt"):
        (tmp_path / "run" / name).touch()
    with storage.open_run(tmp_path / "run", "generate", {}):
        pass
    left = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert left == {"fingerprint.json", ".tmp-mine", "masks/.tmp-1-1.txt", "masks/keep"}
    assert (outside / ".tmp-1-1").exists()


def test_f1_existence_alone_never_counts_as_done(tmp_path: Path) -> None:
    do_run(tmp_path / "run")
    masks = tmp_path / "run" / "masks"
    (masks / "a b.png").write_bytes(mask_of("a b")[:-1] + b"!")
    (masks / "stray.png").write_bytes(b"?")
    with storage.open_run(tmp_path / "run", "generate", FINGERPRINT) as run:
        assert list(run.finished()) == ["ü"]
    (masks / "a b.png").write_bytes(mask_of("a b")[:-1])
    (masks / "ü.png").rename(tmp_path / "ü.png")
    (masks / "ü.png").symlink_to(tmp_path / "ü.png")
    with storage.open_run(tmp_path / "run", "generate", FINGERPRINT) as run:
        assert dict(run.finished()) == {}
        assert run.problems == ()


def test_f1_further_files_of_an_item_are_verified_too(tmp_path: Path) -> None:
    with storage.open_run(tmp_path / "run", "generate", {}) as run:
        storage.write_bytes(run.path / "masks" / "a.png", b"mask")
        storage.write_bytes(run.path / "maps" / "a.safetensors", b"maps")
        known = {"size": 4, "sha256": storage.sha256_bytes(b"maps")}
        line = {"id": "a", "size": 4, "sha256": storage.sha256_bytes(b"mask"), "labels": [1, 2]}
        run.record({**line, "files": {"maps/a.safetensors": known}})
    with storage.open_run(tmp_path / "run", "generate", {}) as run:
        assert run.finished()["a"]["labels"] == [1, 2]
    (tmp_path / "run" / "maps" / "a.safetensors").write_bytes(b"maqs")
    with storage.open_run(tmp_path / "run", "generate", {}) as run:
        assert "a" not in run.finished()


def test_f1_a_journal_cut_at_every_byte_loses_one_item_at_most(tmp_path: Path) -> None:
    lines = []
    with storage.open_run(tmp_path / "run", "generate", {}) as run:
        for item in IDS:
            storage.write_bytes(run.path / "masks" / f"{item}.png", b"x")
            run.record({"id": item, "size": 1, "sha256": storage.sha256_bytes(b"x")})
        journal = tmp_path / "run" / storage.JOURNAL
        whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(0, len(whole) + 1, 7):
        journal.write_bytes(whole[:cut])
        expected = [item for k, item in enumerate(IDS) if len(b"".join(lines[: k + 1])) <= cut]
        with storage.open_run(tmp_path / "run", "generate", {}) as run:
            assert list(run.finished()) == expected
            run.record({"id": "new", "size": 1, "sha256": ""})
        assert [json.loads(line)["id"] for line in journal.read_bytes().splitlines()] == [*expected, "new"]


@pytest.mark.parametrize("name", ERRORS)
def test_f3_a_failing_operation_ends_the_run_and_loses_nothing(
    name: str, tmp_path: Path, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = os.strerror(getattr(errno, name))
    for n in range(1, 500):
        out = tmp_path / str(n)
        monkeypatch.setenv(_fault_plan.VARIABLE, f"write:{n}:{name}")
        message = ""
        try:
            do_run(out)
        except EnvironmentFault as fault:
            message = str(fault)
        monkeypatch.delenv(_fault_plan.VARIABLE)
        _fault_plan.trip("write")  # forgets the plan
        if not message:
            break
        assert text in message
        assert str(tmp_path) in message
        assert "\n" not in message
        if out.exists():
            assert not list(out.rglob(".tmp-*"))
        for item in IDS:
            path = out / "masks" / f"{item}.png"
            assert not path.exists() or path.read_bytes() == mask_of(item)
        if n % 5 == ERRORS.index(name):  # continuing is the same for every error: share the cases out
            do_run(out)
            assert tree(out) == reference
    assert n > 40


def test_f3_a_limit_that_fills_for_real(tmp_path: Path) -> None:
    storage.write_bytes(tmp_path / "old", b"old")

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        with pytest.raises(
            EnvironmentFault, match=r"old: cannot be written: File too large \(EFBIG\); raise"
        ):
            storage.write_bytes(tmp_path / "old", b"new" * 10_000)
        with storage.open_run(tmp_path / "run", "generate", {}) as run:
            line = {"id": "0", "size": 0, "sha256": "0" * 64}
            with pytest.raises(EnvironmentFault, match="journal"):
                collections.deque(run.record(line) for _ in range(10_000))
            lines = (run.path / storage.JOURNAL).read_bytes()
            assert lines.endswith(b"\n"), "what does not fit leaves no half line"

    assert ended(forked(work)) == 0
    assert (tmp_path / "old").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "run"]


def test_f3_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(EnvironmentFault, match="a file stands where a folder is needed"),
        storage.open_run(tmp_path / "file" / "run", "generate", {}),
    ):
        pass
    with (
        pytest.raises(EnvironmentFault, match="a file stands where a folder is needed"),
        storage.open_run(tmp_path / "file", "generate", {}),
    ):
        pass
    with pytest.raises(EnvironmentFault, match="use shorter names"):
        storage.write_text(tmp_path / ("n" * 300), "x")
    assert (tmp_path / "file").read_text() == "x"


def test_a_name_as_long_as_the_system_allows(tmp_path: Path) -> None:
    storage.write_text(tmp_path / ("n" * 255), "x")
    assert (tmp_path / ("n" * 255)).read_text() == "x"


def race(out: Path, ready: int, gate: int, leave: int) -> None:
    """Wait for the gate, then hold the folder until told to leave; exit status 3 where it is taken."""
    os.write(ready, b".")
    os.read(gate, 1)
    try:
        with storage.open_run(out, "generate", {}) as run:
            storage.write_text(run.path / "winner", str(os.getpid()))
            os.write(ready, b"w")
            os.read(leave, 1)
    except EnvironmentFault as fault:
        os.write(ready, b"l" if "in use by process" in str(fault) else b"?")
        raise
    except BaseException:
        os.write(ready, b"!")
        raise


def test_f20_of_four_that_start_at_once_one_wins(tmp_path: Path) -> None:
    for number in range(5):
        pipes = [os.pipe() for _ in range(3)]
        (told, ready), (gate, open_gate), (leave, let_leave) = pipes
        work = functools.partial(race, tmp_path / str(number), ready, gate, leave)
        children = [forked(work) for _ in range(4)]
        assert b"".join(os.read(told, 1) for _ in range(4)) == b"...."
        os.write(open_gate, b"gggg")
        outcome = b"".join(os.read(told, 1) for _ in range(4))
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
    told, ready = os.pipe()

    def hold() -> None:
        with storage.open_run(tmp_path / "run", "generate", {}):
            os.write(ready, b"h")
            time.sleep(60)

    child = forked(hold)
    os.read(told, 1)
    yield tmp_path / "run", child
    os.close(told)
    os.close(ready)
    try:
        os.kill(child, signal.SIGKILL)
        ended(child)
    except (ProcessLookupError, ChildProcessError):
        pass


def test_f20_the_second_is_told_who_holds_the_folder(holder: tuple[Path, int]) -> None:
    out, child = holder
    with (
        pytest.raises(EnvironmentFault, match=rf"in use by process {child} on .+ since \d{{4}}-.*--wait"),
        storage.open_run(out, "generate", {}),
    ):
        pass
    with (
        pytest.raises(EnvironmentFault, match=f"process {child}"),
        storage.open_run(out, "generate", {"another": 1}, overwrite=True),
    ):
        pass
    os.kill(child, signal.SIGKILL)
    ended(child)
    with storage.open_run(out, "generate", {}):
        pass  # a kill leaves no stale lock


def test_f20_wait(holder: tuple[Path, int], capfd: pytest.CaptureFixture[str]) -> None:
    out, child = holder

    def wait() -> None:
        with storage.open_run(out, "generate", {}, wait=True) as run:
            storage.write_text(run.path / "waited", "")

    waiting = forked(wait)
    told = ""
    while "waiting" not in told:
        told += capfd.readouterr().err
        time.sleep(0.01)
    assert not (out / "waited").exists()
    os.kill(child, signal.SIGKILL)
    ended(child)
    assert ended(waiting) == 0
    assert (out / "waited").exists()
    told += capfd.readouterr().err
    assert told.count(f"in use by process {child}") == 1


def test_f20_a_worker_that_outlives_a_killed_holder_does_not_keep_the_lock(tmp_path: Path) -> None:
    told, ready = os.pipe()

    def work() -> None:
        os.write(ready, os.getpid().to_bytes(4, "big"))
        time.sleep(30)

    def hold() -> None:
        with storage.open_run(tmp_path / "run", "generate", {}):
            forked(work)
            time.sleep(30)

    child = forked(hold)
    worker = int.from_bytes(os.read(told, 4), "big")
    try:
        os.kill(child, signal.SIGKILL)
        ended(child)
        os.kill(worker, 0)
        with storage.open_run(tmp_path / "run", "generate", {}):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)
        os.close(told)
        os.close(ready)


def test_f20_a_forked_worker_leaves_the_lock_to_its_parent(tmp_path: Path) -> None:
    with storage.open_run(tmp_path / "run", "generate", {}) as run:
        assert ended(forked(run.close)) == 0
        assert (run.path / ".lock").exists()
        with pytest.raises(EnvironmentFault, match="in use"), storage.open_run(run.path, "generate", {}):
            pass


def test_f20_without_locks_an_intruder_is_noticed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    with storage.open_run(tmp_path / "run", "generate", {}) as first:
        assert "has no locks" in capsys.readouterr().err
        with storage.open_run(tmp_path / "run", "generate", {}) as second:
            with pytest.raises(EnvironmentFault, match="another process has written here"):
                first.finish([])
            second.finish([])
        with pytest.raises(EnvironmentFault, match="another process has written here"):
            first.finish([])


def test_f20_a_lock_on_a_file_that_has_gone_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The holder leaves, and another comes, between our opening of the file and our lock on it."""
    flock, rivals = fcntl.flock, []

    def late(descriptor: int, how: int) -> None:
        if not rivals:
            (tmp_path / "run" / ".lock").unlink()
            rivals.append(os.open(tmp_path / "run" / ".lock", os.O_RDWR | os.O_CREAT))
            flock(rivals[0], fcntl.LOCK_EX)
        flock(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(EnvironmentFault, match="in use"), storage.open_run(tmp_path / "run", "generate", {}):
        pass
    os.close(rivals[0])
    with storage.open_run(tmp_path / "run", "generate", {}):
        pass


def test_f20_a_lock_file_that_somebody_removed_does_not_cost_the_run(tmp_path: Path) -> None:
    with storage.open_run(tmp_path / "run", "generate", {}) as run:
        (run.path / ".lock").unlink()
        run.finish([])
    assert (tmp_path / "run" / storage.MANIFEST).exists()


def keys_of(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from keys_of(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from keys_of(inner, (*path, index))
    else:
        yield path


@pytest.mark.parametrize("path", list(keys_of(FINGERPRINT)), ids=lambda path: ".".join(map(str, path)))
def test_f21_each_key_refuses_and_is_named(path: tuple[object, ...], tmp_path: Path) -> None:
    with storage.open_run(tmp_path / "run", "generate", FINGERPRINT) as run:
        storage.write_text(run.path / "stays", "")
    changed = json.loads(json.dumps(FINGERPRINT))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    old, inner[path[-1]] = inner[path[-1]], "other"
    before = tree(tmp_path)
    dotted = ".".join(map(str, path)).replace(".", r"\.")
    with (
        pytest.raises(UsageFault, match=rf"{dotted}: {old!r} -> 'other'.*--new.*--overwrite") as raised,
        storage.open_run(tmp_path / "run", "generate", changed),
    ):
        pass
    assert "\n" not in str(raised.value)
    assert tree(tmp_path) == before
    with storage.open_run(tmp_path / "run", "generate", FINGERPRINT):
        pass


def test_f21_another_verb_or_a_key_more_or_less_refuses(tmp_path: Path) -> None:
    with storage.open_run(tmp_path / "run", "generate", {"a": 1}):
        pass
    for kind, fingerprint, text in (
        ("train", {"a": 1}, "kind: 'generate' -> 'train'"),
        ("generate", {}, "a: 1 -> absent"),
        ("generate", {"a": 1, "b": {"c": (1, 2)}}, r"b\.c: absent -> \[1, 2\]"),
        ("generate", {"a": 1.0}, r"a: 1 -> 1\.0"),
        ("generate", {f"k{n}": n for n in range(20)}, "and 15 more"),
    ):
        with pytest.raises(UsageFault, match=text), storage.open_run(tmp_path / "run", kind, fingerprint):
            pass


def test_f21_tuples_and_lists_are_the_same_configuration(tmp_path: Path) -> None:
    for sizes in ((1, 2), [1, 2]):
        with storage.open_run(tmp_path / "run", "generate", {"sizes": sizes, "empty": {}, "steps": ()}):
            pass


def test_f21_overwrite_moves_the_old_folder_aside(tmp_path: Path) -> None:
    for number in range(3):
        with storage.open_run(tmp_path / "run", "generate", {"n": number}, overwrite=True) as run:
            assert not (run.path / "file").exists()
            storage.write_text(run.path / "file", str(number))
    with storage.open_run(tmp_path / "run", "generate", {"n": 2}, overwrite=True) as run:
        assert (run.path / "file").read_text() == "2", "the same configuration is continued"
    found = {p.parent.name: p.read_text() for p in tmp_path.glob("*/file")}
    assert found == {"run.old-1": "0", "run.old-2": "1", "run": "2"}
    assert not list(tmp_path.rglob(".lock"))


def test_f21_new_takes_the_next_number(tmp_path: Path) -> None:
    names = []
    for number in range(3):
        with storage.open_run(tmp_path / "run", "generate", {"n": number}, new=True) as run:
            names.append(run.path.name)
    assert names == ["run", "run-2", "run-3"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_f21_a_folder_of_foreign_files_keeps_them(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years")
    with (
        pytest.raises(UsageFault, match=r"files that no run has made \(thesis.txt\)"),
        storage.open_run(tmp_path / "run", "generate", {}, overwrite=overwrite),
    ):
        pass
    assert tree(tmp_path) == {"run/thesis.txt": b"years"}
    with storage.open_run(tmp_path / "run", "generate", {}, new=True) as run:
        assert run.path.name == "run-2"


def test_f9_no_write_follows_a_link_inside_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    (tmp_path / "door").symlink_to(tmp_path / "run")
    with storage.open_run(tmp_path / "door", "generate", {}) as run:  # a link given by the user is fine
        (run.path / "masks").symlink_to(outside)
        for name in ("canary", "new", "deeper/new"):
            with pytest.raises(EnvironmentFault, match="links inside an output folder are not followed"):
                storage.write_text(run.path / "masks" / name, "dead")
        with pytest.raises(EnvironmentFault, match="climbs"):
            storage.write_text(run.path / "maps" / ".." / ".." / "outside" / "canary", "dead")
        (run.path / "summary.json").symlink_to(outside / "canary")
        storage.write_json(run.path / "summary.json", {})
        assert not (run.path / "summary.json").is_symlink()
        (run.path / storage.JOURNAL).symlink_to(outside / "canary")
        with pytest.raises(EnvironmentFault):
            run.record({"id": "a", "size": 0, "sha256": ""})
    assert tree(outside) == {"canary": b"alive"}


@pytest.mark.parametrize("item", ["", "/etc/x", "../x", "a/../../x", "a//b", ".", "a/.", "nul\0"])
def test_f9_an_id_that_names_a_file_elsewhere_is_refused(item: str, tmp_path: Path) -> None:
    with (
        storage.open_run(tmp_path / "run", "generate", {}) as run,
        pytest.raises(DataFault, match="makes no file name"),
    ):
        run.file("masks", item, ".png")


def test_the_manifest_is_in_list_order_and_keeps_what_another_list_has_done(tmp_path: Path) -> None:
    def add(run: storage.RunFolder, items: list[str]) -> None:
        for item in items:
            storage.write_bytes(run.path / "masks" / f"{item}.png", b"x")
            run.record({"sha256": storage.sha256_bytes(b"x"), "size": 1, "id": item})

    with storage.open_run(tmp_path / "run", "generate", {}) as run:
        add(run, ["c", "a", "b"])
        run.finish(["a", "b", "missing", "c"])
        assert not (run.path / storage.JOURNAL).exists()
    manifest = tmp_path / "run" / storage.MANIFEST
    assert [row["id"] for row in storage.read_json_lines(manifest)] == ["a", "b", "c"]
    with storage.open_run(tmp_path / "run", "generate", {}) as run:
        add(run, ["d"])
        run.finish(["d", "b"])
        assert list(run.finished()) == ["d", "b", "a", "c"]
        with pytest.raises(ValueError, match="twice"):
            run.finish(["d", "d"])
        with pytest.raises(ValueError, match="lacks sha256, size"):
            run.record({"id": "e"})
    (tmp_path / "run" / "masks" / "a.png").unlink()
    with storage.open_run(tmp_path / "run", "generate", {}) as run:
        run.finish(["d", "b", "a", "c"])
    assert [row["id"] for row in storage.read_json_lines(manifest)] == ["d", "b", "c"]
    manifest.write_bytes(b'{"id": 7}\n')
    with (
        pytest.raises(DataFault, match=r"manifest\.jsonl:1: is no manifest line"),
        storage.open_run(tmp_path / "run", "generate", {}),
    ):
        pass


def test_problems_of_finished_items_stay_and_others_are_found_anew(tmp_path: Path) -> None:
    for expected in (["ü.jpg"], ["a.jpg", "ü.jpg"]):
        with storage.open_run(tmp_path / "run", "generate", {}) as run:
            run.finished()
            if len(expected) == 1:
                run.problem("z.jpg", "damaged", "cut\nthere", "copy it")
                run.problem("ü.jpg", "flat_map", "constant", "look", item="ü")
                run.problem("ü.jpg", "flat_map", "constant", "look", item="ü")
                storage.write_bytes(run.path / "masks" / "ü.png", b"x")
                run.record({"id": "ü", "size": 1, "sha256": storage.sha256_bytes(b"x")})
                assert [row["file"] for row in run.problems] == ["z.jpg", "ü.jpg"]
            else:
                assert [row["file"] for row in run.problems] == ["ü.jpg"]
                run.problem("a.jpg", "missing", "no file", "look for it")
                run.finish(["a", "ü"])
        rows = storage.read_json_lines(tmp_path / "run" / storage.PROBLEMS)
        if len(expected) == 2:
            assert [row["file"] for row in rows] == expected
    assert rows[0] == {"file": "a.jpg", "code": "missing", "what": "no file", "remedy": "look for it"}


def test_what_is_forgotten_is_done_again_and_its_problems_go(tmp_path: Path) -> None:
    def add(run: storage.RunFolder, problem: bool) -> None:
        storage.write_bytes(run.path / "masks" / "a.png", b"x")
        if problem:
            run.problem("a.jpg", "flat_map", "constant", "look", item="a")
        run.record({"id": "a", "size": 1, "sha256": storage.sha256_bytes(b"x")})

    for finish in (False, True):
        out = tmp_path / str(finish)
        with storage.open_run(out, "generate", {}) as run:
            add(run, problem=True)
            if finish:
                run.finish(["a"])
        with storage.open_run(out, "generate", {}) as run:
            assert len(run.problems) == 0
            assert "a" in run.finished()
            assert len(run.problems) == 1
            run.forget("a")
            run.forget("never was")
            assert "a" not in run.finished()
            assert run.problems == ()
        with storage.open_run(out, "generate", {}) as run:
            assert "a" not in run.finished()
            add(run, problem=False)
        with storage.open_run(out, "generate", {}) as run:
            assert "a" in run.finished()
            assert run.problems == ()
            run.finish(["a"])
        assert (out / storage.PROBLEMS).read_bytes() == b""


def test_json_is_written_with_fixed_settings(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "x.json", {"b": (1, 2.5), "a": "ü\u2028\udc80", "c": None})
    text = (tmp_path / "x.json").read_bytes()
    assert text == b'{\n "a": "\\u00fc\\u2028\\udc80",\n "b": [\n  1,\n  2.5\n ],\n "c": null\n}\n'
    assert storage.read_json(tmp_path / "x.json") == {"a": "ü\u2028\udc80", "b": [1, 2.5], "c": None}
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"y\.json: a: b\[1\]: .* cannot be written"):
            storage.write_json(tmp_path / "y.json", {"a": {"b": [0, value]}})
        with pytest.raises(ValueError):
            storage.digest({"a": value})
    assert not (tmp_path / "y.json").exists()


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"a": 1}\n{"a": ')
    with pytest.raises(DataFault, match=r"bad\.json: is not JSON"):
        storage.read_json(tmp_path / "bad.json")
    with pytest.raises(DataFault, match=r"bad\.json:2: is not JSON"):
        storage.read_json_lines(tmp_path / "bad.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(DataFault, match="is not JSON"):
        storage.read_json(tmp_path / "deep.json")
    for read in (storage.read_json, storage.read_json_lines, storage.sha256_file):
        with pytest.raises(DataFault, match="gone: is no file"):
            read(tmp_path / "gone")
        with pytest.raises(DataFault, match="is no file"):
            read(tmp_path)


def test_digests(tmp_path: Path) -> None:
    assert storage.digest({"b": (1, 2), "a": 1.5}) == storage.digest({"a": 1.5, "b": [1, 2]})
    assert storage.digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    assert storage.digest({"a": 1}) != storage.digest({"a": 1.0})
    data = bytes(range(256)) * 5000
    storage.write_bytes(tmp_path / "x", bytearray(data))
    assert (
        storage.sha256_file(tmp_path / "x") == storage.sha256_bytes(data) == hashlib.sha256(data).hexdigest()
    )


def test_text_keeps_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    storage.write_text(tmp_path / "list.txt", b"a\xff\r\n".decode("utf-8", "surrogateescape"))
    assert (tmp_path / "list.txt").read_bytes() == b"a\xff\r\n"
