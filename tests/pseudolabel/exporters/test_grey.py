"""`pl export --to grey`, read back as the trainers read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import pseudolabel
from pseudolabel import masks, registry
from pseudolabel.errors import DataError, MachineError, UsageError
from pseudolabel.records import ExportItem, LabelSpace
from pseudolabel.runs import disk, layout, writing

NAMES = ("background", "cat", "dog")
TRUE: dict[str, NDArray[np.uint8]] = {
    "2007_000032": np.kron(np.array([[0, 1], [2, 255]], np.uint8), np.ones((5, 7), np.uint8)),
    "ü b": np.zeros((1, 3), np.uint8),
    "-x": np.full((4, 2), 255, np.uint8),
}


def make_run(folder: Path, complete: bool = True) -> Path:
    with writing.open_run(folder, "generate", {"recipe": 1}) as run:
        disk.write_text(run.path / "classes.txt", "".join(f"{name}\n" for name in NAMES))
        for item, mask in TRUE.items():
            data = masks.encode_mask(mask)
            disk.write_bytes(run.path / "masks" / f"{item}.png", data)
            run.record({"id": item, "size": len(data), "sha256": disk.sha256_bytes(data)})
        if complete:
            run.complete(list(TRUE))
    return folder


def test_masks_come_back_through_every_readers_call(tmp_path: Path) -> None:
    exported = pseudolabel.export(make_run(tmp_path / "run"), tmp_path / "out", quiet=True)
    assert (exported.images, exported.problems, exported.lost) == (3, 0, [])
    assert json.loads(json.dumps(exported.as_dict()))["wrote"]["images"] == 3
    for item, mask in TRUE.items():
        path = tmp_path / "out" / "masks" / f"{item}.png"
        with Image.open(path) as image:
            assert image.mode == "L"
            assert (np.array(image) == mask).all()
            assert (np.array(image.convert("L")) == mask).all()
            assert (np.array(image.convert("RGB"))[:, :, 0] == mask).all(), "as OpenCV's default reads it"
        head = path.read_bytes()[24:26]
        assert head == b"\x08\x00", "8 bits, grey: minimal readers know nothing else"
    assert (tmp_path / "out" / "list.txt").read_bytes() == "2007_000032\nü b\n-x\n".encode()
    assert (tmp_path / "out" / "classes.txt").read_text() == "background\ncat\ndog\n"
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["numbering"].startswith("B0")
    assert about["classes"] == list(NAMES)
    assert (about["foreground"], about["ignore"], about["images"]) == (2, 255, 3)
    assert about["pixels"] == {"background": 38, "cat": 35, "dog": 35}
    assert about["pixels_ignored"] == 43
    assert about["sizes"] == {item: list(mask.shape) for item, mask in TRUE.items()}


def test_the_same_export_is_done_again_and_another_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    pseudolabel.export(run, tmp_path / "out", quiet=True)
    (tmp_path / "out" / "masks" / "-x.png").unlink()
    pseudolabel.export(run, tmp_path / "out", quiet=True)
    assert (tmp_path / "out" / "masks" / "-x.png").exists()
    disk.write_text(run / "classes.txt", "background\nhorse\ncow\n")
    with pytest.raises(
        UsageError, match=r"classes: \['background', 'cat', 'dog'\] -> \['background', 'horse'"
    ):
        pseudolabel.export(run, tmp_path / "out", quiet=True)
    pseudolabel.export(run, tmp_path / "out", overwrite=True, quiet=True)
    assert (tmp_path / "out.old-1" / "about.json").exists()
    for place in (run, run / "inside"):
        with pytest.raises(UsageError, match="lies in the run"):
            pseudolabel.export(run, place, quiet=True)


def test_a_run_that_lacks_something_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        pseudolabel.export(tmp_path / "gone", tmp_path / "out", quiet=True)
    with pytest.raises(UsageError, match=r"'gray' is not known; did you mean 'grey'\?"):
        pseudolabel.export(tmp_path / "gone", tmp_path / "out", to="gray", quiet=True)
    with pytest.raises(DataError, match="the run is not finished"):
        pseudolabel.export(make_run(tmp_path / "half", complete=False), tmp_path / "out", quiet=True)
    run = make_run(tmp_path / "run")
    mask = run / "masks" / "-x.png"
    masks.write_mask(mask, TRUE["ü b"])
    with pytest.raises(DataError, match=r"-x\.png: has changed since the run made it"):
        pseudolabel.export(run, tmp_path / "out", quiet=True)
    mask.unlink()
    with pytest.raises(DataError, match=r"-x\.png: is missing"):
        pseudolabel.export(run, tmp_path / "out2", quiet=True)
    (run / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt: there is no such file"):
        pseudolabel.export(run, tmp_path / "out3", quiet=True)
    disk.write_text(run / layout.MANIFEST, '{"id": "a"}\n')
    with pytest.raises(DataError, match=r"manifest\.jsonl:1: is no manifest line"):
        pseudolabel.export(run, tmp_path / "out3", quiet=True)
    disk.write_text(run / layout.MANIFEST, "")
    with pytest.raises(DataError, match="lists no mask"):
        pseudolabel.export(run, tmp_path / "out3", quiet=True)
    assert not (tmp_path / "out3").exists()


def test_problems_of_the_run_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    disk.write_json_lines(run / layout.PROBLEMS, [{"file": "x.jpg", "code": "damaged"}])
    assert pseudolabel.export(run, tmp_path / "out", quiet=True).problems == 1
    assert "names 1 problems" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (["../x"], "makes no file name"),
        (["/x"], "makes no file name"),
        ([""], "makes no file name"),
        (["a\nb"], "makes no line of a list"),
        (["a\u2028b"], "makes no line of a list"),
        ([" a"], "makes no line of a list"),
        (["a", "A"], "'a' and 'A' meet in one file name"),
        (["\u00e9", "e\u0301"], "meet in one file name"),
    ],
)
def test_ids_that_make_no_file_or_line_of_their_own_are_refused(
    items: list[str], text: str, tmp_path: Path
) -> None:
    grey = registry.get("exporters", "grey")
    mask = np.zeros((2, 2), np.uint8)
    with pytest.raises((DataError, MachineError), match=text):
        grey.run(
            (ExportItem(item, (), mask) for item in items), LabelSpace(NAMES), tmp_path / "out", grey.params()
        )
    assert not (tmp_path / "out" / "list.txt").exists()


def test_values_and_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    grey = registry.get("exporters", "grey")
    with pytest.raises(DataError, match=r"mask holds 3 \(4 pixels\)"):
        grey.run(
            [ExportItem("a", (), np.full((2, 2), 3, np.uint8))], LabelSpace(NAMES), tmp_path, grey.params()
        )
    with pytest.raises(DataError, match="line break"):
        LabelSpace(("background", "a\nb"))
    assert not list(tmp_path.iterdir())
