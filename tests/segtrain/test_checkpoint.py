"""A checkpoint of other classes or another network is refused before a tensor is copied."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from pseudolabel.errors import DataError
from pseudolabel.records import LabelSpace
from pseudolabel.training.state import load_state, save_state
from segtrain.checkpoint import Header, compare, load_network, locate, save_best
from segtrain.networks import Architecture, SegmentationNetwork

SPACE = LabelSpace(("background", "cat", "dog", "cow"))
SMALL = Architecture("deeplabv3plus", "tu-test_efficientnet", 16, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
IMAGE = torch.randint(0, 256, (1, 3, 20, 30), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    network = SegmentationNetwork(SMALL, 4).eval()
    save_best(tmp_path, network, Header(SPACE, SMALL, {"seed": 0}, 5))
    return tmp_path


def rewrite(run: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], None]) -> Path:
    path = run / "checkpoints" / "best.safetensors"
    tensors, meta = load_state(path)
    change(tensors, meta)
    save_state(path, tensors, meta)
    return path


def test_comes_back_as_it_was(run: Path) -> None:
    torch.manual_seed(3)
    original = SegmentationNetwork(SMALL, 4).eval()
    loaded = load_network(run, "best", SPACE)
    assert (loaded.header.space, loaded.header.architecture, loaded.header.epoch) == (SPACE, SMALL, 5)
    actual, wanted = loaded.network.state_dict(), original.state_dict()
    assert actual.keys() == wanted.keys()
    assert all(torch.equal(actual[name], wanted[name]) for name in wanted)
    with torch.inference_mode():  # equal weights; kernels round as memory happens to be aligned
        torch.testing.assert_close(loaded.network(IMAGE), original(IMAGE))
    assert not loaded.network.training
    assert load_network(run / "checkpoints" / "best.safetensors").header == loaded.header


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("background", "dog", "cat", "cow"), "first difference: id 1 is 'cat', wanted 'dog'"),
        (("background", "cat", "dog"), "first difference: id 3 stands in one list only"),
        (("background", "cat", "dog", "sheep"), r"4 \(background, cat, dog, cow\), wanted 4 \(background"),
    ],
)
def test_other_classes_are_refused(names: tuple[str, ...], message: str, run: Path) -> None:
    with pytest.raises(DataError, match=message):
        load_network(run, "best", LabelSpace(names))


def test_another_network_is_refused() -> None:
    other = replace(SMALL, encoder="resnet18", output_stride=8)
    header = Header(SPACE, SMALL, {}, 0)
    with pytest.raises(
        DataError, match=r"encoder 'tu-test_efficientnet', wanted 'resnet18'; output_stride 16, wanted 8"
    ):
        compare(Path("x"), header, SPACE, other)


def _newer(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    meta["format"] = 2


def _foreign(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    meta["kind"] = "classifier"


def _cut(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    name = "network.network.segmentation_head.0.weight"
    tensors[name] = tensors[name][:3]


def _renamed(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    tensors["network.other"] = tensors.pop("network.network.segmentation_head.0.bias")


def _dropped(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    del tensors["network.network.segmentation_head.0.bias"]


def _other_type(tensors: dict[str, torch.Tensor], meta: dict[str, Any]) -> None:
    name = "network.network.segmentation_head.0.bias"
    tensors[name] = tensors[name].double()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_newer, "format 2, this program reads 1; update it"),
        (_foreign, "holds a 'classifier', not a segmentation network"),
        (_cut, r"segmentation_head.0.weight' is \(3, 256, 1, 1\) .*wanted \(4, 256, 1, 1\)"),
        (_renamed, "lacks 'network.segmentation_head.0.bias'"),
        (_dropped, "lacks 'network.segmentation_head.0.bias'"),
        (_other_type, "torch.float64, wanted"),
    ],
)
def test_a_changed_file_is_refused(change: Any, message: str, run: Path) -> None:
    path = rewrite(run, change)
    with pytest.raises(DataError, match=message) as refused:
        load_network(path)
    assert str(path) in str(refused.value)


def test_a_missing_or_damaged_checkpoint_is_named(run: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"last\.safetensors: no such checkpoint; give the folder of a `seg train`"
    ):
        locate(run, "last")
    path = run / "checkpoints" / "best.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="not a readable checkpoint"):
        load_network(path)
    (tmp_path / "text").write_text("hello")
    with pytest.raises(DataError, match="not a readable checkpoint"):
        load_network(tmp_path / "text")


def test_a_kill_between_the_two_moves_leaves_previous(run: Path) -> None:
    best = run / "checkpoints" / "best.safetensors"
    best.rename(best.with_name("previous.safetensors"))
    assert locate(run, "last").name == "previous.safetensors"
