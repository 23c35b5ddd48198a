"""The experiment scripts on a few tiny images and untrained networks: they run, resume and write."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import pseudolabel
from pseudolabel.classifier.checkpoint import save_classifier
from pseudolabel.classifier.network import Classifier
from pseudolabel.records import LabelSpace

SCRIPTS = Path(__file__).parents[2] / "scripts"
NAMES = ("background", "cat", "dog")


def run(script: str, folder: Path, *words: object) -> tuple[dict[str, Any], str]:
    """The result that a script writes, and its progress."""
    line = [sys.executable, str(SCRIPTS / script), *map(str, words), "--out", str(folder / "results")]
    done = subprocess.run(
        [*line, "--work", str(folder / "work")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = (folder / "results").glob("*.json")
    page = found.with_suffix(".md").read_text()
    assert page.startswith("# ")
    assert "nan" not in page
    with Image.open(found.with_suffix(".png")) as image:
        assert min(image.size) > 600
    result: dict[str, Any] = json.loads(found.read_text())
    assert all(claim.endswith(".") for claim in result["claims"])
    return result, done.stderr


@pytest.fixture(scope="module", name="voc")
def _voc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images in VOC layout, a bright block of each class, and a classifier that was never trained."""
    root = tmp_path_factory.mktemp("voc")
    for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / name).mkdir(parents=True)
    rows = ["id,labels"]
    for index in range(4):
        source = np.random.default_rng(index)
        pixels = source.integers(0, 90, (40, 56, 3), dtype=np.uint8)
        truth = np.zeros((40, 56), np.uint8)
        labels = [1, 2] if index == 3 else [1 + index % 2]
        for label in labels:
            place = np.s_[8 + 4 * index : 26 + 4 * index, 30 * (label - 1) + 4 : 30 * (label - 1) + 20]
            pixels[place] += np.array([150, 20, 90] if label == 1 else [20, 150, 60], np.uint8)
            truth[place] = label
        truth[0] = 255
        Image.fromarray(pixels).save(root / "JPEGImages" / f"p{index}.jpg")
        mask = Image.fromarray(truth)
        mask.putpalette([value for shade in range(256) for value in (shade, shade, shade)])
        mask.save(root / "SegmentationClass" / f"p{index}.png")
        rows.append(f"p{index},{';'.join(NAMES[label] for label in labels)}")
    (root / "labels.csv").write_text("\n".join([*rows, ""]))
    (root / "classes.txt").write_text("\n".join([*NAMES, ""]))
    (root / "ImageSets/Segmentation/train.txt").write_text("p0\np1\np2\np3\n")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = Classifier("test_resnet", 2, output_stride=8)
    torch.nn.init.normal_(network.head.weight, 0.1, 1.0, generator=torch.Generator().manual_seed(2))
    (root / "run").mkdir()
    save_classifier(
        root / "run" / "classifier.safetensors",
        network,
        LabelSpace(NAMES),
        (0.5,) * 3,
        (0.25,) * 3,
        {},
        "none",
    )
    return root


@pytest.mark.slow
def test_contribution_window(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 32), ("test", 12)):
        images = np.zeros((count, 28, 28), np.uint8)
        digits = source.integers(0, 10, count).astype(np.uint8)
        for image, digit in zip(images, digits, strict=True):
            image[6 + digit : 12 + digit, 8:18] = source.integers(100, 256, (6, 10))
        arrays |= {f"x_{part}": images, f"y_{part}": digits}
    np.savez(tmp_path / "digits.npz", **arrays)
    words = ("--mnist", tmp_path / "digits.npz", "--kernels", 1, 3, "--biased", "--seeds", 0, "--epochs", 1)
    result, _ = run("reproduce_contribution_window.py", tmp_path, *words, "--checked", 2)
    rows = {(row["kernel"], row["bias"]): row for row in result["rows"]}
    assert set(rows) == {(1, False), (3, False)}
    three = rows[3, False]
    assert three["window"] == 11
    assert three["exact_sparse"]["pixels_checked"] > 0
    assert three["exact_sparse"]["largest_gradient_outside"] == 0.0
    assert three["exact_sparse"]["control_nonzero"] > 0
    assert rows[1, False]["exact"]["gradient_beyond_active_pixels"] == 0
    again, said = run("reproduce_contribution_window.py", tmp_path, *words, "--checked", 2)
    assert "epoch" not in said.split("\n", 1)[1], "trained once more"
    assert again["rows"] == result["rows"]


@pytest.mark.slow
def test_crop_sensitivity(tmp_path: Path, voc: Path) -> None:
    words = (voc / "run", "--root", voc, "--size", 12, "--cells", 3, "--seeds", 0, 1)
    more = ("--average-over", "background cat dog", "--images", 3)
    result, _ = run("reproduce_crop_sensitivity.py", tmp_path, *words, *more)
    assert [row["scale"] for row in result["grid"]] == [[0.05, 0.3]]
    for row in result["grid"]:
        for at in ("fixed", "best"):
            steps = {name: entry["value"] for name, entry in row["steps"][at].items()}
            assert steps["jump"] == pytest.approx(steps["chunk"] + steps["count"], abs=1e-12)
        sums = row["sums"]
        assert sums["200-sigmoid-chunk100"]["best"]["miou"] >= sums["200-sigmoid-chunk100"]["fixed"]["miou"]
        assert sums["150-sigmoid-chunk100"] != sums["150-sigmoid-chunk200"]
    assert set(result["seeds"]["rows"]) == {"0", "1"}
    again, said = run("reproduce_crop_sensitivity.py", tmp_path, *words, *more)
    assert "min left" not in said
    assert again["grid"] == result["grid"]


@pytest.mark.slow
def test_noise_vs_crops(tmp_path: Path, voc: Path) -> None:
    words = ("--classifier", voc / "run", "--gaussian", voc / "run", "--mask", voc / "run", "--root", voc)
    more = ("--images", 3, "--passes", 4, "--size", 12, "--average-over", "background cat dog")
    result, _ = run("reproduce_noise_vs_crops.py", tmp_path, *words, *more)
    rows = {row["name"]: row for row in result["rows"]}
    assert {row["passes"] for row in rows.values()} == {1, 4, 28}
    assert rows["SmoothGrad 0.15"]["miou"] == rows["SmoothGrad 0.15, tuned"]["miou"], (
        "one and the same classifier"
    )
    assert rows["CAM"]["stability"] is None
    assert -1 <= rows["crops"]["stability"]["rank_correlation"] <= 1
    assert rows["BinaryMask 0.95"]["ndr_recall"] != rows["BinaryMask 0.5"]["ndr_recall"]


def test_counts_are_those_of_every_mask(voc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pseudolabel import registry
    from pseudolabel.metrics.regions import region_matrices

    monkeypatch.syspath_prepend(str(SCRIPTS))
    import _voc_maps

    subject = _voc_maps.Subject(voc / "run", 4)
    chosen = _voc_maps.draw_images(subject, voc, "train", 4, NAMES)
    component = registry.get("backgrounds", "constant")
    shares = [float(image.region[image.truth > 0].mean()) for image in chosen.images]
    assert 0 < sum(shares) < len(shares), "the images must show both regions"
    for image in chosen.images:
        for name in ("cam", "saliency"):
            scores = _voc_maps.unit(subject.maps(_voc_maps.bound(name), image, 0), image, name)
            shown = torch.from_numpy(image.pixels.copy())
            masks = component.traits["sweep"](
                scores, shown, component.params(), list(_voc_maps.LEVELS)
            ).numpy()
            wanted = np.stack(region_matrices(image.truth, masks, image.region, len(NAMES)), axis=1)
            found = _voc_maps.matrices(_voc_maps.counts(scores, image), image.ids, len(NAMES))
            np.testing.assert_array_equal(found, wanted)


@pytest.fixture(scope="module", name="stored")
def _stored(voc: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stored maps of the kinds that the tests below count, where the script would look for them."""
    work = tmp_path_factory.mktemp("stored")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(SCRIPTS))
        import _postprocessing

        for name in ("cam", "cam-multiscale", "saliency-multiscale"):
            recipe = _postprocessing.KINDS[name].recipe(voc, "train", voc / "run")
            pseudolabel.generate(recipe, work / "maps" / name / "train", workers=0, quiet=True)
    return work


@pytest.mark.parametrize(
    ("name", "post"),
    [
        ("cam", "none"),
        ("saliency-multiscale", "none"),
        ("saliency-multiscale", "box + superpixel resolve"),
        ("cam+saliency .3", "longer walk"),
    ],
)
def test_a_cell_counts_the_masks_of_its_recipe(
    voc: Path, stored: Path, name: str, post: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pseudolabel import masks
    from pseudolabel.metrics.regions import discriminative, region_matrices
    from pseudolabel.runs.maps import read_maps
    from pseudolabel.scoring.truth import of_reader

    monkeypatch.syspath_prepend(str(SCRIPTS))
    import _postprocessing
    from _voc_maps import matrices

    levels = (0.1, 0.35, 0.9)
    parts = _postprocessing.MIXES[name].parts if name in _postprocessing.MIXES else (name,)
    recipe = _postprocessing.recipe_of(name, _postprocessing.POSTS[post], voc, voc / "run")
    folders = [stored / "maps" / one / "train" / "maps" for one in ("cam", *parts)]
    cell = _postprocessing.Cell(recipe, tuple(folders[1:]), folders[0], levels, tmp_path / "superpixels")
    found = {level: tmp_path / str(level) for level in levels}
    for level, folder in found.items():
        options = ["data.split=train", f"background.threshold={level}"]
        pseudolabel.generate(recipe, folder, overrides=options, workers=0, quiet=True)
    seen = set()
    for record in of_reader(recipe.data.model_copy(update={"split": "train"})).records:
        assert record.mask is not None
        assert record.labels is not None
        truth = masks.read_mask(record.mask)
        cams = read_maps(folders[0] / f"{record.id}.safetensors")[0].values.numpy()
        made = [masks.read_mask(folder / "masks" / f"{record.id}.png") for folder in found.values()]
        seen |= set(np.unique(np.stack(made)).tolist())
        region = discriminative(truth, cams, record.labels)
        wanted = np.stack(region_matrices(truth, np.stack(made), region, len(NAMES)), axis=1)
        ids, counts = cell.counts(record)
        np.testing.assert_array_equal(matrices(counts, ids, len(NAMES)), wanted)
    assert seen >= {0, 2}, "the masks must show background and a class"


def test_counts_that_are_kept_belong_to_maps_and_reference(
    voc: Path, stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import _postprocessing

    from pseudolabel.scoring.truth import of_reader

    recipe = _postprocessing.recipe_of("cam", _postprocessing.POSTS["none"], voc, voc / "run")
    records = of_reader(recipe.data.model_copy(update={"split": "train"})).records
    kept, calls = tmp_path / "counts.npz", []
    counted = _postprocessing.Cell.counts

    def counts(cell: Any, record: Any) -> Any:
        calls.append(record.id)
        return counted(cell, record)

    monkeypatch.setattr(_postprocessing.Cell, "counts", counts)

    def new(maps: str, reference: str) -> int:
        """Images that a call counted anew."""
        folders = [stored / "maps" / one / "train" / "maps" for one in (maps, reference)]
        cell = _postprocessing.Cell(recipe, (folders[0],), folders[1], (0.1,), tmp_path / "superpixels")
        calls.clear()
        _postprocessing.measure(cell, records, kept, workers=0)
        return len(calls)

    assert [new("cam", "cam"), new("cam", "cam")] == [4, 0]
    assert [new("cam", "cam-multiscale"), new("cam-multiscale", "cam")] == [4, 4]
