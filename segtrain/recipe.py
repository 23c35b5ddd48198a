"""What the recipe of `seg train` holds; docs/recipes.md is made from here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from pseudolabel.recipes.schema import Precision, check_validation
from pseudolabel.recipes.section import Key, Section
from pseudolabel.recipes.steps import ReaderStep, Step
from pseudolabel.registry import parameter


class SegNetwork(Section):
    """The segmentation network: an encoder from timm or smp and a decoder."""

    decoder: Literal["deeplabv3plus", "deeplabv3"] = parameter(
        "deeplabv3plus", help="decoder of segmentation-models-pytorch"
    )
    encoder: str = parameter(help="an smp encoder: resnet50, ..., or tu-<timm model> for any timm model")
    weights: str = parameter("package", help="package | hub | none | a path to .safetensors or .pth")
    output_stride: Literal[8, 16] = parameter(16, unit="pixels a feature cell", help="by dilation")
    mean: tuple[float, float, float] | None = parameter(
        None, unit="RGB in 0..1", help="subtracted from the image; null takes the weights' own"
    )
    std: tuple[float, float, float] | None = parameter(
        None, unit="RGB in 0..1", help="the image is divided by it; null takes the weights' own"
    )


class LossStep(Step):
    """What is minimised; pixels of 255 never count."""

    kind = "losses"
    name: str


class SegOptimizer(Section):
    """Stochastic gradient descent with a faster decoder."""

    lr: float = parameter(7e-3, gt=0, help="learning rate of the encoder")
    decoder_factor: float = parameter(10.0, gt=0, help="decoder and head learn this many times faster")
    momentum: float = parameter(0.9, ge=0, lt=1, help="momentum")
    weight_decay: float = parameter(1e-4, ge=0, help="L2 on every trained parameter")
    clip: float | None = parameter(None, gt=0, help="largest gradient norm; null does not clip")
    frozen_norm: bool = parameter(False, help="batch norm of the encoder keeps its running statistics")


class SegSchedule(Section):
    """Polynomial decay per step: (1 - step / steps) ** power."""

    epochs: int = parameter(ge=1, help="passes over the list; a larger number extends a finished run")
    batch: int = parameter(8, ge=1, unit="images", help="images of one step, over all ranks")
    accumulate: int = parameter(
        1,
        ge=1,
        help="forwards that a batch is split into; a loss that does not add up over pixels is their mean",
    )
    power: float = parameter(0.9, ge=0, help="exponent of the decay")
    validate_every: int = parameter(1, ge=1, unit="epochs", help="how often; the last epoch always is")


class SegAugmentation(Section):
    """What a training image and its mask go through together: scale, flip, crop."""

    scale: tuple[float, float] = parameter(
        (0.5, 1.5), unit="times the image's size", help="drawn uniformly for each image"
    )
    crop: int = parameter(321, ge=16, unit="pixels", help="square crop, padded with the mean colour and 255")
    flip: bool = parameter(True, help="left-right with probability one half")

    def check(self) -> Iterator[tuple[Key, str]]:
        if not 0 < self.scale[0] <= self.scale[1] <= 8:
            yield ("scale",), f"{list(self.scale)} is not an ascending pair of factors in (0, 8]"


class SegRecipe(Section):
    """`seg train`: images and masks to a segmentation network."""

    seed: int = parameter(0, ge=0, help="root of every random draw")
    data: ReaderStep = parameter(help="reader of the training images")
    masks: str | None = parameter(
        None, help="a run of `pl generate` or a folder of <id>.png; null takes the data's own masks"
    )
    validation: dict[str, Any] | None = parameter(
        None, help="keys that replace those of `data` for the validation images, {split: val}"
    )
    network: SegNetwork
    loss: LossStep = Field(
        default_factory=lambda: LossStep(name="cross_entropy"),
        description="what is minimised; pixels of 255 never count",
    )
    optimizer: SegOptimizer = Field(default_factory=lambda: SegOptimizer())
    schedule: SegSchedule
    augmentation: SegAugmentation = Field(default_factory=lambda: SegAugmentation())
    precision: Precision = parameter("float32", help="float32, or bf16 / float16 autocast")
    channels_last: bool = parameter(True, help="memory layout; the same results, faster")
    on_nan: Literal["stop", "skip"] = parameter(
        "stop", help="a loss or gradient that is not finite ends the run, or its step is left out"
    )
    average_over: tuple[str, ...] | None = parameter(
        None, help="classes that the means are taken over; null takes all"
    )

    def check(self) -> Iterator[tuple[Key, str]]:
        for key, message in self.augmentation.check():
            yield ("augmentation", *key), message
        if self.schedule.accumulate > self.schedule.batch:
            message = f"{self.schedule.accumulate} parts of a batch of {self.schedule.batch}; take fewer"
            yield ("schedule", "accumulate"), message
        yield from check_validation(self.data, self.validation)


def decisive(recipe: SegRecipe) -> dict[str, Any]:
    """What of a recipe decides the bytes of a training, without paths, as plain data.

    Data, masks and weights are left out: their digests stand beside it. So is the number of epochs, since
    a larger one extends a finished run.
    """
    plain = recipe.model_dump(mode="json", exclude={"data", "masks", "validation"})
    del plain["network"]["weights"], plain["schedule"]["epochs"]
    return plain


RECIPES: dict[str, type[Section]] = {"seg train": SegRecipe}
