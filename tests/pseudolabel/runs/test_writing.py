"""What a run folder refuses, keeps and lists, the manifest, the problems."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pseudolabel.errors import DataError, MachineError, UsageError
from pseudolabel.runs import disk, layout, writing
from tests.pseudolabel.small_run import (
    FINGERPRINT,
    _quick,  # noqa: F401
    tree,
)


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
def test_each_key_refuses_and_is_named(path: tuple[object, ...], tmp_path: Path) -> None:
    with writing.open_run(tmp_path / "run", "generate", FINGERPRINT) as run:
        disk.write_text(run.path / "stays", "")
    changed = json.loads(json.dumps(FINGERPRINT))
    inner = changed
    for key in path[:-1]:
        inner = inner[key]
    old, inner[path[-1]] = inner[path[-1]], "other"
    before = tree(tmp_path)
    dotted = ".".join(map(str, path)).replace(".", r"\.")
    with (
        pytest.raises(UsageError, match=rf"{dotted}: {old!r} -> 'other'.*--new.*--overwrite") as raised,
        writing.open_run(tmp_path / "run", "generate", changed),
    ):
        pass
    assert "\n" not in str(raised.value)
    assert tree(tmp_path) == before
    with writing.open_run(tmp_path / "run", "generate", FINGERPRINT):
        pass


def test_another_command_or_a_key_more_or_less_refuses(tmp_path: Path) -> None:
    with writing.open_run(tmp_path / "run", "generate", {"a": 1}):
        pass
    for kind, fingerprint, text in (
        ("train", {"a": 1}, "kind: 'generate' -> 'train'"),
        ("generate", {}, "a: 1 -> absent"),
        ("generate", {"a": 1, "b": {"c": (1, 2)}}, r"b\.c: absent -> \[1, 2\]"),
        ("generate", {"a": 1.0}, r"a: 1 -> 1\.0"),
        ("generate", {f"k{n}": n for n in range(20)}, "and 15 more"),
    ):
        with pytest.raises(UsageError, match=text), writing.open_run(tmp_path / "run", kind, fingerprint):
            pass


def test_tuples_and_lists_are_the_same_configuration(tmp_path: Path) -> None:
    for sizes in ((1, 2), [1, 2]):
        with writing.open_run(tmp_path / "run", "generate", {"sizes": sizes, "empty": {}, "steps": ()}):
            pass


def test_overwrite_moves_the_old_folder_aside(tmp_path: Path) -> None:
    for number in range(3):
        with writing.open_run(tmp_path / "run", "generate", {"n": number}, overwrite=True) as run:
            assert not (run.path / "file").exists()
            disk.write_text(run.path / "file", str(number))
    with writing.open_run(tmp_path / "run", "generate", {"n": 2}, overwrite=True) as run:
        assert (run.path / "file").read_text() == "2", "the same configuration is continued"
    files = {p.parent.name: p.read_text() for p in tmp_path.glob("*/file")}
    assert files == {"run.old-1": "0", "run.old-2": "1", "run": "2"}
    assert not list(tmp_path.rglob(".lock"))


def test_new_takes_the_next_number(tmp_path: Path) -> None:
    names = []
    for number in range(3):
        with writing.open_run(tmp_path / "run", "generate", {"n": number}, new=True) as run:
            names.append(run.path.name)
    assert names == ["run", "run-2", "run-3"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_foreign_files_keeps_them(overwrite: bool, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years")
    with (
        pytest.raises(UsageError, match=r"files that no run has made \(thesis.txt\)"),
        writing.open_run(tmp_path / "run", "generate", {}, overwrite=overwrite),
    ):
        pass
    assert tree(tmp_path) == {"run/thesis.txt": b"years"}
    with writing.open_run(tmp_path / "run", "generate", {}, new=True) as run:
        assert run.path.name == "run-2"


def test_no_write_follows_a_link_inside_the_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    (tmp_path / "door").symlink_to(tmp_path / "run")
    with writing.open_run(tmp_path / "door", "generate", {}) as run:  # a link given by the user is fine
        (run.path / "masks").symlink_to(outside)
        for name in ("canary", "new", "deeper/new"):
            with pytest.raises(MachineError, match="links inside an output folder are not followed"):
                disk.write_text(run.path / "masks" / name, "dead")
        with pytest.raises(MachineError, match="climbs"):
            disk.write_text(run.path / "maps" / ".." / ".." / "outside" / "canary", "dead")
        (run.path / "summary.json").symlink_to(outside / "canary")
        disk.write_json(run.path / "summary.json", {})
        assert not (run.path / "summary.json").is_symlink()
        (run.path / layout.JOURNAL).symlink_to(outside / "canary")
        with pytest.raises(MachineError):
            run.record({"id": "a", "size": 0, "sha256": ""})
    assert tree(outside) == {"canary": b"alive"}


@pytest.mark.parametrize("item", ["", "/etc/x", "../x", "a/../../x", "a//b", ".", "a/.", "nul\0"])
def test_an_id_that_names_a_file_elsewhere_is_refused(item: str, tmp_path: Path) -> None:
    with (
        writing.open_run(tmp_path / "run", "generate", {}) as run,
        pytest.raises(DataError, match="makes no file name"),
    ):
        disk.write_bytes(run.path / layout.mask_file(item), b"x")


def test_the_manifest_is_in_list_order_and_keeps_what_another_list_has_done(tmp_path: Path) -> None:
    def add(run: writing.RunFolder, items: list[str]) -> None:
        for item in items:
            disk.write_bytes(run.path / "masks" / f"{item}.png", b"x")
            run.record({"sha256": disk.sha256_bytes(b"x"), "size": 1, "id": item})

    with writing.open_run(tmp_path / "run", "generate", {}) as run:
        add(run, ["c", "a", "b"])
        run.complete(["a", "b", "missing", "c"])
        assert not (run.path / layout.JOURNAL).exists()
    manifest = tmp_path / "run" / layout.MANIFEST
    assert [row["id"] for row in disk.read_json_lines(manifest)] == ["a", "b", "c"]
    with writing.open_run(tmp_path / "run", "generate", {}) as run:
        add(run, ["d"])
        run.complete(["d", "b"])
        assert list(run.finished()) == ["d", "b", "a", "c"]
        with pytest.raises(ValueError, match="twice"):
            run.complete(["d", "d"])
        with pytest.raises(ValueError, match="lacks sha256, size"):
            run.record({"id": "e"})
    (tmp_path / "run" / "masks" / "a.png").unlink()
    with writing.open_run(tmp_path / "run", "generate", {}) as run:
        run.complete(["d", "b", "a", "c"])
    assert [row["id"] for row in disk.read_json_lines(manifest)] == ["d", "b", "c"]
    manifest.write_bytes(b'{"id": 7}\n')
    with (
        pytest.raises(DataError, match=r"manifest\.jsonl:1: is no manifest line"),
        writing.open_run(tmp_path / "run", "generate", {}),
    ):
        pass


def test_problems_of_finished_items_stay_and_others_are_found_anew(tmp_path: Path) -> None:
    for expected in (["ü.jpg"], ["a.jpg", "ü.jpg"]):
        with writing.open_run(tmp_path / "run", "generate", {}) as run:
            run.finished()
            if len(expected) == 1:
                run.problem("z.jpg", "damaged", "cut\nthere", "copy it")
                run.problem("ü.jpg", "flat_map", "constant", "look", item="ü")
                run.problem("ü.jpg", "flat_map", "constant", "look", item="ü")
                disk.write_bytes(run.path / "masks" / "ü.png", b"x")
                run.record({"id": "ü", "size": 1, "sha256": disk.sha256_bytes(b"x")})
                assert [row["file"] for row in run.problems] == ["z.jpg", "ü.jpg"]
            else:
                assert [row["file"] for row in run.problems] == ["ü.jpg"]
                run.problem("a.jpg", "missing", "no file", "look for it")
                run.complete(["a", "ü"])
        rows = disk.read_json_lines(tmp_path / "run" / layout.PROBLEMS)
        if len(expected) == 2:
            assert [row["file"] for row in rows] == expected
    assert rows[0] == {"file": "a.jpg", "code": "missing", "what": "no file", "remedy": "look for it"}


def test_what_is_forgotten_is_done_again_and_its_problems_go(tmp_path: Path) -> None:
    def add(run: writing.RunFolder, problem: bool) -> None:
        disk.write_bytes(run.path / "masks" / "a.png", b"x")
        if problem:
            run.problem("a.jpg", "flat_map", "constant", "look", item="a")
        run.record({"id": "a", "size": 1, "sha256": disk.sha256_bytes(b"x")})

    for complete in (False, True):
        out = tmp_path / str(complete)
        with writing.open_run(out, "generate", {}) as run:
            add(run, problem=True)
            if complete:
                run.complete(["a"])
        with writing.open_run(out, "generate", {}) as run:
            assert len(run.problems) == 0
            assert "a" in run.finished()
            assert len(run.problems) == 1
            run.forget("a")
            run.forget("never was")
            assert "a" not in run.finished()
            assert run.problems == ()
        with writing.open_run(out, "generate", {}) as run:
            assert "a" not in run.finished()
            add(run, problem=False)
        with writing.open_run(out, "generate", {}) as run:
            assert "a" in run.finished()
            assert run.problems == ()
            run.complete(["a"])
        assert (out / layout.PROBLEMS).read_bytes() == b""
