"""The classifier's file: it comes back, and a file of other classes or another network does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from pseudolabel.classifier.checkpoint import FILE, load_classifier, save_classifier
from pseudolabel.classifier.network import Classifier
from pseudolabel.errors import DataError, NumericError
from pseudolabel.records import LabelSpace
from pseudolabel.runs import disk

SPACE = LabelSpace(("background", "cat", "dog", "cow"))
MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)

Change = Callable[[dict[str, str], dict[str, Tensor]], None]


@pytest.fixture
def network() -> Classifier:
    torch.manual_seed(3)
    return Classifier("test_resnet", 3, output_stride=16)


@pytest.fixture
def run(tmp_path: Path, network: Classifier) -> Path:
    save_classifier(tmp_path / FILE, network, SPACE, MEAN, STD, {"seed": 4}, "abc")
    return tmp_path


def changed(run: Path, change: Change) -> Path:
    """The file of a run with its metadata and tensors changed."""
    with safe_open(run / FILE, "pt") as file:
        metadata, tensors = dict(file.metadata()), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(metadata, tensors)
    save_file(tensors, run / "changed.safetensors", metadata=metadata)
    return run / "changed.safetensors"


def test_comes_back(run: Path, network: Classifier) -> None:
    state = torch.random.get_rng_state()
    loaded = load_classifier(run, expect=SPACE)
    assert torch.equal(state, torch.random.get_rng_state())
    assert (loaded.space, loaded.mean, loaded.std) == (SPACE, MEAN, STD)
    assert (loaded.backbone, loaded.output_stride) == ("test_resnet", 16)
    assert (loaded.recipe, loaded.fingerprint) == ({"seed": 4}, "abc")
    assert loaded.sha256 == disk.sha256_file(run / FILE)
    assert not loaded.network.training
    images = torch.randn(1, 3, 32, 48)
    with torch.no_grad():
        assert torch.equal(loaded.network(images), network.eval()(images))
    assert load_classifier(run / FILE).sha256 == loaded.sha256


@pytest.mark.parametrize(
    ("backbone", "stride"), [("test_vit", 16), ("test_mambaout", 32), ("torchvision/resnet18", 32)]
)
def test_every_kind_of_backbone_comes_back(tmp_path: Path, backbone: str, stride: int) -> None:
    original = Classifier(backbone, 3, output_stride=stride).eval()
    save_classifier(tmp_path / FILE, original, SPACE, MEAN, STD, {}, "abc")
    images = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        assert torch.equal(load_classifier(tmp_path).network(images), original(images))


def rename(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    tensors["head.wait"] = tensors.pop("head.weight")


def cut(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    tensors["head.weight"] = tensors["head.weight"][:, :-1].contiguous()


def half(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    tensors["head.weight"] = tensors["head.weight"].half()


def extra(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    tensors["head.bias"] = torch.zeros(3)


def drop_class(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
    metadata["classes"] = json.dumps(SPACE.names[:-1])


def set_key(key: str, value: str) -> Change:
    def change(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        metadata[key] = value

    return change


def drop_key(key: str) -> Change:
    def change(metadata: dict[str, str], tensors: dict[str, Tensor]) -> None:
        del metadata[key]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rename, "tensor 'head.weight' is missing"),
        (cut, r"tensor 'head.weight' is \(3, 95\) torch.float32, the network's \(3, 96\)"),
        (half, r"tensor 'head.weight' is \(3, 96\) torch.float16, the network's"),
        (extra, "tensor 'head.bias' is not one of"),
        (drop_class, r"tensor 'head.weight' is \(3, 96\)"),
        (set_key("backbone", "test_resnet2"), "'test_resnet2' is not a model of timm; did you mean"),
        (set_key("backbone", "test_efficientnet"), "tensor '.*' is missing"),
        (set_key("output_stride", "x"), "output_stride is damaged"),
        (set_key("format_version", "2"), "format version 2, this program reads 1; install"),
        (set_key("format", "other"), "not a classifier of `pl train`"),
        (set_key("classes", "["), "classes is damaged"),
        (set_key("mean", "[1, 2]"), "mean is damaged"),
        (drop_key("fingerprint"), "lacks fingerprint"),
    ],
)
def test_refused(run: Path, change: Change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_classifier(changed(run, change))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("background", "cat", "cow", "dog"), "first at id 2, 'dog' against 'cow'"),
        (("background", "cat", "dog"), "first at id 3, 'cow' against 'nothing'"),
        (("background", "cat", "dog", "cow", "emu"), "first at id 4, 'nothing' against 'emu'"),
    ],
)
def test_other_classes_than_expected(run: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_classifier(run, expect=LabelSpace(names))
    assert ", ".join(SPACE.names) in str(caught.value)
    assert ", ".join(names) in str(caught.value)


def test_damaged(run: Path) -> None:
    intact = (run / FILE).read_bytes()
    for data in (intact[:-100], intact[:50], b"", b"\xff" * 100):
        (run / FILE).write_bytes(data)
        with pytest.raises(DataError, match=r"classifier.safetensors: damaged \("):
            load_classifier(run)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such classifier; train one with `pl train"):
        load_classifier(tmp_path)


def test_what_is_not_finite_is_never_written(run: Path, network: Classifier) -> None:
    before = (run / FILE).read_bytes()
    with torch.no_grad():
        network.head.weight[0, 0] = float("nan")
    with pytest.raises(NumericError, match=r"head.weight is not finite"):
        save_classifier(run / FILE, network, SPACE, MEAN, STD, {}, "abc")
    assert (run / FILE).read_bytes() == before
