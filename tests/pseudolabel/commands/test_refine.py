"""`refine`: the same masks as `generate` where nothing changes, others where something does; refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save

import pseudolabel
from pseudolabel.classifier.checkpoint import save_classifier
from pseudolabel.classifier.network import Classifier
from pseudolabel.commands.generate import generate
from pseudolabel.commands.refine import refine
from pseudolabel.errors import DataError, UsageError
from pseudolabel.masks import read_mask
from pseudolabel.records import LabelSpace
from pseudolabel.runs import disk

IDS = tuple(f"{index:03d}" for index in range(8))
EMPTY = IDS[4]  # has no label


def recipe_of(root: Path, **changes: object) -> dict[str, object]:
    return {
        "data": {
            "reader": "voc",
            "root": str(root / "voc"),
            "split": "val",
            "labels": "csv",
            "empty": "background",
        },
        "classifier": {"checkpoint": str(root / "classifier.safetensors")},
        "maps": [
            {
                "method": {"name": "saliency"},
                "refine": [{"name": "smooth", "size": 5}, {"name": "normalise"}, {"name": "competition"}],
            }
        ],
        "background": {"name": "constant", "threshold": 0.3},
        "output": {"maps": True},
        "no_label": "ignore",
        **changes,
    }


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of three classes, a classifier that knows nothing, and a run with stored maps."""
    root = tmp_path_factory.mktemp("refine")
    random = np.random.default_rng(0)
    lists = root / "voc" / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (root / "voc" / "JPEGImages").mkdir()
    (lists / "val.txt").write_text("\n".join(IDS) + "\n")
    (root / "voc" / "classes.txt").write_text("background\ncat\ncow\ndog\n")
    rows = ["id,labels"]
    for index, item in enumerate(IDS):
        shape = (40 + index % 2, 56, 3)
        Image.fromarray(random.integers(0, 256, shape, dtype=np.uint8)).save(
            root / "voc" / "JPEGImages" / f"{item}.png"
        )
        rows.append(
            f"{item}," + ("" if item == EMPTY else ["cat", "dog", "cat dog", "cat cow dog"][index % 4])
        )
    (root / "voc" / "labels.csv").write_text("\n".join(rows) + "\n")
    torch.manual_seed(0)
    space = LabelSpace(("background", "cat", "cow", "dog"))
    network = Classifier("test_resnet", 3).eval()
    save_classifier(root / "classifier.safetensors", network, space, [0.5] * 3, [0.25] * 3, {}, "none")
    generate(recipe_of(root), root / "run", device="cpu", workers=0, quiet=True)
    return root


def files_of(folder: Path, *names: str) -> dict[str, bytes]:
    contents = {}
    for name in names:
        for path in sorted(path for path in folder.glob(name) if path.is_file()):
            contents[str(path.relative_to(folder))] = path.read_bytes()
    return contents


def manifest(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "manifest.jsonl").read_text().splitlines()]


def test_without_a_change_it_is_what_generate_wrote(root: Path, tmp_path: Path) -> None:
    before = files_of(root / "run", "**/*")
    summary = refine(root / "run", tmp_path / "out", workers=0, quiet=True)
    assert files_of(root / "run", "**/*") == before, "the source is only read"
    assert {key: getattr(summary, key) for key in ("images", "done", "skipped", "failed")} == {
        "images": 8, "done": 8, "skipped": 0, "failed": 0,
    }  # fmt: skip
    assert summary.run == str(tmp_path / "out")
    masks = files_of(tmp_path / "out", "masks/*.png")
    assert masks == files_of(root / "run", "masks/*.png")
    assert len(masks) == 8
    shown = {
        int(value) for item in IDS for value in np.unique(read_mask(tmp_path / "out/masks" / f"{item}.png"))
    }
    assert shown == {0, 1, 2, 3, 255}
    assert files_of(tmp_path / "out", "classes.txt") == files_of(root / "run", "classes.txt")
    kept = [{key: value for key, value in line.items() if key != "files"} for line in manifest(root / "run")]
    assert manifest(tmp_path / "out") == kept
    assert not (tmp_path / "out" / "maps").exists()
    assert pseudolabel.refine is refine


@pytest.mark.parametrize(
    "changes",
    [
        ["background.threshold=0.6"],
        ["background={name: superpixel, threshold: 0.25, segments: 30}"],
        ["maps.0.refine=[{name: normalise, method: max}]"],
        ["no_label=background"],
    ],
)
def test_a_change_gives_what_generate_gives_with_it(root: Path, tmp_path: Path, changes: list[str]) -> None:
    refine(root / "run", tmp_path / "refined", overrides=changes, workers=0, quiet=True)
    generate(recipe_of(root), tmp_path / "made", overrides=changes, device="cpu", workers=0, quiet=True)
    masks = files_of(tmp_path / "refined", "masks/*.png")
    assert masks == files_of(tmp_path / "made", "masks/*.png")
    assert masks != files_of(root / "run", "masks/*.png")


@pytest.mark.parametrize(("background", "workers"), [("constant", 3), ("superpixel", 1)])
def test_workers_and_processes_change_no_byte(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, background: str, workers: int
) -> None:
    """Threads for the first, a process for the second, whose component is one of the CPU."""
    monkeypatch.setattr("pseudolabel.pipeline.driver.WORTH_PROCESSES", 1)
    changes = [f"background={{name: {background}, threshold: 0.25}}", "output.overlays=true"]
    for count in (0, workers):
        refine(root / "run", tmp_path / str(count), overrides=changes, workers=count, quiet=True)
    wanted = ("masks/*", "overlays/*", "manifest.jsonl", "problems.jsonl", "recipe.yaml")
    in_this_process = files_of(tmp_path / "0", *wanted)
    assert in_this_process == files_of(tmp_path / str(workers), *wanted)
    assert len(in_this_process) == 2 * 8 + 3


def test_it_can_be_refined_again_when_it_keeps_maps(root: Path, tmp_path: Path) -> None:
    refine(root / "run", tmp_path / "a", overrides=["output.maps=true"], limit=5, workers=0, quiet=True)
    assert files_of(tmp_path / "a", "maps/*") == {
        name: data for name, data in files_of(root / "run", "maps/*").items() if name[5:8] in IDS[:5]
    }
    refine(tmp_path / "a", tmp_path / "b", workers=0, quiet=True)
    assert files_of(tmp_path / "a", "masks/*") == files_of(tmp_path / "b", "masks/*")
    with pytest.raises(DataError, match=r"b: stores no maps; .* --set output\.maps=true"):
        refine(tmp_path / "b", tmp_path / "c", quiet=True)


def test_it_goes_on_where_it_stopped_and_mends_what_is_broken(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert refine(root / "run", out, limit=6, workers=0, quiet=True).images == 6
    (out / "masks" / f"{IDS[2]}.png").write_bytes(b"torn")
    summary = refine(root / "run", out, workers=0, quiet=True)
    assert (summary.images, summary.done, summary.skipped) == (8, 3, 5)
    assert files_of(out, "masks/*") == files_of(root / "run", "masks/*")
    again = refine(root / "run", out, workers=0, quiet=True)
    assert (again.images, again.done, again.skipped) == (8, 0, 8)


def test_another_configuration_does_not_go_into_the_same_folder(root: Path, tmp_path: Path) -> None:
    refine(root / "run", tmp_path, limit=2, workers=0, quiet=True)
    with pytest.raises(UsageError, match=r"background\.threshold: 0\.3 -> 0\.5"):
        refine(root / "run", tmp_path, overrides=["background.threshold=0.5"], limit=2, quiet=True)
    with pytest.raises(UsageError, match="made by another configuration"):
        refine(root / "run", root / "run", quiet=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("maps.0.method.channels=l2", r"maps\.0\.method\.channels: 'max_abs' -> 'l2'"),
        ("classifier.checkpoint=x", r"classifier\.checkpoint"),
        ("seed=3", r"seed: 0 -> 3"),
        ("labels.source=predicted", r"labels\.source: 'given' -> 'predicted'"),
        ("background.threshold=7", r"--set: background\.threshold: 7 is not at most 1"),
        ("maps.0.refine=[]", r"'constant' takes scores in 0\.\.1, 'saliency' gives raw ones"),
    ],
)
def test_what_decides_the_maps_cannot_be_changed(root: Path, tmp_path: Path, change: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        refine(root / "run", tmp_path / "out", overrides=[change], quiet=True)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """A copy of data and run that may be broken."""
    target = tmp_path / "copy"
    shutil.copytree(root, target)
    text = (target / "run" / "recipe.yaml").read_text()
    (target / "run" / "recipe.yaml").write_text(text.replace(str(root), str(target)))
    return target


def test_broken_items_are_listed_and_the_others_done(copy: Path, tmp_path: Path) -> None:
    maps = copy / "run" / "maps"
    (maps / f"{IDS[0]}.safetensors").unlink()
    shutil.copy(maps / f"{IDS[2]}.safetensors", maps / f"{IDS[1]}.safetensors")
    Image.new("RGB", (56, 40)).save(copy / "voc" / "JPEGImages" / f"{IDS[3]}.png")
    (copy / "voc" / "JPEGImages" / f"{IDS[5]}.png").write_bytes(b"no image")
    summary = refine(copy / "run", tmp_path / "out", overrides=["no_label=refuse"], workers=2, quiet=True)
    assert (summary.images, summary.failed) == (3, 5)
    reasons = {row["file"]: row["what"] for row in disk.read_json_lines(tmp_path / "out/problems.jsonl")}
    assert "no stored maps of this image" in reasons[IDS[0]]
    assert "has changed since the run made it" in reasons[IDS[1]]
    assert "has changed since the maps were made" in reasons[IDS[3]]
    assert f"{IDS[5]}.png" in reasons[IDS[5]]
    assert "has no label" in reasons[EMPTY]
    assert {line["id"] for line in manifest(tmp_path / "out")} == set(IDS) - reasons.keys()


def plant_maps(run: Path, name: str, scores: torch.Tensor, ids: list[int]) -> None:
    """Other maps of one image, with a manifest that knows of them."""
    data = save({"scores": scores, "ids": torch.tensor(ids)})
    (run / "maps" / f"{name}.safetensors").write_bytes(data)
    lines = manifest(run)
    for line in lines:
        if line["id"] == name:
            known = {"size": len(data), "sha256": disk.sha256_bytes(data)}
            line["files"] = {f"maps/{name}.safetensors": known}
    (run / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_maps_that_do_not_fit_are_refused_and_flat_ones_listed(copy: Path, tmp_path: Path) -> None:
    plant_maps(copy / "run", IDS[0], torch.full((1, 40, 56), 0.7), [1])
    plant_maps(copy / "run", IDS[1], torch.rand(1, 20, 56), [3])
    plant_maps(copy / "run", IDS[2], torch.rand(2, 40, 56), [1, 2])
    summary = refine(copy / "run", tmp_path / "out", limit=4, workers=0, quiet=True)
    assert (summary.done, summary.failed, summary.flat_maps) == (2, 2, 1)
    problems = disk.read_json_lines(tmp_path / "out" / "problems.jsonl")
    reasons = {row["file"]: (row["code"], row["what"]) for row in problems if row["code"] != "nothing_found"}
    assert IDS[0] in [row["file"] for row in problems if row["code"] == "nothing_found"]
    assert reasons[IDS[0]] == ("flat_map", "the map is the same everywhere: cat")
    assert reasons[IDS[1]][1].endswith("maps are 20 x 56, the image 41 x 56")
    assert reasons[IDS[2]][1].endswith("maps of classes (1, 2), (1, 3) wanted")
    assert not read_mask(tmp_path / "out" / "masks" / f"{IDS[0]}.png").any()


def test_maps_asked_for_later_are_added(root: Path, tmp_path: Path) -> None:
    refine(root / "run", tmp_path / "out", limit=2, workers=0, quiet=True)
    refine(root / "run", tmp_path / "out", overrides=["output.maps=true"], limit=2, workers=0, quiet=True)
    assert [line["files"].keys() for line in manifest(tmp_path / "out")] == [
        {f"maps/{name}.safetensors"} for name in IDS[:2]
    ]
    assert len(files_of(tmp_path / "out", "maps/*")) == 2


def test_what_is_no_finished_run_is_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe\.yaml, so this is no run"):
        refine(tmp_path, tmp_path / "out", quiet=True)
    (copy / "voc" / "classes.txt").write_text("background\ncat\ndog\ncow\n")
    with pytest.raises(DataError, match="its classes are not those of the data"):
        refine(copy / "run", tmp_path / "out", quiet=True)
    (copy / "run" / "manifest.jsonl").unlink()
    with pytest.raises(DataError, match="so the run is not finished"):
        refine(copy / "run", tmp_path / "out", quiet=True)
    with pytest.raises(UsageError, match="--limit 0"):
        refine(copy / "run", tmp_path / "out", limit=0, quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_list_that_shares_no_image_is_refused(copy: Path, tmp_path: Path) -> None:
    (copy / "voc/ImageSets/Segmentation/other.txt").write_text("zzz\n")
    Image.new("RGB", (9, 9)).save(copy / "voc/JPEGImages/zzz.png")
    (copy / "voc" / "labels.csv").write_text("id,labels\nzzz,cat\n")
    with pytest.raises(DataError, match=r"holds no image of the data's list; look at data\.split"):
        refine(copy / "run", tmp_path / "out", overrides=["data.split=other"], quiet=True)
