"""`pseudolabel.explain` and `pseudolabel.to_mask` on models of other people."""

from __future__ import annotations

import doctest
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

import pseudolabel as pl
from pseudolabel.classifier.checkpoint import load_classifier
from pseudolabel.commands.generate import generate
from pseudolabel.contracts.networks import random_images, state_of
from pseudolabel.errors import DataError, MachineError, NumericError, UsageError
from pseudolabel.explain.resize import Resize
from pseudolabel.masks import read_mask
from pseudolabel.records import Scores
from tests.golden.make_public import FILE
from tests.pseudolabel.commands.untrained import place_fixture, recipe  # noqa: F401
from tests.referees.public_scenes import cases, error, ours

NAMES = ["cat", "dog", "cow", "hen", "fox"]
CROPS = ("random_crop", {"count": 6, "size": 32, "chunk": 3})


@pytest.fixture(name="model")
def _model() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.SiLU(),
            nn.Conv2d(6, 9, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(9, 5),
        ).eval()


@pytest.fixture(name="image")
def _image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def normalised(image: np.ndarray) -> Tensor:
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(image).float() / 255 - mean) / std).permute(2, 0, 1)


@pytest.mark.parametrize(("name", "what"), cases())
def test_agrees_with_the_golden_answers_of_captum_and_torchcam(name: str, what: str) -> None:
    with np.load(FILE) as answers:
        wanted = answers[f"{name}, {what}"]
    assert np.unique(wanted.round(9)).size > 100
    assert error(ours(name, what), wanted) <= 1e-5  # float64 but for the accumulation over crops


def test_a_vit_has_no_cam_and_is_told_what_to_take() -> None:
    with pytest.raises(DataError, match="no class activation map; take grad_cam, hires_cam or layer_cam"):
        ours("vit", "cam")
    assert float(ours("vit", "grad_cam").max()) > 0


def test_cam_and_saliency_are_what_they_are(model: nn.Sequential, image: np.ndarray) -> None:
    inputs = normalised(image)[None].requires_grad_()
    features = model[:5](inputs)
    scores = pl.explain(model, image, [3, 1], method="cam")
    votes = torch.einsum("cd,bdhw->bchw", model[7].weight[[3, 1]], features).detach()
    wanted = nn.functional.interpolate(votes.relu(), size=(48, 64), mode="bilinear")[0]
    torch.testing.assert_close(scores.values, wanted, rtol=1e-4, atol=1e-6)
    assert scores.ids == (1, 2)
    model(inputs)[0, 3].backward()
    assert inputs.grad is not None
    explained = pl.explain(model, image, [3], method={"name": "saliency", "channels": "l2"})
    torch.testing.assert_close(explained.values[0], inputs.grad[0].norm(dim=0), rtol=1e-4, atol=1e-8)
    assert not explained.values.requires_grad


def test_an_image_may_come_in_any_form(model: nn.Sequential, image: np.ndarray) -> None:
    wanted = pl.explain(model, image, [0, 2]).values
    assert len(np.unique(wanted.numpy().round(9))) > 100
    shown = np.zeros((64, 48, 4), np.uint8)  # turned, with an alpha channel
    shown[..., :3], shown[..., 3] = np.rot90(image), 255
    turned = Image.fromarray(shown)
    turned.getexif()[0x0112] = 6
    flipped = np.ascontiguousarray(image[:, ::-1])[:, ::-1]
    for form in (Image.fromarray(image), turned, flipped, normalised(image), normalised(image)[None]):
        torch.testing.assert_close(pl.explain(model, form, [0, 2]).values, wanted, rtol=1e-5, atol=1e-9)
    palette = Image.fromarray(image).quantize(16)
    torch.testing.assert_close(
        pl.explain(model, palette, [0]).values,
        pl.explain(model, np.asarray(palette.convert("RGB")), [0]).values,
    )


def test_normalisation_is_given_or_the_models_own_or_imagenets(
    model: nn.Sequential, image: np.ndarray
) -> None:
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    plain = pl.explain(model, tensor, [0]).values
    torch.testing.assert_close(pl.explain(model, image, [0], mean=[0, 0, 0], std=[1, 1, 1]).values, plain)
    assert error(pl.explain(model, image, [0]).values.numpy(), plain.numpy()) > 0.01
    model.pretrained_cfg = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}  # type: ignore[assignment]
    torch.testing.assert_close(pl.explain(model, image, [0]).values, plain)


def test_classes_by_name_index_and_group(model: nn.Sequential, image: np.ndarray) -> None:
    wanted = pl.explain(model, image, [4, 1], method="cam").values
    assert torch.equal(pl.explain(model, image, ["fox", "dog"], names=NAMES, method="cam").values, wanted)
    for key, carried in (
        ("class_names", NAMES),
        ("names", dict(enumerate(NAMES))),
        ("config", SimpleNamespace(id2label=dict(enumerate(NAMES)))),
    ):
        setattr(model, key, carried)
        assert torch.equal(pl.explain(model, image, ["fox", np.int64(1)], method="cam").values, wanted)
        delattr(model, key)
    grouped = pl.explain(model, image, {"pet": [0, 1], "fox": [4]}, method="saliency")
    assert grouped.ids == (1, 2)
    inputs = normalised(image)[None].requires_grad_()
    model(inputs)[:, [0, 1]].logsumexp(1).sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(grouped.values[0], inputs.grad[0].abs().amax(0), rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(grouped.values[1:], pl.explain(model, image, [4]).values, rtol=1e-4, atol=1e-8)
    nothing = pl.explain(model, image, [])
    assert (nothing.ids, tuple(nothing.values.shape)) == ((), (0, 48, 64))


def test_crops_follow_from_the_seed_alone(model: nn.Sequential, image: np.ndarray) -> None:
    def crops(**more: Any) -> Tensor:
        return pl.explain(model, image, [0], aggregate=[CROPS], **more).values

    torch.manual_seed(5)
    state = torch.get_rng_state()
    wanted = crops()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(crops(), wanted)
    torch.testing.assert_close(crops(batch=1), wanted, rtol=1e-4, atol=1e-7)
    assert error(crops(seed=1).numpy(), wanted.numpy()) > 0.1


def test_aggregators_nest(model: nn.Sequential, image: np.ndarray) -> None:
    nested = [("smoothgrad", {"count": 2}), {"name": "multiscale", "scales": [1.0, 0.5]}]
    values = pl.explain(model, image, [0], method="input_x_gradient", aggregate=nested).values
    assert values.shape == (1, 48, 64)
    assert float(values.max()) > 0


def test_crops_have_the_size_of_a_model_of_one_size() -> None:
    sizes: list[tuple[int, ...]] = []

    class Flat(nn.Module):
        image_size = 40

        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(
                nn.Conv2d(3, 4, 8, stride=8), nn.SiLU(), nn.Flatten(), nn.Linear(100, 3)
            )

        def forward(self, images: Tensor) -> Tensor:
            sizes.append(tuple(images.shape[2:]))
            return self.body(images)

    model, image = Flat(), random_images(1, 60, 80)
    default = pl.explain(model, image, [1], aggregate=[("random_crop", {"count": 3})]).values
    explicit = pl.explain(model, image, [1], aggregate=[("random_crop", {"count": 3, "size": 40})]).values
    other = pl.explain(model, image, [1], aggregate=[("random_crop", {"count": 3, "size": 64})]).values
    assert torch.equal(default, explicit)
    assert not torch.equal(default, other)
    assert (40, 40) in sizes
    large, small = image.requires_grad_(), Resize((60, 80), (40, 40), antialias=True)
    model.eval()(small(large))[0, 1].backward()
    torch.testing.assert_close(pl.explain(model, image, [1]).values[0], large.grad[0].abs().amax(0))  # type: ignore[index]


def test_a_layer_is_named_as_the_model_names_it(image: np.ndarray) -> None:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(8, 8, 3), nn.SiLU())
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.SiLU(), inner, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )
    chosen = pl.explain(model, image, [0], method="grad_cam").values
    assert torch.equal(pl.explain(model, image, [0], method=("grad_cam", {"layer": None})).values, chosen)
    last = pl.explain(model, image, [0], method=("grad_cam", {"layer": "2"})).values
    torch.testing.assert_close(last, chosen, rtol=1e-4, atol=1e-8)
    # "1" is a name of its own and the end of another
    first = pl.explain(model, image, [0], method=("grad_cam", {"layer": "1"})).values
    assert error(first.numpy(), chosen.numpy()) > 0.01
    with pytest.raises(DataError, match="layer: '8' is not a module of the network"):
        pl.explain(model, image, [0], method=("grad_cam", {"layer": "8"}))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"method": "salency"}, r"method\.name: 'salency' is not known; did you mean 'saliency'\?"),
        ({"method": ("saliency", {"chanels": "l2"})}, r"method\.chanels: .*did you mean 'channels'\?"),
        ({"method": ("saliency", {"channels": "L2"})}, r"method\.channels: 'L2' is not known here; choose"),
        ({"method": ("saliency",)}, r"method: \('saliency',\) is no step; write \"name\""),
        (
            {"aggregate": [("random_crop", {"count": 0})]},
            r"aggregate\.0\.count: 0 is not at least 1 crops; the default is 200",
        ),
        ({"aggregate": ["random_crops"]}, r"aggregate\.0\.name: .*did you mean 'random_crop'\?"),
        (
            {"aggregate": "random_crop"},
            r"aggregate: 'random_crop' is no list of steps; write \['random_crop'\]",
        ),
        ({"classes": ["catt"], "names": NAMES}, r"classes: 'catt' is not a class; did you mean 'cat'\?"),
        (
            {"classes": ["cat"]},
            r"classes: 'cat' is a name, and the model carries none; give names=\[\.\.\.\] of its 5",
        ),
        ({"classes": [5]}, r"classes: 5, not a logit index of 0\.\.4"),
        ({"classes": [True]}, r"classes: True, not a logit index of 0\.\.4"),
        ({"classes": [1, 1]}, r"classes: 1 stands twice; keep one"),
        ({"classes": "cat"}, r"classes: 'cat' is no list of names or logit indices; write \['cat'\]"),
        ({"classes": {"pet": 3}}, r"classes: 'pet' has no list of logit indices; write \{'pet': \[0, 3\]\}"),
        ({"classes": {"pet": [3, 9]}}, r"classes: 'pet' has 9, not a logit index of 0\.\.4"),
        ({"names": ["cat"]}, r"names: 1 for 5 logits; give one for each logit"),
        ({"batch": 0}, r"batch: 0 is not 'auto' or a number of items above 0"),
        ({"precision": "half"}, r"precision: 'half' is not known; choose float32 or bf16"),
        ({"std": [1, 1, 0]}, r"std: \[1, 1, 0\] is not RGB in 0\.\.1, above 0"),
        (
            {"image": np.zeros((4, 4), np.uint8)},
            r"image: an array \(4, 4\) of uint8 is not uint8 RGB \(H, W, 3\)",
        ),
        (
            {"image": torch.zeros(2, 3, 8, 8)},
            r"image: a tensor \(2, 3, 8, 8\) of torch\.float32 is not a normalised",
        ),
        (
            {"image": torch.zeros(3, 8, 8, dtype=torch.uint8)},
            r"image: a tensor .* of torch\.uint8 is not a normalised",
        ),
        ({"image": "cat.jpg"}, r"image: a str is no PIL image and no uint8 array"),
    ],
)
def test_wrong_use_is_told_in_one_line(
    model: nn.Sequential, image: np.ndarray, call: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        pl.explain(model, **{"image": image, "classes": [0], **call})
    assert "\n" not in str(refused.value)


def test_a_map_that_is_not_finite_is_refused_and_a_flat_one_is_0(
    model: nn.Sequential, image: np.ndarray
) -> None:
    tensor = normalised(image)
    tensor[0, 3, 4] = torch.nan
    with pytest.raises(NumericError, match="the map of class 2 holds NaN or infinity"):
        pl.explain(model, tensor, [2])
    model[7].weight.data[1] = 0
    flat = pl.explain(model, image, [1, 2], method="cam").values
    assert not flat[0].any()
    assert flat[1].any()


@pytest.mark.parametrize("end", ["normal", "no layer", "module raises", "no class"])
def test_the_model_is_left_as_it_was(model: nn.Sequential, image: np.ndarray, end: str) -> None:
    model.train()
    model(random_images(2)).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    calls: list[int] = []
    if end == "module raises":
        model[3].register_forward_pre_hook(
            lambda *_: calls.append(1) or (_ for _ in ()).throw(ArithmeticError("planted"))
        )
    before, tensor = dict(state_of(model)), normalised(image)
    if end == "normal":
        for method in ("cam", "saliency", "grad_cam"):
            pl.explain(model, tensor, [0], method=method, aggregate=[CROPS])
    elif end == "no layer":
        with pytest.raises(DataError, match="layer"):
            pl.explain(model, tensor, [0], method=("grad_cam", {"layer": "head"}))
    elif end == "no class":
        with pytest.raises(UsageError, match="classes"):
            pl.explain(model, tensor, [9])
    else:
        with pytest.raises(DataError, match=r"model: takes no normalised image .*ArithmeticError: planted"):
            pl.explain(model, tensor, [0])
        assert calls
    after = dict(state_of(model))
    assert before.keys() == after.keys()
    for name, value in before.items():
        same = torch.equal(value, after[name]) if isinstance(value, Tensor) else value == after[name]  # type: ignore[arg-type]
        assert same, name
    assert all(
        torch.equal(gradient, p.grad) for gradient, p in zip(gradients, model.parameters(), strict=True)
    )  # type: ignore[arg-type]
    assert torch.equal(tensor, normalised(image))
    assert not tensor.requires_grad


def test_mode_precision_and_grad_mode_of_the_caller_change_nothing(
    model: nn.Sequential, image: np.ndarray
) -> None:
    wanted = pl.explain(model, image, [0], aggregate=[CROPS]).values
    assert torch.equal(pl.explain(model.train(), image, [0], aggregate=[CROPS]).values, wanted)
    for context in (torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)):
        with context:
            assert torch.equal(pl.explain(model, image, [0], aggregate=[CROPS]).values, wanted)
            inside = normalised(image)
            torch.testing.assert_close(pl.explain(model, inside, [0], aggregate=[CROPS]).values, wanted)
    exact = pl.explain(model.double(), image, [0], aggregate=[CROPS]).values
    assert exact.dtype == torch.float32
    assert 0 < error(wanted.numpy(), exact.numpy()) < 1e-4
    rough = pl.explain(model.float(), image, [0], aggregate=[CROPS], precision="bf16").values
    assert 0 < error(rough.numpy(), exact.numpy()) < 0.1


@pytest.mark.parametrize("method", ["cam", "saliency"])
def test_equals_pl_generate_on_a_classifier_of_pl_train(place: Path, tmp_path: Path, method: str) -> None:
    chosen = recipe(place, maps=[{"method": {"name": method}, "refine": [{"name": "normalise"}]}])
    generate(chosen, tmp_path / "run", workers=0, quiet=True)
    loaded = load_classifier(place / "run")
    image = Image.open(place / "images" / "p2.png")
    scores = pl.explain(
        loaded.network,
        image,
        ["cat", "dog", "sheep"],
        names=loaded.space.names[1:],
        method=method,
        mean=loaded.mean,
        std=loaded.std,
    )
    stored = load_file(tmp_path / "run" / "maps" / "p2.safetensors")
    assert stored["ids"].tolist() == list(scores.ids)
    # images of one size share a batch there, which moves float32 sums
    scale = float(stored["scores"].abs().max())
    torch.testing.assert_close(scores.values, stored["scores"], rtol=1e-4, atol=1e-5 * scale)
    mask = pl.to_mask(
        Scores(scores.ids, stored["scores"]), image, refine=["normalise"], background="constant"
    )
    assert np.array_equal(mask, read_mask(tmp_path / "run" / "masks" / "p2.png"))
    assert len(np.unique(mask)) > 1


def test_the_package_is_the_function_before_and_after_its_modules_are_imported() -> None:
    code = """
import sys, pseudolabel as pl
assert "torch" not in sys.modules
first = pl.explain
assert "torch" not in sys.modules
import pseudolabel.explain.model
assert pl.explain is first is pseudolabel.explain
assert callable(pl.explain)
from pseudolabel import explain
assert explain is first
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
assert pl.explain(model, torch.randn(3, 20, 20), [0]).ids == (1,)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert list(inspect.signature(pl.explain).parameters)[:3] == ["model", "image", "classes"]


def test_the_examples_of_the_docstrings_hold() -> None:
    for name in ("explain.public", "pipeline.to_mask"):
        done = doctest.testmod(importlib.import_module(f"pseudolabel.{name}"))
        assert done.attempted >= 3
        assert not done.failed


def test_a_device_that_is_not_there_is_told_in_one_line(model: nn.Sequential, image: np.ndarray) -> None:
    for device in ("gpu", "cuda:99"):
        with pytest.raises(MachineError, match=f"device: '{device}' cannot be used") as refused:
            pl.explain(model, image, [0], device=device)
        assert "\n" not in str(refused.value)


def test_a_damaged_file_behind_a_pillow_image_is_told(model: nn.Sequential, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-30])
    with Image.open(tmp_path / "cut.png") as image, pytest.raises(DataError, match=r"cut\.png: is damaged"):
        pl.explain(model, image, [0])
