"""The classifier that a recipe names, ready to be explained: a trained one, or a published one as it is."""

from __future__ import annotations

from pseudolabel import weights
from pseudolabel.classifier.checkpoint import LoadedClassifier, load_classifier
from pseudolabel.classifier.class_map import IMAGENET, mapped, read_class_map
from pseudolabel.errors import DataError
from pseudolabel.recipes.schema import ClassifierSource
from pseudolabel.records import LabelSpace
from pseudolabel.runs import disk


def load_chosen(
    chosen: ClassifierSource, space: LabelSpace | None, *, given: bool = True
) -> LoadedClassifier:
    """Load the classifier of a recipe.

    Args:
        chosen: section of the recipe.
        space: the data's class list, or None where it has none of its own.
        given: labels come from the data, so that a trained classifier must have its very classes.

    Returns:
        The network in evaluation mode on the CPU. The class list of a trained one is its own, that of a
        published one the data's, or its class map's names where the data has none.

    Raises:
        DataError: missing or damaged, another network's weights, other classes, or names without an id.
        MachineError, UsageError: see `pseudolabel.weights`.
    """
    if chosen.checkpoint is not None:
        return load_classifier(chosen.checkpoint, expect=space if given else None)
    assert chosen.backbone is not None
    assert chosen.class_map is not None
    classes = mapped(read_class_map(chosen.class_map), space, chosen.leave_out)
    decided = weights.digest(chosen.backbone, chosen.weights)
    mean, std = _normalisation(chosen, chosen.backbone)

    from pseudolabel.classifier.pretrained import pretrained

    network, source = pretrained(chosen.backbone, chosen.weights, output_stride=chosen.output_stride)
    raw = network.head.out_features
    if raw != IMAGENET:
        raise DataError(
            f"classifier.backbone: {chosen.backbone!r} has {raw} logits, a class map speaks of ImageNet's "
            f"{IMAGENET}; take weights of ImageNet-1k"
        )
    about = {
        "backbone": chosen.backbone,
        "weights": decided,
        "output_stride": network.stride,
        "mean": list(mean),
        "std": list(std),
        "classes": list(classes.space.names),
        "known": list(classes.known),
        "groups": [list(group) for group in classes.groups],
    }
    digest = disk.digest(about)
    return LoadedClassifier(
        network,
        classes.space,
        mean,
        std,
        chosen.backbone,
        network.stride,
        digest,
        {},
        digest,
        classes.known,
        classes.groups,
        source,
    )


def _normalisation(chosen: ClassifierSource, backbone: str) -> tuple[weights.RGB, weights.RGB]:
    """Mean and standard deviation of the recipe, or else those that the weights were trained with."""
    if chosen.mean is not None and chosen.std is not None:
        return chosen.mean, chosen.std
    mean, std = weights.normalisation(backbone, chosen.weights)
    return chosen.mean or mean, chosen.std or std
