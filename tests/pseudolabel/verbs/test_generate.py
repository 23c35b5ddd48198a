"""`pl generate` and `pl reference`: the bytes, what they do not depend on, and every refusal."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from pseudolabel import masks, storage
from pseudolabel.classifier.checkpoint import save_classifier
from pseudolabel.classifier.network import Classifier
from pseudolabel.errors import DataFault, Interrupted, UsageFault
from pseudolabel.records import LabelSpace
from pseudolabel.verbs import generate as verb
from pseudolabel.verbs._batches import plan
from pseudolabel.verbs._truth import Reference
from pseudolabel.verbs.generate import generate
from pseudolabel.verbs.reference import reference

NAMES = ("background", "cat", "dog", "sheep")
SIZES = [(48, 64), (64, 48), (48, 64), (48, 64), (40, 40), (64, 48), (48, 64), (31, 33)]
TAGS = ["cat", "dog;sheep", "cat;dog;sheep", "sheep", "dog", "cat", "dog", "cat;sheep"]
VOLATILE = {"summary.json", "recipe.yaml"}


def photograph(index: int, size: tuple[int, int]) -> Image.Image:
    """Soft colours with an edge, each its own."""
    source = np.random.default_rng(index)
    coarse = Image.fromarray(source.integers(0, 256, (5, 6, 3), dtype=np.uint8))
    pixels = np.asarray(coarse.resize((size[1], size[0]), Image.Resampling.BICUBIC)).copy()
    pixels[size[0] // 4 : size[0] // 2, size[1] // 3 :] //= 2
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with eight tagged pictures of four sizes and a classifier that was never trained."""
    root = tmp_path_factory.mktemp("generate")
    (root / "pictures").mkdir()
    rows = ["id,labels"]
    for index, (size, tags) in enumerate(zip(SIZES, TAGS, strict=True)):
        photograph(index, size).save(root / "pictures" / f"p{index}.png")
        rows.append(f"p{index},{tags}")
    (root / "tags.csv").write_text("\n".join([*rows, ""]))
    (root / "classes.txt").write_text("\n".join([*NAMES, ""]))
    save_tiny(root / "run")
    return root


def save_tiny(folder: Path, change: Callable[[Classifier], object] = lambda network: None) -> Path:
    """A classifier with drawn weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        network = Classifier("test_resnet", 3, output_stride=8)
    torch.nn.init.normal_(network.head.weight, 0.1, 1.0, generator=torch.Generator().manual_seed(3))
    change(network)
    path = folder / "classifier.safetensors"
    save_classifier(path, network, LabelSpace(NAMES), (0.5,) * 3, (0.25,) * 3, {}, "none")
    return path


def recipe(root: Path, **changed: Any) -> dict[str, Any]:
    """CAM with a constant background, maps stored."""
    data = {"reader": "table", "root": str(root), "images": "pictures", "labels": "tags.csv"}
    return {
        "data": {**data, "classes": "classes.txt"},
        "classifier": {"checkpoint": str(root / "run")},
        "maps": [{"method": {"name": "cam"}, "refiners": [{"name": "normalise"}]}],
        "resolver": {"name": "constant"},
        "output": {"maps": True},
        "batch": 3,
        **changed,
    }


CROPS = {
    "maps": [
        {
            "method": {"name": "saliency"},
            "aggregate": [{"name": "random_crop", "count": 5, "size": 32, "chunk": 2}],
            "refiners": [{"name": "normalise"}, {"name": "competition"}, {"name": "normalise"}],
        }
    ],
    "resolver": {"name": "superpixel", "segments": 20},
}


def digests(run: Path) -> dict[str, str]:
    """sha256 of every file that must not depend on how the work was done."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in VOLATILE and path.name != ".lock"
    }


def lines(run: Path) -> dict[str, dict[str, Any]]:
    return {line["id"]: line for line in map(json.loads, (run / "manifest.jsonl").read_text().splitlines())}


def problems(run: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (run / "problems.jsonl").read_text().splitlines()]


def broken_copy(place: Path, root: Path, **files: bytes) -> Path:
    """The folder with some pictures replaced."""
    shutil.copytree(place, root)
    for name, data in files.items():
        (root / "pictures" / f"{name}.png").write_bytes(data)
    return root


def test_writes_what_the_contract_says(place: Path, tmp_path: Path) -> None:
    chosen = recipe(place, output={"maps": True, "overlays": True})
    summary = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    run = tmp_path / "run"
    assert {key: summary[key] for key in ("images", "done", "skipped", "failed")} == {
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
    assert (run / "classes.txt").read_text().splitlines() == list(NAMES)
    table = lines(run)
    assert list(table) == [f"p{index}" for index in range(8)]
    for index, (name, line) in enumerate(table.items()):
        assert (line["height"], line["width"]) == SIZES[index]
        assert [NAMES[label] for label in line["labels"]] == TAGS[index].split(";")
        data = (run / "masks" / f"{name}.png").read_bytes()
        assert (line["size"], line["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        source = (place / "pictures" / f"{name}.png").read_bytes()
        assert line["input_sha256"] == hashlib.sha256(source).hexdigest()
        mask = masks.read_mask(run / "masks" / f"{name}.png")
        assert mask.shape == SIZES[index]
        assert set(np.unique(mask)) <= {0, *line["labels"]}
        maps = load_file(run / "maps" / f"{name}.safetensors")
        assert maps["ids"].tolist() == line["labels"]
        assert maps["scores"].shape == (len(line["labels"]), *SIZES[index])
        overlay = np.asarray(Image.open(run / "overlays" / f"{name}.png"))
        shown = np.asarray(Image.open(place / "pictures" / f"{name}.png"))
        assert np.array_equal(overlay[mask == 0], shown[mask == 0])
        for label in set(np.unique(mask)) - {0}:
            mixed = (shown[mask == label].astype(int) + masks.PALETTE[label] + 1) // 2
            assert np.array_equal(overlay[mask == label], mixed)
    shares = [np.mean(masks.read_mask(run / "masks" / f"{name}.png") > 0) for name in table]
    assert 0.02 < np.mean(shares) < 0.98, "the masks must be two-sided"


def test_stored_maps_are_raw_cams_at_image_size(place: Path, tmp_path: Path) -> None:
    from pseudolabel.classifier.checkpoint import load_classifier

    generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    loaded = load_classifier(place / "run")
    pixels = torch.from_numpy(np.asarray(Image.open(place / "pictures" / "p2.png")).copy())
    inputs = (pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        cam = torch.einsum("cd,bdhw->bchw", loaded.network.head.weight, loaded.network.features(inputs))
        wanted = torch.nn.functional.interpolate(cam.relu(), size=(48, 64), mode="bilinear")[0]
    found = load_file(tmp_path / "run" / "maps" / "p2.safetensors")["scores"]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5 * float(wanted.max()))


@pytest.mark.parametrize("changed", [{}, CROPS], ids=["cam", "crops"])
def test_workers_give_the_same_bytes_f24(place: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    chosen = recipe(place, **changed)
    for workers in (0, 1, 3):
        generate(chosen, tmp_path / str(workers), workers=workers, quiet=True)
    wanted = digests(tmp_path / "0")
    assert len(wanted) == 8 * 2 + 4
    assert digests(tmp_path / "1") == digests(tmp_path / "3") == wanted


@pytest.mark.slow
def test_processes_give_the_same_bytes_f24(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = recipe(place, **CROPS)  # has a brick of the CPU
    generate(chosen, tmp_path / "0", workers=0, quiet=True)
    monkeypatch.setattr(verb, "WORTH_PROCESSES", 1)
    generate(chosen, tmp_path / "processes", workers=1, quiet=True)
    assert digests(tmp_path / "processes") == digests(tmp_path / "0")


@pytest.mark.parametrize("changed", [{}, CROPS], ids=["cam", "crops"])
def test_batch_size_and_list_order_change_only_rounding_f24(
    place: Path, tmp_path: Path, changed: dict[str, Any]
) -> None:
    generate(recipe(place, **changed, batch=64), tmp_path / "wanted", workers=0, quiet=True)
    other = tmp_path / "other"
    shutil.copytree(place, other)
    head, *rows = (other / "tags.csv").read_text().splitlines()
    (other / "tags.csv").write_text("\n".join([head, *rows[::-1], ""]))
    runs = {f"batch {batch}": recipe(place, **changed, batch=batch) for batch in (1, 2, 7)}
    runs["reversed"] = recipe(other, **changed, batch=64)
    for name, chosen in runs.items():
        generate(chosen, tmp_path / name, workers=0, quiet=True)
        differing = pixels = 0
        for index in range(8):
            maps = [load_file(tmp_path / run / "maps" / f"p{index}.safetensors") for run in ("wanted", name)]
            wanted, found = (each["scores"] for each in maps)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
            one, two = (
                masks.read_mask(tmp_path / run / "masks" / f"p{index}.png") for run in ("wanted", name)
            )
            differing, pixels = differing + int((one != two).sum()), pixels + one.size
        assert differing <= max(1, pixels / 10_000), name


def test_finished_images_are_not_done_again(place: Path, tmp_path: Path) -> None:
    chosen = recipe(place)
    generate(chosen, tmp_path / "run", workers=0, quiet=True)
    before = digests(tmp_path / "run")
    written = (tmp_path / "run" / "masks" / "p3.png").stat().st_mtime_ns
    again = generate(chosen, tmp_path / "run", workers=2, quiet=True)
    assert (again["done"], again["skipped"], again["images"]) == (0, 8, 8)
    assert digests(tmp_path / "run") == before
    assert (tmp_path / "run" / "masks" / "p3.png").stat().st_mtime_ns == written


def test_a_damaged_or_missing_file_is_done_again(place: Path, tmp_path: Path) -> None:
    chosen = recipe(place)
    generate(chosen, tmp_path / "run", workers=0, quiet=True)
    before = digests(tmp_path / "run")
    (tmp_path / "run" / "masks" / "p1.png").unlink()
    (tmp_path / "run" / "masks" / "p4.png").write_bytes(b"\x89PNG")
    (tmp_path / "run" / "maps" / "p6.safetensors").write_bytes(b"")
    again = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    assert (again["done"], again["skipped"]) == (3, 5)
    assert digests(tmp_path / "run") == before


def test_maps_asked_for_later_are_added(place: Path, tmp_path: Path) -> None:
    generate(recipe(place, output={}), tmp_path / "run", workers=0, quiet=True)
    assert not (tmp_path / "run" / "maps").exists()
    again = generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    assert again["done"] == 8
    generate(recipe(place), tmp_path / "whole", workers=0, quiet=True)
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")


def test_a_changed_input_is_noticed_f4(place: Path, tmp_path: Path) -> None:
    root = broken_copy(place, tmp_path / "data")
    generate(recipe(root), tmp_path / "run", workers=0, quiet=True)
    before = lines(tmp_path / "run")
    photograph(77, SIZES[2]).save(root / "pictures" / "p2.png")
    again = generate(recipe(root), tmp_path / "run", workers=0, quiet=True)
    assert (again["done"], again["skipped"]) == (1, 7)
    after = lines(tmp_path / "run")
    assert [name for name in after if after[name] != before[name]] == ["p2"]
    (root / "pictures" / "p2.png").write_bytes(b"gone bad")
    worse = generate(recipe(root), tmp_path / "run", workers=0, quiet=True)
    assert (worse["failed"], worse["images"]) == (1, 7)
    assert "p2" not in lines(tmp_path / "run"), "a mask of another picture is no mask of this one"


def test_a_limit_then_the_whole_gives_the_same_bytes(place: Path, tmp_path: Path) -> None:
    generate(recipe(place), tmp_path / "whole", workers=0, quiet=True)
    first = generate(recipe(place), tmp_path / "run", workers=0, limit=3, quiet=True)
    assert first["images"] == 3
    assert list(lines(tmp_path / "run")) == ["p0", "p1", "p2"]
    rest = generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    assert (rest["done"], rest["skipped"]) == (5, 3)
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")
    with pytest.raises(UsageFault, match="--limit 0"):
        generate(recipe(place), tmp_path / "none", limit=0, quiet=True)


def test_a_broken_picture_is_named_and_the_others_are_done_f4(place: Path, tmp_path: Path) -> None:
    whole = (place / "pictures" / "p3.png").read_bytes()
    root = broken_copy(place, tmp_path / "data", p3=whole[: len(whole) // 2], p5=b"<html></html>")
    summary = generate(recipe(root), tmp_path / "run", workers=2, quiet=True)
    assert (summary["failed"], summary["done"]) == (2, 6)
    found = problems(tmp_path / "run")
    assert [(row["file"], row["code"]) for row in found] == [("p3", "unreadable"), ("p5", "unreadable")]
    assert "p3.png" in found[0]["what"]
    assert list(lines(tmp_path / "run")) == ["p0", "p1", "p2", "p4", "p6", "p7"]
    # mended, the next call does only these two, and nothing is listed any more
    for name in ("p3", "p5"):
        shutil.copy(place / "pictures" / f"{name}.png", root / "pictures")
    mended = generate(recipe(root), tmp_path / "run", workers=0, quiet=True)
    assert (mended["failed"], mended["done"], mended["skipped"]) == (0, 2, 6)
    assert problems(tmp_path / "run") == []


def test_on_bad_stop_ends_at_the_first_f4(place: Path, tmp_path: Path) -> None:
    root = broken_copy(place, tmp_path / "data", p3=b"")
    with pytest.raises(DataFault, match=r"^p3: .*p3\.png"):
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
    assert (refused["failed"], refused["done"]) == (1, 7)
    (row,) = problems(tmp_path / "refuse")
    assert (row["file"], row["code"]) == ("p1", "no_label")
    assert "no_label: background or ignore" in row["remedy"]
    for word, value in (("background", 0), ("ignore", 255)):
        summary = generate({**chosen, "no_label": word}, tmp_path / word, workers=0, quiet=True)
        assert (summary["failed"], summary["done"]) == (0, 8)
        assert (masks.read_mask(tmp_path / word / "masks" / "p1.png") == value).all()
        maps = load_file(tmp_path / word / "maps" / "p1.safetensors")
        assert maps["scores"].shape == (0, *SIZES[1])


def test_predicted_labels_are_those_above_the_threshold(place: Path, tmp_path: Path) -> None:
    from pseudolabel.classifier.checkpoint import load_classifier

    labels = {"source": "predicted", "threshold": 0.45}
    chosen = recipe(place, labels=labels, no_label="background")
    summary = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    assert summary["labels"] == "predicted"
    network = load_classifier(place / "run").network
    counts = set()
    for index in range(8):
        pixels = torch.from_numpy(np.asarray(Image.open(place / "pictures" / f"p{index}.png")).copy())
        with torch.no_grad():
            logits = network((pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25)[0]
        wanted = [c + 1 for c in range(3) if float(logits[c].sigmoid()) > 0.45]
        assert lines(tmp_path / "run")[f"p{index}"]["labels"] == wanted
        counts.add(len(wanted))
    assert len(counts) > 1, "the threshold must tell pictures apart"


def test_a_classifier_of_zero_weights_f6(place: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "zero", lambda network: torch.nn.init.zeros_(network.head.weight))
    chosen = recipe(place, classifier={"checkpoint": str(tmp_path / "zero")})
    summary = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    assert (summary["failed"], summary["flat_maps"]) == (0, 8)
    assert {row["code"] for row in problems(tmp_path / "run")} == {"flat_map"}
    assert not masks.read_mask(tmp_path / "run" / "masks" / "p0.png").any()
    again = generate(chosen, tmp_path / "run", workers=0, quiet=True)
    assert (again["skipped"], again["flat_maps"]) == (8, 8), "listed also where nothing was to be done"
    with pytest.raises(DataFault, match="no gradient reaches the input"):
        generate({**chosen, **CROPS}, tmp_path / "crops", workers=0, quiet=True)


def test_a_map_of_nan_is_listed_and_not_written_f6(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pseudolabel.verbs._classifier_of import ClassifierOf

    plain = ClassifierOf.inputs

    def spoiled(self: ClassifierOf, pictures: Any) -> torch.Tensor:
        inputs = plain(self, pictures)
        for row, pixels in zip(inputs, pictures, strict=True):
            if pixels.shape[:2] == (40, 40):
                row[0, 3, 5] = float("nan")
        return inputs

    monkeypatch.setattr(ClassifierOf, "inputs", spoiled)
    summary = generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    assert (summary["failed"], summary["done"]) == (1, 7)
    (row,) = problems(tmp_path / "run")
    assert (row["file"], row["code"]) == ("p4", "not_finite")
    assert not (tmp_path / "run" / "masks" / "p4.png").exists()
    labels = {"source": "predicted", "threshold": 0.01}
    predicted = generate(recipe(place, labels=labels), tmp_path / "other", workers=0, quiet=True)
    assert predicted["failed"] == 1


@pytest.mark.parametrize("changed", [{}, CROPS], ids=["cam", "crops"])
def test_sizes_at_the_edge_f7(place: Path, tmp_path: Path, changed: dict[str, Any]) -> None:
    root = tmp_path / "data"
    (root / "pictures").mkdir(parents=True)
    sizes = [(1, 1), (2, 70), (70, 2), (31, 1), (1, 500), (33, 65)]
    rows = ["id,labels"]
    for index, size in enumerate(sizes):
        photograph(index, size).save(root / "pictures" / f"e{index}.png")
        rows.append(f"e{index},cat;dog")
    (root / "tags.csv").write_text("\n".join([*rows, ""]))
    (root / "classes.txt").write_text("\n".join([*NAMES, ""]))
    shutil.copytree(place / "run", root / "run")
    summary = generate(recipe(root, **changed), tmp_path / "run", workers=0, quiet=True)
    assert (summary["failed"], summary["done"]) == (0, 6)
    for index, size in enumerate(sizes):
        assert masks.read_mask(tmp_path / "run" / "masks" / f"e{index}.png").shape == size


def test_uncovered_share_is_reported(place: Path, tmp_path: Path) -> None:
    summary = generate(recipe(place, **CROPS), tmp_path / "run", workers=0, quiet=True)
    shares = [line["uncovered"] for line in lines(tmp_path / "run").values()]
    assert summary["uncovered"] == pytest.approx(np.mean(shares), abs=1e-5)
    assert 0.05 < summary["uncovered"] < 0.95
    assert generate(recipe(place), tmp_path / "cam", workers=0, quiet=True)["uncovered"] is None


def test_batches_hold_one_size_and_every_record_once(place: Path) -> None:
    from pseudolabel.recipe import load
    from pseudolabel.schema import GenerateRecipe

    reader, params = load(recipe(place), GenerateRecipe).data.load()
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


def test_another_configuration_in_the_folder_is_refused_f21(place: Path, tmp_path: Path) -> None:
    generate(recipe(place), tmp_path / "run", workers=0, quiet=True, limit=1)
    root = tmp_path / "data"
    shutil.copytree(place, root)
    generate(recipe(root), tmp_path / "run", workers=0, quiet=True, limit=1)  # paths decide nothing
    for override, text in (
        ("resolver.threshold=0.3", "recipe.resolver.threshold: 0.15 -> 0.3"),
        ("batch=2", "recipe.batch: 3 -> 2"),
        ("seed=1", "recipe.seed: 0 -> 1"),
    ):
        with pytest.raises(UsageFault, match=text):
            generate(recipe(root), tmp_path / "run", overrides=[override], quiet=True)
    text = (root / "tags.csv").read_text().replace("p7,cat;sheep", "p7,cat")
    (root / "tags.csv").write_text(text)
    with pytest.raises(UsageFault, match=r"pictures\.digest"):
        generate(recipe(root), tmp_path / "run", quiet=True)
    save_tiny(root / "run", lambda network: network.head.weight.data.mul_(2))
    with pytest.raises(UsageFault, match="classifier"):
        generate(recipe(root), tmp_path / "run", quiet=True)


def test_a_classifier_of_other_classes_is_refused_f12(place: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(place, root)
    (root / "classes.txt").write_text("background\ndog\ncat\nsheep\n")
    with pytest.raises(DataFault, match=r"classes differ.* 'cat' against 'dog'"):
        generate(recipe(root), tmp_path / "run", quiet=True)
    with pytest.raises(DataFault, match="no such classifier"):
        generate(recipe(place, classifier={"checkpoint": "nowhere"}), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists(), "nothing is written before the input is good"


def test_a_signal_finishes_what_is_under_way_f22(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os
    import signal

    from pseudolabel.verbs import _items

    generate(recipe(place), tmp_path / "whole", workers=0, quiet=True)
    plain = _items.put

    def put(folder: Path, job: Any, made: Any) -> Any:
        if job.id == "p2":
            os.kill(os.getpid(), signal.SIGTERM)
        return plain(folder, job, made)

    monkeypatch.setattr(_items, "put", put)
    with pytest.raises(Interrupted, match="3 of 8 masks are finished; the same command continues") as caught:
        generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    assert caught.value.exit_code == 143
    assert not (tmp_path / "run" / "manifest.jsonl").exists()
    monkeypatch.undo()
    rest = generate(recipe(place), tmp_path / "run", workers=0, quiet=True)
    assert (rest["done"], rest["skipped"]) == (5, 3)
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")


def test_reference_holds_raw_cams_at_feature_size(place: Path, tmp_path: Path) -> None:
    from pseudolabel.classifier.checkpoint import load_classifier

    told = reference(recipe(place), tmp_path / "reference.safetensors", workers=0, quiet=True)
    found = Reference(tmp_path / "reference.safetensors")
    assert told["sha256"] == found.sha256 == storage.sha256_file(tmp_path / "reference.safetensors")
    assert (found.threshold, found.rule, told["images"], told["maps"]) == (0.25, "own", 8, 12)
    assert [NAMES[label] for label in found.classes["p2"]] == ["cat", "dog", "sheep"]
    maps = load_file(tmp_path / "reference.safetensors")
    network = load_classifier(place / "run").network
    pixels = torch.from_numpy(np.asarray(Image.open(place / "pictures" / "p1.png")).copy())
    with torch.no_grad():
        features = network.features((pixels.permute(2, 0, 1)[None].float() / 255 - 0.5) / 0.25)
        wanted = torch.einsum("cd,dhw->chw", network.head.weight[1:], features[0]).relu()
    torch.testing.assert_close(maps["p1"], wanted, rtol=1e-4, atol=1e-5 * float(wanted.max()))
    again = reference(recipe(place), tmp_path, workers=2, quiet=True)
    assert again["sha256"] == told["sha256"], "the same bytes whatever the workers, into a folder too"


def test_reference_of_a_list_with_holes_is_refused(place: Path, tmp_path: Path) -> None:
    root = broken_copy(place, tmp_path / "data", p3=b"")
    with pytest.raises(DataFault, match=r"^p3: "):
        reference(recipe(root), tmp_path / "reference.safetensors", workers=0, quiet=True)
    assert not (tmp_path / "reference.safetensors").exists()
