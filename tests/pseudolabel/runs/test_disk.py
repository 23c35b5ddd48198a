"""Files under kills and failing disks; what is written and read back."""

from __future__ import annotations

import collections
import errno
import hashlib
import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pseudolabel.errors import DataError, MachineError
from pseudolabel.runs import disk, fault_plan, layout, writing
from tests.pseudolabel.small_run import (
    FINGERPRINT,
    IDS,
    _quick,  # noqa: F401
    do_run,
    ended,
    forked,
    mask_of,
    planned,
    tree,
)

ERRORS = ("ENOSPC", "EDQUOT", "EACCES", "EROFS", "EIO")


@pytest.fixture
def reference(tmp_path: Path) -> dict[str, bytes]:
    do_run(tmp_path / "reference")
    return tree(tmp_path / "reference")


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "bytes": lambda path, version: disk.write_bytes(path, bytes([version]) * 999),
    "text": lambda path, version: disk.write_text(path, f"{version}\n" * 99),
    "json": lambda path, version: disk.write_json(path, {"version": version, "rows": list(range(99))}),
    "lines": lambda path, version: disk.write_json_lines(path, ({"version": version} for _ in range(5))),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_left_at_every_operation_a_file_is_the_old_or_the_new_one(kind: str, tmp_path: Path) -> None:
    write = WRITERS[kind]
    write(tmp_path / "1", 1)
    write(tmp_path / "2", 2)
    old, new = (tmp_path / "1").read_bytes(), (tmp_path / "2").read_bytes()
    assert old != new
    contents = set()
    for n in range(1, 100):
        place = tmp_path / "deep" / "er" / "file"
        fresh = tmp_path / f"fresh{n}" / "file"
        for path, allowed in ((place, (old, new)), (fresh, (None, new))):
            if path is place:
                write(path, 1)
            status = ended(forked(planned(f"write:{n}:exit", lambda path=path: write(path, 2))))  # type: ignore[misc]
            assert status in (fault_plan.LEFT, 0)
            content = path.read_bytes() if path.exists() else None
            assert content in allowed
            contents.add((path is fresh, content))
        if status == 0:
            break
    assert n > 6, "the plan must strike at every step of a write"
    assert contents == {(False, old), (False, new), (True, None), (True, new)}


def test_a_run_left_at_every_operation_continues_to_the_same_bytes(
    tmp_path: Path, reference: dict[str, bytes]
) -> None:
    for n in range(1, 500):
        out = tmp_path / str(n)
        status = ended(forked(planned(f"write:{n}:exit", lambda out=out: do_run(out))))  # type: ignore[misc]
        if status == 0:
            break
        assert status == fault_plan.LEFT
        complete = [item for item in IDS if (out / "masks" / f"{item}.png").exists()]
        assert all((out / "masks" / f"{item}.png").read_bytes() == mask_of(item) for item in complete)
        done = do_run(out)
        assert len(IDS) - len(complete) <= done <= len(IDS) - len(complete) + 1, (
            "only a mask without line is redone"
        )
        assert tree(out) == reference
    assert n > 40


def test_synced_in_the_order_that_outlasts_a_power_cut(
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
    disk.write_bytes(tmp_path / "masks" / "a.png", b"12345")
    assert steps == [("sync", tmp_path.name), ("sync", "5"), ("rename", "a.png"), ("sync", "masks")]


def test_killed_at_random_moments_a_run_continues_to_the_same_bytes(tmp_path: Path) -> None:
    target = tmp_path / "run" / "file.json"

    def work() -> None:
        with writing.open_run(tmp_path / "run", "generate", {}):
            version = 0
            while True:
                version += 1
                disk.write_json(target, {"version": version, "rows": [version] * 5000})

    for pause in (0.02, 0.021, 0.023, 0.03, 0.041, 0.05, 0.067, 0.08):
        child = forked(work)
        time.sleep(pause)
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        if target.exists():
            content = json.loads(target.read_bytes())
            assert set(content["rows"]) == {content["version"]}
    with writing.open_run(tmp_path / "run", "generate", {}):
        assert not list((tmp_path / "run").rglob(".tmp-*")), "leftovers are swept at the next start"


def test_only_temporaries_are_swept_and_links_are_not_followed(tmp_path: Path) -> None:
    with writing.open_run(tmp_path / "run", "generate", {}) as run:
        disk.write_text(run.path / "masks" / "keep", "")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / ".tmp-1-1").touch()
    (tmp_path / "run" / "link").symlink_to(outside)
    for name in (".tmp-12-3", "masks/.tmp-7-7", ".tmp-mine", "masks/.tmp-1-1.txt"):
        (tmp_path / "run" / name).touch()
    with writing.open_run(tmp_path / "run", "generate", {}):
        pass
    left = {str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert left == {"fingerprint.json", ".tmp-mine", "masks/.tmp-1-1.txt", "masks/keep"}
    assert (outside / ".tmp-1-1").exists()


def test_existence_alone_never_counts_as_done(tmp_path: Path) -> None:
    do_run(tmp_path / "run")
    masks = tmp_path / "run" / "masks"
    (masks / "a b.png").write_bytes(mask_of("a b")[:-1] + b"!")
    (masks / "stray.png").write_bytes(b"?")
    with writing.open_run(tmp_path / "run", "generate", FINGERPRINT) as run:
        assert list(run.finished()) == ["ü"]
    (masks / "a b.png").write_bytes(mask_of("a b")[:-1])
    (masks / "ü.png").rename(tmp_path / "ü.png")
    (masks / "ü.png").symlink_to(tmp_path / "ü.png")
    with writing.open_run(tmp_path / "run", "generate", FINGERPRINT) as run:
        assert dict(run.finished()) == {}
        assert run.problems == ()


def test_further_files_of_an_item_are_verified_too(tmp_path: Path) -> None:
    with writing.open_run(tmp_path / "run", "generate", {}) as run:
        disk.write_bytes(run.path / "masks" / "a.png", b"mask")
        disk.write_bytes(run.path / "maps" / "a.safetensors", b"maps")
        known = {"size": 4, "sha256": disk.sha256_bytes(b"maps")}
        line = {"id": "a", "size": 4, "sha256": disk.sha256_bytes(b"mask"), "labels": [1, 2]}
        run.record({**line, "files": {"maps/a.safetensors": known}})
    with writing.open_run(tmp_path / "run", "generate", {}) as run:
        assert run.finished()["a"]["labels"] == [1, 2]
    (tmp_path / "run" / "maps" / "a.safetensors").write_bytes(b"maqs")
    with writing.open_run(tmp_path / "run", "generate", {}) as run:
        assert "a" not in run.finished()


def test_a_journal_cut_at_every_byte_loses_one_item_at_most(tmp_path: Path) -> None:
    lines = []
    with writing.open_run(tmp_path / "run", "generate", {}) as run:
        for item in IDS:
            disk.write_bytes(run.path / "masks" / f"{item}.png", b"x")
            run.record({"id": item, "size": 1, "sha256": disk.sha256_bytes(b"x")})
        journal = tmp_path / "run" / layout.JOURNAL
        intact = journal.read_bytes()
    lines = intact.splitlines(keepends=True)
    for cut in range(0, len(intact) + 1, 7):
        journal.write_bytes(intact[:cut])
        expected = [item for k, item in enumerate(IDS) if len(b"".join(lines[: k + 1])) <= cut]
        with writing.open_run(tmp_path / "run", "generate", {}) as run:
            assert list(run.finished()) == expected
            run.record({"id": "new", "size": 1, "sha256": ""})
        assert [json.loads(line)["id"] for line in journal.read_bytes().splitlines()] == [*expected, "new"]


@pytest.mark.parametrize("name", ERRORS)
def test_a_failing_operation_ends_the_run_and_loses_nothing(
    name: str, tmp_path: Path, reference: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = os.strerror(getattr(errno, name))
    for n in range(1, 500):
        out = tmp_path / str(n)
        monkeypatch.setenv(fault_plan.VARIABLE, f"write:{n}:{name}")
        message = ""
        try:
            do_run(out)
        except MachineError as fault:
            message = str(fault)
        monkeypatch.delenv(fault_plan.VARIABLE)
        fault_plan.trip("write")  # forgets the plan
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


def test_a_disk_that_is_really_full_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    disk.write_bytes(tmp_path / "old", b"old")

    def work() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        with pytest.raises(MachineError, match=r"old: cannot be written: File too large \(EFBIG\); raise"):
            disk.write_bytes(tmp_path / "old", b"new" * 10_000)
        with writing.open_run(tmp_path / "run", "generate", {}) as run:
            line = {"id": "0", "size": 0, "sha256": "0" * 64}
            with pytest.raises(MachineError, match="journal"):
                collections.deque(run.record(line) for _ in range(10_000))
            lines = (run.path / layout.JOURNAL).read_bytes()
            assert lines.endswith(b"\n"), "what does not fit leaves no half line"

    assert ended(forked(work)) == 0
    assert (tmp_path / "old").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["old", "run"]


def test_a_file_where_a_folder_should_be_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with (
        pytest.raises(MachineError, match="a file stands where a folder is needed"),
        writing.open_run(tmp_path / "file" / "run", "generate", {}),
    ):
        pass
    with (
        pytest.raises(MachineError, match="a file stands where a folder is needed"),
        writing.open_run(tmp_path / "file", "generate", {}),
    ):
        pass
    with pytest.raises(MachineError, match="use shorter names"):
        disk.write_text(tmp_path / ("n" * 300), "x")
    assert (tmp_path / "file").read_text() == "x"


def test_a_name_as_long_as_the_system_allows(tmp_path: Path) -> None:
    disk.write_text(tmp_path / ("n" * 255), "x")
    assert (tmp_path / ("n" * 255)).read_text() == "x"


def test_json_is_written_with_fixed_settings(tmp_path: Path) -> None:
    disk.write_json(tmp_path / "x.json", {"b": (1, 2.5), "a": "ü\u2028\udc80", "c": None})
    text = (tmp_path / "x.json").read_bytes()
    assert text == b'{\n "a": "\\u00fc\\u2028\\udc80",\n "b": [\n  1,\n  2.5\n ],\n "c": null\n}\n'
    assert disk.read_json(tmp_path / "x.json") == {"a": "ü\u2028\udc80", "b": [1, 2.5], "c": None}
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=r"y\.json: a: b\[1\]: .* cannot be written"):
            disk.write_json(tmp_path / "y.json", {"a": {"b": [0, value]}})
        with pytest.raises(ValueError):
            disk.digest({"a": value})
    assert not (tmp_path / "y.json").exists()


def test_reading_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"a": 1}\n{"a": ')
    with pytest.raises(DataError, match=r"bad\.json: is not JSON"):
        disk.read_json(tmp_path / "bad.json")
    with pytest.raises(DataError, match=r"bad\.json:2: is not JSON"):
        disk.read_json_lines(tmp_path / "bad.json")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match="is not JSON"):
        disk.read_json(tmp_path / "deep.json")
    for read in (disk.read_json, disk.read_json_lines, disk.sha256_file):
        with pytest.raises(DataError, match="gone: is no file"):
            read(tmp_path / "gone")
        with pytest.raises(DataError, match="is no file"):
            read(tmp_path)


def test_digests(tmp_path: Path) -> None:
    assert disk.digest({"b": (1, 2), "a": 1.5}) == disk.digest({"a": 1.5, "b": [1, 2]})
    assert disk.digest({"a": 1}) == hashlib.sha256(b'{"a":1}').hexdigest()
    assert disk.digest({"a": 1}) != disk.digest({"a": 1.0})
    data = bytes(range(256)) * 5000
    disk.write_bytes(tmp_path / "x", bytearray(data))
    assert disk.sha256_file(tmp_path / "x") == disk.sha256_bytes(data) == hashlib.sha256(data).hexdigest()


def test_text_keeps_bytes_that_are_no_utf8(tmp_path: Path) -> None:
    disk.write_text(tmp_path / "list.txt", b"a\xff\r\n".decode("utf-8", "surrogateescape"))
    assert (tmp_path / "list.txt").read_bytes() == b"a\xff\r\n"
