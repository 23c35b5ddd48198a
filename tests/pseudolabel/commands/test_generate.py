"""`pl generate`: what is written, what is listed as a problem, and every refusal."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pseudolabel import masks
from pseudolabel.commands.generate import generate
from pseudolabel.commands.refine import refine
from pseudolabel.errors import DataError, UsageError
from pseudolabel.figures import overlays as figures
from pseudolabel.figures.text import FORMS
from pseudolabel.pipeline.reading import plan
from tests.pseudolabel.commands.untrained import (
    CROPS,
    NAMES,
    SIZES,
    TAGS,
    broken_copy,
    image,
    lines,
    place_fixture,  # noqa: F401
    problems,
    recipe,
    save_tiny,
)

SMALL = [{"name": "small_regions", "share": 0.1}]


def test_writes_what_the_contract_says(place: Path, tmp_path: Path) -> None:
    chosen = recipe(place, output={"maps": True, "overlays": True})
    summary = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    run = tmp_path / "run"
    assert {key: getattr(summary, key) for key in ("images", "done", "skipped", "failed")} == {
        "images": 8,
        "done": 8,
        "skipped": 0,
        "failed": 0,
    }
    stored = json.loads((run / "summary.json").read_text())
    assert {
        "images",
        "seconds",
        "images_per_second",
        "device",
        "versions",
        "batch",
        "labels",
    } <= stored.keys()
    assert (stored["labels"], stored["labels_from"]) == ("given", "csv")
    assert "labels: given (csv)" in FORMS["summary"](summary.as_dict()).splitlines()
    assert (run / "classes.txt").read_text().splitlines() == list(NAMES)
    table = lines(run)
    assert list(table) == [f"p{index}" for index in range(8)]
    for index, (name, line) in enumerate(table.items()):
        assert (line["height"], line["width"]) == SIZES[index]
        assert [NAMES[label] for label in line["labels"]] == TAGS[index].split(";")
        data = (run / "masks" / f"{name}.png").read_bytes()
        assert (line["size"], line["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        source = (place / "images" / f"{name}.png").read_bytes()
        assert line["input_sha256"] == hashlib.sha256(source).hexdigest()
        mask = masks.read_mask(run / "masks" / f"{name}.png")
        assert mask.shape == SIZES[index]
        assert set(np.unique(mask)) <= {0, *line["labels"]}
        maps = load_file(run / "maps" / f"{name}.safetensors")
        assert maps["ids"].tolist() == line["labels"]
        assert maps["scores"].shape == (len(line["labels"]), *SIZES[index])
        overlay = np.asarray(Image.open(run / "overlays" / f"{name}.png"))
        shown = np.asarray(Image.open(place / "images" / f"{name}.png"))
        assert np.array_equal(overlay, figures.overlay(shown, mask))
    shares = [np.mean(masks.read_mask(run / "masks" / f"{name}.png") > 0) for name in table]
    assert 0.02 < np.mean(shares) < 0.98, "the masks must be two-sided"


def test_stored_maps_are_raw_cams_at_image_size(place: Path, tmp_path: Path) -> None:
    from pseudolabel.classifier.checkpoint import load_classifier

    generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    loaded = load_classifier(place / "run")
    pixels = torch.from_numpy(np.asarray(Image.open(place / "images" / "p2.png")).copy())
    inputs = (pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        cam = torch.einsum("cd,bdhw->bchw", loaded.network.head.weight, loaded.network.features(inputs))
        wanted = torch.nn.functional.interpolate(cam.relu(), size=(48, 64), mode="bilinear")[0]
    actual = load_file(tmp_path / "run" / "maps" / "p2.safetensors")["scores"]
    torch.testing.assert_close(actual, wanted, rtol=1e-4, atol=1e-5 * float(wanted.max()))


def test_a_changed_input_is_reported(place: Path, tmp_path: Path) -> None:
    root = broken_copy(place, tmp_path / "data")
    generate(recipe(root), tmp_path / "run", workers=0, quiet=True)
    before = lines(tmp_path / "run")
    image(77, SIZES[2]).save(root / "images" / "p2.png")
    again = generate(recipe(root), tmp_path / "run", workers=0, quiet=True)
    assert (again.done, again.skipped) == (1, 7)
    after = lines(tmp_path / "run")
    assert [name for name in after if after[name] != before[name]] == ["p2"]
    (root / "images" / "p2.png").write_bytes(b"gone bad")
    worse = generate(recipe(root), tmp_path / "run", workers=0, quiet=True)
    assert (worse.failed, worse.images) == (1, 7)
    assert "p2" not in lines(tmp_path / "run"), "a mask of another image is no mask of this one"


def test_a_broken_image_is_named_and_the_others_are_done(place: Path, tmp_path: Path) -> None:
    intact = (place / "images" / "p3.png").read_bytes()
    root = broken_copy(place, tmp_path / "data", p3=intact[: len(intact) // 2], p5=b"<html></html>")
    summary = generate(recipe(root), tmp_path / "run", workers=2, quiet=True)
    assert (summary.failed, summary.done) == (2, 6)
    listed = problems(tmp_path / "run")
    assert [(row["file"], row["code"]) for row in listed] == [("p3", "unreadable"), ("p5", "unreadable")]
    assert "p3.png" in listed[0]["what"]
    assert list(lines(tmp_path / "run")) == ["p0", "p1", "p2", "p4", "p6", "p7"]
    # mended, the next call does only these two, and nothing is listed any more
    for name in ("p3", "p5"):
        shutil.copy(place / "images" / f"{name}.png", root / "images")
    mended = generate(recipe(root), tmp_path / "run", workers=0, quiet=True)
    assert (mended.failed, mended.done, mended.skipped) == (0, 2, 6)
    assert problems(tmp_path / "run") == []


def test_on_bad_stop_ends_at_the_first(place: Path, tmp_path: Path) -> None:
    root = broken_copy(place, tmp_path / "data", p3=b"")
    with pytest.raises(DataError, match=r"^p3: .*p3\.png"):
        generate(recipe(root), tmp_path / "run", workers=1, on_bad="stop", quiet=True)


def untagged(place: Path, root: Path) -> dict[str, Any]:
    broken_copy(place, root)
    text = (root / "tags.csv").read_text().replace("p1,dog;sheep", "p1,")
    (root / "tags.csv").write_text(text)
    chosen = recipe(root)
    chosen["data"]["empty"] = "background"
    return chosen


def test_an_image_without_labels_is_refused_or_filled(place: Path, tmp_path: Path) -> None:
    chosen = untagged(place, tmp_path / "data")
    refused = generate(chosen, tmp_path / "refuse", workers=0, quiet=True)
    assert (refused.failed, refused.done) == (1, 7)
    (row,) = problems(tmp_path / "refuse")
    assert (row["file"], row["code"]) == ("p1", "no_label")
    assert "no_label: background or ignore" in row["remedy"]
    for word, value in (("background", 0), ("ignore", 255)):
        summary = generate({**chosen, "no_label": word}, tmp_path / word, workers=0, quiet=True)
        assert (summary.failed, summary.done) == (0, 8)
        assert (masks.read_mask(tmp_path / word / "masks" / "p1.png") == value).all()
        maps = load_file(tmp_path / word / "maps" / "p1.safetensors")
        assert maps["scores"].shape == (0, *SIZES[1])


def test_predicted_labels_are_those_above_the_threshold(place: Path, tmp_path: Path) -> None:
    from pseudolabel.classifier.checkpoint import load_classifier

    labels = {"source": "predicted", "threshold": 0.45}
    chosen = recipe(place, labels=labels, no_label="background")
    summary = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    assert summary.labels == "predicted"
    network = load_classifier(place / "run").network
    counts = set()
    for index in range(8):
        pixels = torch.from_numpy(np.asarray(Image.open(place / "images" / f"p{index}.png")).copy())
        with torch.no_grad():
            logits = network((pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25)[0]
        wanted = [c + 1 for c in range(3) if float(logits[c].sigmoid()) > 0.45]
        assert lines(tmp_path / "run")[f"p{index}"]["labels"] == wanted
        counts.add(len(wanted))
    assert len(counts) > 1, "the threshold must tell images apart"


def test_flat_maps_of_a_classifier_of_zero_weights_are_reported(place: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "zero", lambda network: torch.nn.init.zeros_(network.head.weight))
    chosen = recipe(place, classifier={"checkpoint": str(tmp_path / "zero")})
    summary = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    assert (summary.failed, summary.flat_maps, summary.nothing_found) == (0, 8, 8)
    assert {row["code"] for row in problems(tmp_path / "run")} == {"flat_map", "nothing_found"}
    assert not masks.read_mask(tmp_path / "run" / "masks" / "p0.png").any()
    again = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    counts = (again.skipped, again.flat_maps, again.nothing_found)
    assert counts == (8, 8, 8), "listed also where nothing was to be done"
    with pytest.raises(DataError, match="no gradient reaches the input"):
        generate({**chosen, **CROPS}, tmp_path / "crops", workers=0, quiet=True)


def test_images_in_which_nothing_is_found_are_counted_and_said(place: Path, tmp_path: Path) -> None:
    chosen = recipe(place, background={"name": "constant", "threshold": 0.8}, postprocess=SMALL)
    summary = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    run = tmp_path / "run"
    empty = {name for name in lines(run) if not masks.read_mask(run / "masks" / f"{name}.png").any()}
    assert 0 < len(empty) < 8, "some of them, not all"
    rows = [row for row in problems(run) if row["code"] == "nothing_found"]
    assert {row["item"] for row in rows} == empty
    assert (summary.failed, summary.flat_maps, summary.nothing_found) == (0, 0, len(empty))
    assert json.loads((run / "summary.json").read_text())["nothing_found"] == len(empty)
    assert f"{len(empty)} images with nothing found" in FORMS["summary"](summary.as_dict())
    refined = refine(run, tmp_path / "refined", overrides={"postprocess": []}, workers=0, quiet=True)
    assert refined.nothing_found == 0
    assert refined.classifier == summary.classifier


def test_a_map_of_nan_is_listed_and_not_written(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pseudolabel.pipeline.explained_classifier import ExplainedClassifier

    plain = ExplainedClassifier.inputs

    def spoiled(self: ExplainedClassifier, images: Any) -> torch.Tensor:
        inputs = plain(self, images)
        for row, pixels in zip(inputs, images, strict=True):
            if pixels.shape[:2] == (40, 40):
                row[0, 3, 5] = float("nan")
        return inputs

    monkeypatch.setattr(ExplainedClassifier, "inputs", spoiled)
    summary = generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    assert (summary.failed, summary.done) == (1, 7)
    (row,) = problems(tmp_path / "run")
    assert (row["file"], row["code"]) == ("p4", "not_finite")
    assert not (tmp_path / "run" / "masks" / "p4.png").exists()
    labels = {"source": "predicted", "threshold": 0.01}
    predicted = generate(recipe(place, labels=labels), tmp_path / "other", workers=0, quiet=True)
    assert predicted.failed == 1


@pytest.mark.parametrize("changed", [{}, CROPS], ids=["cam", "crops"])
def test_images_of_one_pixel_and_of_one_row_have_masks(
    place: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    sizes = [(1, 1), (2, 70), (70, 2), (31, 1), (1, 500), (33, 65)]
    rows = ["id,labels"]
    for index, size in enumerate(sizes):
        image(index, size).save(root / "images" / f"e{index}.png")
        rows.append(f"e{index},cat;dog")
    (root / "tags.csv").write_text("\n".join([*rows, ""]))
    (root / "classes.txt").write_text("\n".join([*NAMES, ""]))
    shutil.copytree(place / "run", root / "run")
    summary = generate(recipe(root, **changed), tmp_path / "run", workers=0, quiet=True)
    assert (summary.failed, summary.done) == (0, 6)
    for index, size in enumerate(sizes):
        assert masks.read_mask(tmp_path / "run" / "masks" / f"e{index}.png").shape == size


def test_uncovered_share_is_reported(place: Path, tmp_path: Path) -> None:
    summary = generate(recipe(place, **CROPS), tmp_path / "run", workers=0, quiet=True)
    shares = [line["uncovered"] for line in lines(tmp_path / "run").values()]
    assert summary.uncovered == pytest.approx(np.mean(shares), abs=1e-5)
    assert 0.05 < summary.uncovered < 0.95
    assert generate(recipe(place), tmp_path / "cam", workers=0, quiet=True).uncovered is None


def test_batches_hold_one_size_and_every_record_once(place: Path) -> None:
    from pseudolabel.recipes.loading import load_recipe
    from pseudolabel.recipes.schema import GenerateRecipe

    data = load_recipe(recipe(place), GenerateRecipe).data
    reader, params = data.component, data.params
    records = reader.run(params).records
    size = dict(zip((record.id for record in records), SIZES, strict=True))
    batches = list(plan(records, 3))
    assert [[record.id for record in batch] for batch in batches] == [
        ["p0", "p2", "p3"],
        ["p6"],
        ["p1", "p5"],
        ["p4"],
        ["p7"],
    ]
    assert all(len({size[record.id] for record in batch}) == 1 for batch in batches)
    assert [len(batch) for batch in plan(records, 1)] == [1] * 8
    first = [[record.id for record in batch] for batch in plan(records, 3, limit=2)]
    assert first == [["p0", "p2", "p3"], ["p1", "p5"]], "the batches of the whole list"
    assert [batch[0].id for batch in plan(records, 1, limit=2)] == ["p0", "p1"]
    many = records * 20  # several windows
    assert sorted(record.id for batch in plan(many, 2) for record in batch) == sorted(r.id for r in many)


def test_another_configuration_in_the_folder_is_refused(place: Path, tmp_path: Path) -> None:
    generate(recipe(place), tmp_path / "run", workers=0, quiet=True, limit=1)
    root = tmp_path / "data"
    shutil.copytree(place, root)
    generate(recipe(root), tmp_path / "run", workers=0, quiet=True, limit=1)  # paths decide nothing
    for override, text in (
        ("background.threshold=0.3", "recipe.background.threshold: 0.15 -> 0.3"),
        ("batch=2", "recipe.batch: 3 -> 2"),
        ("seed=1", "recipe.seed: 0 -> 1"),
    ):
        with pytest.raises(UsageError, match=text):
            generate(recipe(root), tmp_path / "run", overrides=[override], quiet=True)
    text = (root / "tags.csv").read_text().replace("p7,cat;sheep", "p7,cat")
    (root / "tags.csv").write_text(text)
    with pytest.raises(UsageError, match=r"images\.digest"):
        generate(recipe(root), tmp_path / "run", quiet=True)
    save_tiny(root / "run", lambda network: network.head.weight.data.mul_(2))
    with pytest.raises(UsageError, match="classifier"):
        generate(recipe(root), tmp_path / "run", quiet=True)


def test_a_classifier_of_other_classes_is_refused(place: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(place, root)
    (root / "classes.txt").write_text("background\ndog\ncat\nsheep\n")
    with pytest.raises(DataError, match=r"classes differ.* 'cat' against 'dog'"):
        generate(recipe(root), tmp_path / "run", quiet=True)
    for checkpoint, folder in (("no where", "no where"), ("there/classifier.safetensors", "there")):
        with pytest.raises(DataError, match=rf"no such classifier; .*`pl train RECIPE -o {folder}`"):
            generate(recipe(place, classifier={"checkpoint": checkpoint}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists(), "nothing is written before the input is good"
