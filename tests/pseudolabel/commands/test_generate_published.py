"""`pl generate` with a published network through a class map: no training, labels given or predicted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pseudolabel import images
from pseudolabel.commands.generate import generate
from pseudolabel.commands.reference import reference
from pseudolabel.errors import DataError, UsageError
from tests.pseudolabel.commands.untrained import lines, place_fixture, recipe  # noqa: F401

MAP = "sheep: [7]\ncat: [3, 900, 5]\ndog: [11, 12]\nboat: [13]\n"
MEAN, STD = 0.4, 0.3
GROUPS = {1: [3, 5, 900], 2: [11, 12], 3: [7]}


@pytest.fixture(scope="module", name="root")
def _root(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tagged images, weights with a head of 1000 logits, and a class map."""
    root = tmp_path_factory.mktemp("published") / "root"
    shutil.copytree(place, root)
    (root / "map.yaml").write_text(MAP)
    import timm

    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = timm.create_model("test_resnet", num_classes=1000)
        torch.nn.init.normal_(network.fc.weight, 0, 2.0)  # type: ignore[union-attr, arg-type]
        vit = timm.create_model("test_vit", num_classes=1000)
    torch.save(network.state_dict(), root / "w.pth")
    torch.save(vit.state_dict(), root / "vit.pth")
    return root


def published(root: Path, **changed: Any) -> dict[str, Any]:
    return {
        "backbone": "test_resnet",
        "weights": str(root / "w.pth"),
        "class_map": str(root / "map.yaml"),
        "output_stride": 16,
        "mean": [MEAN] * 3,
        "std": [STD] * 3,
        **changed,
    }


def plain_folder(root: Path, **changed: Any) -> dict[str, Any]:
    """Plain images, classes predicted."""
    return recipe(
        root,
        data={"reader": "folder", "root": str(root / "images")},
        labels={"source": "predicted", "threshold": 0.004},
        no_label="background",
        **{"classifier": published(root), **changed},
    )


def outputs(root: Path, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Raw logits (1000,), features (D, h', w') and head (1000, D) of one image, by timm alone."""
    import timm

    network = timm.create_model("test_resnet", output_stride=16)
    network.load_state_dict(torch.load(root / "w.pth", weights_only=True))
    pixels = images.read_image(root / "images" / f"{name}.png")
    inputs = (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255 - MEAN) / STD
    with torch.no_grad():
        features = network.eval().forward_features(inputs)
        raw = network.forward_head(features)
    return tuple(t.double().numpy() for t in (raw[0], features[0], network.fc.weight.detach()))  # type: ignore[return-value]


def test_cam_is_that_of_the_softmax_weighted_rows(root: Path, tmp_path: Path) -> None:
    summary = generate(recipe(root, classifier=published(root)), tmp_path / "run", quiet=True)
    assert (summary.done, summary.failed) == (8, 0)
    assert summary.labels == "given"
    assert summary.target_layers == ["last features"]
    kept = load_file(tmp_path / "run/maps/p2.safetensors")
    assert kept["ids"].tolist() == [1, 2, 3]
    assert kept["scores"].amax() > 0, kept["scores"].amax(dim=(1, 2))
    raw, features, head = outputs(root, "p2")
    for place, ids in enumerate(GROUPS.values()):
        shares = np.exp(raw[ids] - raw[ids].max())
        row = (shares / shares.sum()) @ head[ids]
        small = torch.from_numpy(np.maximum(np.einsum("d,dhw->hw", row, features), 0))
        size = kept["scores"].shape[1:]
        cam = torch.nn.functional.interpolate(small[None, None], size=size, mode="bilinear")[0, 0]
        np.testing.assert_allclose(kept["scores"][place].numpy(), cam.numpy(), rtol=1e-3, atol=1e-4)


def test_predicted_labels_are_shares_of_the_softmax(root: Path, tmp_path: Path) -> None:
    summary = generate(plain_folder(root), tmp_path / "run", quiet=True)
    assert summary.labels == "predicted"
    names = (tmp_path / "run/classes.txt").read_text().split()
    assert names == ["background", "sheep", "cat", "dog", "boat"]
    groups = {1: [7], 2: [3, 5, 900], 3: [11, 12], 4: [13]}
    manifest = lines(tmp_path / "run")
    assert set(manifest) == {f"p{index}" for index in range(8)}
    labels_seen = set()
    for name, line in manifest.items():
        raw, _, _ = outputs(root, name)
        shares = np.exp(raw - raw.max())
        shares /= shares.sum()
        present = [label for label, ids in groups.items() if shares[ids].sum() > 0.004]
        assert line["labels"] == present, name
        labels_seen.add(tuple(present))
    assert len(labels_seen) > 1


def test_ids_of_folders_below_make_files_below(root: Path, tmp_path: Path) -> None:
    (tmp_path / "in/deep").mkdir(parents=True)
    shutil.copy(root / "images/p0.png", tmp_path / "in/deep/x.png")
    shutil.copy(root / "images/p1.png", tmp_path / "in/x.png")
    chosen = plain_folder(root) | {"data": {"reader": "folder", "root": str(tmp_path / "in")}}
    chosen["output"] = {"maps": True, "overlays": True}
    assert generate(chosen, tmp_path / "run", quiet=True).done == 2
    for place in ("masks/deep/x.png", "masks/x.png", "overlays/deep/x.png", "maps/deep/x.safetensors"):
        assert (tmp_path / "run" / place).is_file(), place
    assert generate(chosen, tmp_path / "run", quiet=True).skipped == 2


def test_labels_left_out_fall_away_and_are_told_once(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = recipe(root, classifier=published(root, leave_out=["dog"]), no_label="ignore")
    generate(chosen, tmp_path / "run")
    output = capsys.readouterr().err
    assert output.count("left out: dog of 4 images; their pixels count as background") == 1
    assert "weights: " in output
    assert "target layer: last features (96 channels, 16 pixels a cell)" in output
    manifest = lines(tmp_path / "run")
    assert manifest["p1"]["labels"] == [3]  # of dog and sheep; ids are the data's
    assert manifest["p2"]["labels"] == [1, 3]
    assert manifest["p4"]["labels"] == []
    assert (tmp_path / "run/classes.txt").read_text().split() == ["background", "cat", "dog", "sheep"]


def test_names_without_an_id_are_refused_before_anything_is_written(root: Path, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text("cat: [3]\n")
    chosen = recipe(root, classifier=published(root, class_map=str(tmp_path / "map.yaml")))
    with pytest.raises(DataError, match=r"no ImageNet id for dog, sheep;.*leave_out: \[dog, sheep\]"):
        generate(chosen, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_given_labels_need_a_reader_that_has_some(root: Path, tmp_path: Path) -> None:
    chosen = plain_folder(root) | {"labels": {"source": "given"}}
    with pytest.raises(
        UsageError, match=r"reader 'folder' knows no labels; write labels: \{source: predicted\}"
    ):
        generate(chosen, tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_trained_classifier_labels_a_folder(root: Path, tmp_path: Path) -> None:
    chosen = plain_folder(root, classifier={"checkpoint": str(root / "run")})
    assert generate(chosen, tmp_path / "run", quiet=True).done == 8
    assert (tmp_path / "run/classes.txt").read_text().split() == ["background", "cat", "dog", "sheep"]


@pytest.mark.parametrize(
    "change",
    [{"class_map": "other.yaml"}, {"output_stride": None}, {"std": [0.31] * 3}, {"weights": "v.pth"}],
)
def test_all_that_decides_bytes_is_in_the_fingerprint(
    root: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    (root / "other.yaml").write_text(MAP.replace("900, ", ""))
    state = torch.load(root / "w.pth", weights_only=True)
    torch.save({**state, "fc.bias": state["fc.bias"] + 1}, root / "v.pth")
    generate(recipe(root, classifier=published(root)), tmp_path / "run", quiet=True, limit=1)
    shutil.copy(root / "w.pth", tmp_path / "same.pth")  # another path, the same bytes
    same = published(root, weights=str(tmp_path / "same.pth"))
    assert generate(recipe(root, classifier=same), tmp_path / "run", quiet=True, limit=1).skipped == 1
    for key in ("class_map", "weights"):
        if key in change:
            change = {key: str(root / change[key])}
    with pytest.raises(UsageError, match=r"another configuration .*classifier"):
        generate(recipe(root, classifier=published(root, **change)), tmp_path / "run", quiet=True)


def test_cam_of_a_transformer_is_refused_and_grad_cam_names_its_layer(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    vit = published(root, backbone="test_vit", weights=str(root / "vit.pth"))
    with pytest.raises(DataError, match=r"cam: the network's head is not linear.*take grad_cam"):
        generate(recipe(root, classifier=vit), tmp_path / "cam", quiet=True)
    assert not (tmp_path / "cam").exists()
    capsys.readouterr()
    chosen = recipe(root, classifier=vit)
    chosen["maps"][0]["method"] = {"name": "grad_cam"}
    summary = generate(chosen, tmp_path / "run")
    assert summary.target_layers == ["backbone.blocks.5.norm1"]
    assert "target layer: backbone.blocks.5.norm1 (64 channels, 16 pixels a cell)" in capsys.readouterr().err
    assert summary.done == 8
    assert summary.flat_maps < summary.images
    chosen["maps"][0]["method"] = {"name": "grad_cam", "layer": "blocks.5.norm7"}
    with pytest.raises(DataError, match=r"'blocks.5.norm7' is not a module of the network; did you mean"):
        generate(chosen, tmp_path / "wrong", quiet=True)


def test_reference_maps_of_a_published_classifier(root: Path, tmp_path: Path) -> None:
    chosen = recipe(root, classifier=published(root, leave_out=["dog"]))
    summary = reference(chosen, tmp_path / "r.safetensors", quiet=True)
    assert summary.images == 8
    kept = load_file(tmp_path / "r.safetensors")
    assert kept["p2"].shape[0] == 2  # cat and sheep
    from safetensors import safe_open

    with safe_open(tmp_path / "r.safetensors", framework="pt") as opened:
        assert json.loads(opened.metadata()["ids"])["p1"] == [3]


CONTRADICTIONS = [
    ({}, "classifier: names no classifier; write checkpoint"),
    (
        {"checkpoint": "x", "backbone": "y", "class_map": "m"},
        "classifier.backbone: a checkpoint knows its own",
    ),
    ({"checkpoint": "x", "class_map": "m"}, "classifier.class_map: a checkpoint knows its own; leave it out"),
    ({"checkpoint": "x", "leave_out": ["person"]}, "classifier.leave_out: a checkpoint knows its own"),
    ({"checkpoint": "x", "mean": [0.5, 0.5, 0.5]}, "classifier.mean: a checkpoint knows its own"),
    ({"backbone": "resnet50"}, "classifier.class_map: is missing; name a file"),
    (
        {"backbone": "resnet50", "class_map": "m", "weights": "none"},
        "classifier.weights: a classifier at random",
    ),
    ({"backbone": "resnet50", "class_map": "m", "std": [0, 1, 1]}, r"classifier.std: \[0.*\] is not RGB"),
    (
        {"backbone": "resnet50", "class_map": "m", "output_stride": 64},
        "classifier.output_stride: 64 is not at most",
    ),
]


@pytest.mark.parametrize(("section", "message"), CONTRADICTIONS)
def test_contradictions_are_refused_by_name(tmp_path: Path, section: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        generate(recipe(tmp_path, classifier=section), tmp_path / "run", quiet=True)


def test_resolved_recipe_is_read_again(root: Path, tmp_path: Path) -> None:
    generate(recipe(root, classifier=published(root)), tmp_path / "run", quiet=True, limit=1)
    assert generate(tmp_path / "run/recipe.yaml", tmp_path / "run", quiet=True, limit=1).skipped == 1
