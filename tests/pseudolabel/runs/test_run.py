"""`Run`: a finished run, only read; what is missing, changed or no run is said in one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import pseudolabel
from pseudolabel.errors import DataError, UsageError
from pseudolabel.masks import encode_mask
from pseudolabel.records import LabelSpace, Scores
from pseudolabel.runs import disk, layout, writing
from pseudolabel.runs.maps import encode_maps, read_maps
from pseudolabel.runs.run import Run

NAMES = ("background", "cat", "traffic light")
IDS = ("cat 1", "zoo/007", "ü")


def mask_of(item: str) -> np.ndarray:
    return np.full((3, 4), IDS.index(item), np.uint8)


def scores_of(item: str) -> list[Scores]:
    values = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4) + IDS.index(item)
    return [Scores((1, 2), values), Scores((1, 2), -values)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three images, the last without maps; a fourth could not be read."""
    with writing.open_run(tmp_path / "run", "generate", {"recipe": {"seed": 0}}) as run:
        disk.write_text(run.path / layout.CLASSES, LabelSpace(NAMES).text())
        disk.write_json(run.path / layout.SUMMARY, {"images": 3})
        for item in IDS:
            data = encode_mask(mask_of(item))
            disk.write_bytes(run.path / layout.mask_file(item), data)
            line = {"id": item, "labels": [1, 2], "size": len(data), "sha256": disk.sha256_bytes(data)}
            if item != "ü":
                maps = encode_maps((1, 2), scores_of(item))
                disk.write_bytes(run.path / layout.maps_file(item), maps)
                about = {"size": len(maps), "sha256": disk.sha256_bytes(maps)}
                line["files"] = {layout.maps_file(item): about}
            run.record(line)
        run.problem("broken", "unreadable", "no image", "mend it")
        run.problem("cat 1", "flat_map", "constant", "look at it", item="cat 1")
        run.complete([*IDS, "broken"])
    return tmp_path / "run"


def test_gives_what_the_folder_holds(folder: Path) -> None:
    run = pseudolabel.Run.open(str(folder))
    assert type(run) is Run
    assert (run.path, run.ids, run.classes.names) == (folder, IDS, NAMES)
    assert run.listed == {*IDS, "broken"}
    assert run.summary == {"images": 3}
    assert run.fingerprint == {"kind": "generate", "format": 1, "recipe": {"seed": 0}}
    assert {row["code"] for row in run.problems} == {"unreadable", "flat_map"}
    for item in IDS:
        for verify in (False, True):
            np.testing.assert_array_equal(run.mask(item, verify=verify), mask_of(item))
            if item != "ü":
                for stored, scores in zip(run.maps(item, verify=verify), scores_of(item), strict=True):
                    assert stored.ids == scores.ids
                    assert torch.equal(stored.values, scores.values)
    assert list(run.manifest) == [line["id"] for line in run.manifest.lines()]
    assert all(run.manifest[line["id"]] == line for line in run.manifest.lines())


def test_nothing_is_written_and_torch_is_not_loaded(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    code = (
        "import sys, pseudolabel; run = pseudolabel.Run.open(sys.argv[1]); run.mask(run.ids[0], verify=True);"
        "run.classes, run.problems, run.summary, run.digest(); print('torch' in sys.modules)"
    )
    output = subprocess.check_output([sys.executable, "-c", code, str(folder)], text=True)
    assert output.strip() == "False"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_what_is_missing_or_changed_is_said(folder: Path) -> None:
    run = Run.open(folder)
    with pytest.raises(DataError, match=r"run: has no mask of 'dog'; see problems\.jsonl"):
        run.mask("dog")
    with pytest.raises(DataError, match=r"maps/ü\.safetensors: no stored maps of this image; `pl generate"):
        run.maps("ü")
    (folder / layout.mask_file("ü")).write_bytes(encode_mask(mask_of("cat 1")))
    assert not run.mask("ü").any()
    with pytest.raises(DataError, match=r"masks/ü\.png: has changed since the run made it"):
        run.mask("ü", verify=True)
    (folder / layout.mask_file("ü")).unlink()
    with pytest.raises(DataError, match=r"masks/ü\.png: is missing; run the same command again"):
        run.mask("ü")
    maps = folder / layout.maps_file("zoo/007")
    maps.write_bytes(encode_maps((1, 2), scores_of("cat 1")))
    assert torch.equal(run.maps("zoo/007")[0].values, scores_of("cat 1")[0].values)
    with pytest.raises(DataError, match=r"zoo/007\.safetensors: has changed since the run made it"):
        run.maps("zoo/007", verify=True)
    maps.write_bytes(b"no tensors")
    with pytest.raises(DataError, match="cannot be read as stored maps"):
        run.maps("zoo/007")
    with pytest.raises(UsageError, match=r"no recipe\.yaml, so nothing says what images"):
        _ = run.recipe
    with pytest.raises(DataError, match="cannot be read as stored maps"):
        read_maps(folder / "nowhere")


def test_what_is_no_finished_run_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere: is no folder; give a run of `pl generate`"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(UsageError, match=r"no manifest\.jsonl and no recipe\.yaml, so this is no run"):
        Run.open(tmp_path)
    with writing.open_run(tmp_path / "predicted", "seg predict", {}, items=".") as other:
        other.complete([])
    with pytest.raises(UsageError, match="made by 'seg predict'; give a run of `pl generate`"):
        Run.open(tmp_path / "predicted")
    lines = (folder / layout.MANIFEST).read_text().splitlines(keepends=True)
    for text, message in (
        ("[1]\n", r"manifest\.jsonl:4: is no manifest line"),
        ('{"id": "a"}\n', r"manifest\.jsonl:4: is no manifest line"),
        ('{"id": "a", "sha25', r"manifest\.jsonl:4: is no manifest line"),
        (lines[0], r"manifest\.jsonl:4: 'cat 1' stands twice"),
    ):
        (folder / layout.MANIFEST).write_text("".join([*lines, text]))
        with pytest.raises(DataError, match=message):
            Run.open(folder)
    (folder / layout.MANIFEST).unlink()
    with pytest.raises(DataError, match=r"no manifest\.jsonl, so the run is not finished"):
        Run.open(folder)


def test_the_digest_changes_with_masks_and_on_request_with_maps(folder: Path) -> None:
    run = Run.open(folder)
    plain, full = run.digest(), run.digest(maps=True)
    assert plain != full
    lines = [json.loads(line) for line in (folder / layout.MANIFEST).read_text().splitlines()]
    lines[0]["files"][layout.maps_file("cat 1")]["sha256"] = "0" * 64
    disk.write_json_lines(folder / layout.MANIFEST, lines)
    changed = Run.open(folder)
    assert changed.digest() == plain
    assert changed.digest(maps=True) != full


@pytest.mark.parametrize(
    "text",
    ["background\ncat\nred dog\n", "\ufeffbackground\r\ncat \r\n red dog", "background\ncat\nred dog\n\n \n"],
)
def test_a_class_list_is_read_in_one_way(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.txt").write_bytes(text.encode())
    space = LabelSpace.read(tmp_path / "classes.txt")
    assert space.names == ("background", "cat", "red dog")
    disk.write_text(tmp_path / "again.txt", space.text())
    assert LabelSpace.read(tmp_path / "again.txt") == space
    for name in (" cat", "cat\t", "a\nb", "a\u2028b"):
        with pytest.raises(DataError, match="blanks at its ends or a line break"):
            LabelSpace(("background", name))
