"""Prediction and score: every image once, at its own size; a score is what the masks say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import segtrain
from pseudolabel import images, masks
from pseudolabel.errors import DataError, UsageError
from pseudolabel.runs import disk
from segtrain import scoring
from segtrain.networks import SegmentationNetwork


def predict(run: Path, source: Any, out: Path, **options: Any) -> dict[str, Any]:
    return segtrain.predict(run, source, out, device="cpu", quiet=True, **{"workers": 0, **options})


def test_the_score_is_what_the_predicted_masks_say(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = trained
    evaluation = segtrain.evaluate(run, device="cpu", workers=0, quiet=True)
    assert evaluation.as_dict() == disk.read_json(run / "evaluation.json")
    images = [root / "JPEGImages" / f"val_{index}.png" for index in range(4)]
    predict(run, images, tmp_path / "out")
    matrix = np.zeros((3, 3), np.int64)
    for image in images:
        truth = masks.read_mask(root / "SegmentationClass" / image.name)
        guess = masks.read_mask(tmp_path / "out" / image.name)
        for y, x in np.ndindex(truth.shape):
            if truth[y, x] != 255:
                matrix[truth[y, x], guess[y, x]] += 1
    np.testing.assert_array_equal(evaluation.confusion, matrix)
    assert len(np.unique(matrix > 0)) == 2, "the scene must show hits and misses"
    iou = np.diag(matrix) / (matrix.sum(0) + matrix.sum(1) - np.diag(matrix))
    assert evaluation.miou == pytest.approx(float(np.mean(iou)))
    assert (evaluation.images, evaluation.classes_averaged) == (4, 3)
    for workers in (1, 3):
        again = segtrain.evaluate(run, out=tmp_path / str(workers), device="cpu", workers=workers, quiet=True)
        assert again == evaluation
    narrow = segtrain.evaluate(
        run, out=tmp_path / "n", average_over=("red",), device="cpu", workers=0, quiet=True
    )
    assert narrow.miou == pytest.approx(float(iou[1]))
    assert narrow.confusion == evaluation.confusion
    other = segtrain.evaluate(
        run, out=tmp_path / "o", overrides=["validation.split=train"], device="cpu", workers=0, quiet=True
    )
    assert other.confusion != evaluation.confusion


def test_images_are_shown_to_the_network_at_their_own_size(
    trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, root = trained
    sizes: list[tuple[int, ...]] = []
    genuine = SegmentationNetwork.forward

    def forward(network: SegmentationNetwork, input_images: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(input_images.shape[-2:]))
        return genuine(network, input_images)

    monkeypatch.setattr(SegmentationNetwork, "forward", forward)
    segtrain.evaluate(run, device="cpu", workers=0, quiet=True)
    wanted = [images.read_size(root / "JPEGImages" / f"val_{index}.png") for index in range(4)]
    assert sizes == wanted
    assert len(set(wanted)) == 4


def test_validation_without_a_labelled_pixel_is_undefined(trained: tuple[Path, Path]) -> None:
    run, root = trained
    for index in range(4):
        file = root / "SegmentationClass" / f"val_{index}.png"
        masks.write_mask(file, np.full_like(masks.read_mask(file), 255))
    (root / "labels.csv").write_text("id,labels\n" + "".join(f"val_{index},red\n" for index in range(4)))
    evaluation = segtrain.evaluate(run, overrides=["data.labels=csv"], device="cpu", workers=0, quiet=True)
    assert (evaluation.miou, evaluation.classes_averaged) == (None, 0)
    json.dumps(evaluation.as_dict(), allow_nan=False)


def test_a_partial_score_is_no_score(trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = trained
    genuine = scoring.whole_pairs
    monkeypatch.setattr(scoring, "whole_pairs", lambda pairs, *rest: list(genuine(pairs, *rest))[:-1])
    (run / "evaluation.json").unlink(missing_ok=True)
    with pytest.raises(DataError, match="3 of 4 images were scored"):
        segtrain.evaluate(run, device="cpu", workers=0, quiet=True)
    assert not (run / "evaluation.json").exists()


def test_data_of_other_classes_are_refused(trained: tuple[Path, Path]) -> None:
    run, root = trained
    (root / "classes.txt").write_text("background\ngreen\nred\n")
    with pytest.raises(DataError, match="first difference: id 1 is 'red', wanted 'green'"):
        segtrain.evaluate(run, device="cpu", workers=0, quiet=True)


def test_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no run of `seg train` \(no recipe.yaml\)"):
        segtrain.evaluate(tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (2, 70), (1, 300), (31, 33), (65, 16)])
def test_a_mask_has_the_size_of_its_image(
    size: tuple[int, int], trained: tuple[Path, Path], tmp_path: Path
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    images.write_image(tmp_path / "in" / "a.png", image)
    predict(trained[0], tmp_path / "in", tmp_path / "out")
    file = tmp_path / "out" / "a.png"
    assert masks.read_mask(file).shape == size
    with Image.open(file) as opened:
        assert opened.mode == "P"
        assert opened.getpalette() == masks.PALETTE.ravel().tolist()


def test_a_turned_image_gives_a_turned_mask(trained: tuple[Path, Path], tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "in").mkdir()
    Image.fromarray(pixels).save(tmp_path / "in" / "turned.png", exif=exif)
    Image.fromarray(np.rot90(pixels, -1)).save(tmp_path / "in" / "upright.png")
    predict(trained[0], tmp_path / "in", tmp_path / "out")
    turned = masks.read_mask(tmp_path / "out" / "turned.png")
    assert turned.shape == (50, 30)
    np.testing.assert_array_equal(turned, masks.read_mask(tmp_path / "out" / "upright.png"))


def test_goes_on_past_a_broken_image(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = trained
    broken = root / "JPEGImages" / "val_1.png"
    intact = broken.read_bytes()
    broken.write_bytes(intact[:100])
    summary = predict(run, root / "JPEGImages", tmp_path / "out", workers=2)
    assert (summary.images, summary.done, summary.failed) == (8, 7, 1)
    assert [row["file"] for row in summary.problems] == ["val_1.png"]
    assert not (tmp_path / "out" / "val_1.png").exists()
    assert len((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()) == 7
    with pytest.raises(DataError, match=r"val_1\.png"):
        predict(run, root / "JPEGImages", tmp_path / "other", on_bad="stop")
    broken.write_bytes(intact)
    kept = (tmp_path / "out" / "val_0.png").stat().st_mtime_ns
    summary = predict(run, root / "JPEGImages", tmp_path / "out")
    assert (summary.done, summary.failed) == (8, 0)
    assert (tmp_path / "out" / "val_0.png").stat().st_mtime_ns == kept, "what is finished is not done again"


def test_a_changed_image_is_done_again(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = trained
    predict(run, root / "JPEGImages", tmp_path / "out")
    images.write_image(root / "JPEGImages" / "val_0.png", np.zeros((9, 9, 3), np.uint8))
    predict(run, root / "JPEGImages", tmp_path / "out")
    assert masks.read_mask(tmp_path / "out" / "val_0.png").shape == (9, 9)


def test_images_that_would_share_a_mask_are_refused(trained: tuple[Path, Path], tmp_path: Path) -> None:
    for name in ("a.png", "A.jpg"):
        images.write_image(tmp_path / "in" / name, np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DataError, match="would share the mask"):
        predict(trained[0], tmp_path / "in", tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        predict(trained[0], tmp_path / "none", tmp_path / "out")


def test_a_list_file_names_images_beside_it(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, root = trained
    (root / "list.txt").write_text("JPEGImages/val_2.png\n\nJPEGImages/train_0.png\n")
    assert predict(run, root / "list.txt", tmp_path / "out").done == 2
    assert (tmp_path / "out" / "val_2.png").exists()
