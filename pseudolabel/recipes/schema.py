"""What the recipes of `pl` hold; docs/recipes.md is made from here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from pseudolabel.errors import UsageError
from pseudolabel.recipes.loading import load_recipe
from pseudolabel.recipes.section import Key, Section
from pseudolabel.recipes.steps import (
    AggregatorStep,
    BackgroundStep,
    MethodStep,
    ObjectiveStep,
    PostprocessorStep,
    ReaderStep,
    RefinerStep,
)
from pseudolabel.registry import parameter

Precision = Literal["float32", "bf16", "float16"]


class TrainNetwork(Section):
    """The classifier: a backbone's grid of features, global average pooling, a linear head without bias."""

    backbone: str = parameter(help="a model of timm, transformers included, or torchvision/NAME")
    weights: str = parameter("package", help="package | hub | none | a path to .safetensors or .pth")
    output_stride: int = parameter(16, ge=4, le=32, unit="pixels a feature cell", help="by dilation")
    mean: tuple[float, float, float] | None = parameter(
        None, unit="RGB in 0..1", help="subtracted from the image; null takes the weights' own"
    )
    std: tuple[float, float, float] | None = parameter(
        None, unit="RGB in 0..1", help="the image is divided by it; null takes the weights' own"
    )


class TrainOptimizer(Section):
    """Stochastic gradient descent as the field uses it."""

    lr: float = parameter(gt=0, help="learning rate of the backbone")
    head_factor: float = parameter(10.0, gt=0, help="the head learns this many times faster")
    momentum: float = parameter(0.9, ge=0, lt=1, help="momentum; IRN's published recipe has 1e-4 in effect")
    weight_decay: float = parameter(1e-4, ge=0, help="L2 on every trained parameter")
    clip: float | None = parameter(5.0, gt=0, help="largest gradient norm; null does not clip")
    frozen_norm: bool = parameter(True, help="batch norm keeps its running statistics")
    frozen_stem: bool = parameter(False, help="the first convolution and its norm do not learn")
    frozen_stages: int = parameter(0, ge=0, unit="stages", help="neither do so many after the stem (IRN: 2)")


class TrainSchedule(Section):
    """Polynomial decay per step: (1 - step / steps) ** power."""

    epochs: int = parameter(ge=1, help="passes over the list")
    batch: int = parameter(16, ge=1, unit="images", help="images of one step")
    power: float = parameter(0.9, ge=0, help="exponent of the decay")
    last_batch: Literal["keep", "drop"] = parameter(
        "keep",
        help="incomplete last batch of an epoch: a step of its own, or dropped as IRN does",
    )


class TrainAugmentation(Section):
    """What a training image goes through: resize, flip, crop."""

    resize: tuple[int, int] = parameter(
        (320, 640), unit="pixels of the long side", help="drawn uniformly for each image"
    )
    crop: int = parameter(512, ge=8, unit="pixels", help="square crop, padded with the mean colour")
    flip: bool = parameter(True, help="left-right with probability one half")

    def check(self) -> Iterator[tuple[Key, str]]:
        if not 1 <= self.resize[0] <= self.resize[1]:
            yield ("resize",), f"{list(self.resize)} is not an ascending pair of pixels"


class Noise(Section):
    """Perturbation of every training image, so that noise methods get a classifier that knows noise."""

    kind: Literal["gaussian", "bernoulli"] = parameter(help="noise added, or pixels removed")
    sigma: float = parameter(
        0.15, gt=0, unit="share of the normalised image's range", help="gaussian: standard deviation"
    )
    keep: float = parameter(0.9, gt=0, lt=1, unit="share 0..1", help="bernoulli: how many pixels stay")
    per_channel: bool = parameter(False, help="bernoulli: a mask for each channel instead of one for all")
    validation: bool = parameter(True, help="validation images are perturbed as well")


class TrainRecipe(Section):
    """`pl train`: image-level labels to a classifier."""

    seed: int = parameter(0, ge=0, help="root of every random draw")
    data: ReaderStep = parameter(help="reader of the training images with their labels")
    validation: dict[str, Any] | None = parameter(
        None, help="keys that replace those of `data` for the validation images, {split: val}"
    )
    network: TrainNetwork
    optimizer: TrainOptimizer
    schedule: TrainSchedule
    augmentation: TrainAugmentation = Field(default_factory=lambda: TrainAugmentation())
    objective: tuple[ObjectiveStep, ...] = Field(
        default_factory=lambda: (ObjectiveStep(name="soft_margin"),),
        min_length=1,
        description="what is minimised: a weighted sum of objectives",
    )
    noise: Noise | None = parameter(None, help="perturbation of the training images; null: none")
    evaluate_at: int = parameter(
        0, ge=0, unit="pixels of the long side", help="size of validation images; 0 leaves them"
    )
    precision: Precision = parameter("float32", help="float32, or bf16 / float16 autocast")
    channels_last: bool = parameter(True, help="memory layout; the same results, faster")
    on_nan: Literal["stop", "skip"] = parameter(
        "stop", help="a loss or gradient that is not finite ends the run, or its step is left out"
    )

    def check(self) -> Iterator[tuple[Key, str]]:
        for key, message in self.augmentation.check():
            yield ("augmentation", *key), message
        names = [step.component_name for step in self.objective]
        for index, name in enumerate(names):
            if name in names[:index]:
                yield ("objective", index), f"{name!r} stands twice; keep one and change its weight"
        if not any(step.params.as_dict()["weight"] for step in self.objective):
            yield ("objective",), "every weight is 0; give one above 0"
        yield from check_validation(self.data, self.validation)


class ClassifierSource(Section):
    """The classifier that maps are taken from: a trained one, or a published one as it is."""

    checkpoint: str | None = parameter(None, help="a run of `pl train`, or its classifier.safetensors")
    backbone: str | None = parameter(
        None, help="instead: a model of timm, or torchvision/NAME, with its own ImageNet head"
    )
    weights: str = parameter(
        "package", help="of that: package | hub | a path to .safetensors or .pth with the head in it"
    )
    class_map: str | None = parameter(None, help="of that: YAML file `name: [ImageNet ids]`")
    output_stride: int | None = parameter(
        None, ge=4, le=32, unit="pixels a feature cell", help="of that: by dilation; null leaves its own"
    )
    mean: tuple[float, float, float] | None = parameter(
        None, unit="RGB in 0..1", help="of that: null takes the weights' own"
    )
    std: tuple[float, float, float] | None = parameter(
        None, unit="RGB in 0..1", help="of that: null takes the weights' own"
    )
    leave_out: tuple[str, ...] = parameter(
        (), help="of that: classes of the data that it cannot tell; their pixels count as background"
    )

    def check(self) -> Iterator[tuple[Key, str]]:
        if self.checkpoint is None and self.backbone is None:
            yield (), "names no classifier; write checkpoint: RUN of `pl train`, or backbone and class_map"
        elif self.checkpoint is not None and self.backbone is not None:
            yield ("backbone",), "a checkpoint knows its own; keep one of checkpoint and backbone"
        elif self.checkpoint is not None:
            for key, field in type(self).model_fields.items():
                if key not in ("checkpoint", "backbone") and getattr(self, key) != field.default:
                    yield (key,), "a checkpoint knows its own; leave it out"
        else:
            if self.class_map is None:
                yield ("class_map",), "is missing; name a file, such as configs/voc/imagenet.yaml"
            if self.weights == "none":
                yield ("weights",), "a classifier at random knows nothing; write package, hub or a path"
            for key in ("mean", "std"):
                values = getattr(self, key)
                if values is not None and not all(0 <= v <= 1 and (v > 0 or key == "mean") for v in values):
                    yield (key,), f"{list(values)} is not RGB in 0..1"


class Labels(Section):
    """Where the image-level labels come from."""

    source: Literal["given", "predicted"] = parameter("given", help="the data's, or the classifier's own")
    threshold: float = parameter(
        0.5, gt=0, lt=1, unit="probability", help="predicted: a class above it is present"
    )


class Branch(Section):
    """One kind of map and what is done to it."""

    method: MethodStep = parameter(help="the map method")
    aggregate: tuple[AggregatorStep, ...] = parameter((), help="aggregators, innermost first")
    refine: tuple[RefinerStep, ...] = parameter((), help="refiners in the order they run")


class Fuse(Section):
    """Several kinds of map made one."""

    by: Literal["mean", "max", "geometric"] = parameter("mean", help="how the refined maps are combined")
    weights: tuple[Annotated[float, Field(ge=0)], ...] | None = parameter(
        None, help="one a branch; null weighs all alike, max takes none"
    )
    refine: tuple[RefinerStep, ...] = parameter((), help="refiners of the combined map")


class Output(Section):
    """What is written beside the masks."""

    maps: bool = parameter(False, help="raw maps, for `pl sweep` and `pl refine`")
    overlays: bool = parameter(False, help="masks laid over the images")
    superpixels: str | None = parameter(
        None, help="folder that superpixels are kept in, for runs to come; null makes them anew"
    )


class GenerateRecipe(Section):
    """`pl generate`: a classifier and labels to pseudo-masks."""

    seed: int = parameter(0, ge=0, help="root of every random draw")
    data: ReaderStep = parameter(help="reader of the images with their labels")
    classifier: ClassifierSource
    labels: Labels = Field(default_factory=lambda: Labels())
    maps: tuple[Branch, ...] = parameter(min_length=1, help="how maps are made; several are fused")
    fuse: Fuse | None = parameter(None, help="how several branches become one")
    background: BackgroundStep = parameter(help="how scores become background and classes")
    postprocess: tuple[PostprocessorStep, ...] = parameter((), help="postprocessors in the order they run")
    output: Output = Field(default_factory=lambda: Output())
    batch: Annotated[int, Field(ge=1)] | Literal["auto"] = parameter(
        "auto", unit="images or crops", help="of one forward; auto: 4 on each core of a CPU, 64 on a GPU"
    )
    precision: Literal["float32", "bf16"] = parameter(
        "float32", help="bf16 autocast is faster on hardware that has it and changes the maps a little"
    )
    no_label: Literal["refuse", "background", "ignore"] = parameter(
        "refuse", help="an image without a class: an error, a mask of 0, or a mask of 255"
    )

    def check(self) -> Iterator[tuple[Key, str]]:
        from pseudolabel.recipes.composition import misfits

        for key, message in self.classifier.check():
            yield ("classifier", *key), message
        if len(self.maps) == 1 and self.fuse is not None:
            yield ("fuse",), "there is one branch; fuse takes several"
        elif len(self.maps) > 1 and self.fuse is None:
            yield ("fuse",), f"{len(self.maps)} branches; say how they become one, {{by: mean}}"
        elif self.fuse is not None and self.fuse.weights is not None:
            if self.fuse.by == "max":
                yield ("fuse", "weights"), "max takes no weights; leave them out"
            elif len(self.fuse.weights) != len(self.maps):
                yield ("fuse", "weights"), f"{len(self.fuse.weights)} for {len(self.maps)} branches"
            elif not sum(self.fuse.weights):
                yield ("fuse", "weights"), "all are 0; give one above 0"
        yield from misfits(
            self.maps, self.fuse.refine if self.fuse else (), self.background, self.postprocess
        )


def check_validation(data: ReaderStep, validation: dict[str, Any] | None) -> Iterator[tuple[Key, str]]:
    """Faults of the validation overrides, found by building the reader they make."""
    if validation is None:
        return
    try:
        validation_step(data, validation)
    except UsageError as error:
        yield ("validation",), str(error).splitlines()[0].removeprefix("recipe: ")


def validation_step(data: ReaderStep, validation: dict[str, Any]) -> ReaderStep:
    """The reader of `data` with some keys replaced.

    Raises:
        UsageError: a key that the reader does not know, or a value that it refuses.
    """

    return load_recipe({"data": {**data.model_dump(mode="json"), **validation}}, _OnlyData).data


class _OnlyData(Section):
    data: ReaderStep


RECIPES: dict[str, type[Section]] = {"pl train": TrainRecipe, "pl generate": GenerateRecipe}
