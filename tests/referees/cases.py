"""Which referee is asked about which method, and how far our answer is from its."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pseudolabel import registry
from pseudolabel.explain.method import build
from pseudolabel.explain.model import Explained
from pseudolabel.records import Targets
from tests.referees.scenes import Scene

LABELS = [(1, 3), (2, 4, 1)]
STEPS = 12  # of integrated gradients
BACKBONES = ("smooth resnet18", "smooth tf_efficientnet_lite0")

# torchcam 0.5 has a Grad-CAM++ as well; its division falls on a copy, so that it weights by sum g^2 ReLU(g)
REFEREES = {
    "cam": ("torchcam_cam",),
    "grad_cam": ("captum_grad_cam", "torchcam_grad_cam", "pytorch_grad_cam_grad_cam"),
    "grad_cam_pp": ("pytorch_grad_cam_grad_cam_pp",),
    "hires_cam": ("captum_hires_cam", "pytorch_grad_cam_hires_cam"),
    "input_x_gradient": ("captum_input_x_gradient",),
    "integrated_gradients": ("captum_integrated_gradients", "captum_integrated_gradients_midpoint"),
    "layer_cam": ("torchcam_layer_cam", "pytorch_grad_cam_layer_cam"),
    "saliency": ("captum_saliency",),
}


@dataclass(frozen=True)
class Case:
    """A method, who else computes it, on which scene, at the last features or a named layer."""

    method: str
    referee: str
    scene: str
    named: bool = False

    def __str__(self) -> str:
        return f"{self.referee}, {self.scene}" + (", named layer" if self.named else "")


def cases(scenes: tuple[str, ...]) -> list[Case]:
    """Every method and referee on every scene; Grad-CAM++ on loud ones, for the sake of their epsilon."""
    listed = []
    for method, scene in product(REFEREES, scenes):
        layers = "layer" in registry.get("methods", method).params.model_fields
        loud = method == "grad_cam_pp"
        for referee, named in product(REFEREES[method], (False, True) if layers and not loud else (False,)):
            listed.append(Case(method, referee, f"loud {scene}" if loud else scene, named))
    return listed


def ours(case: Case, where: Scene, images: Tensor) -> list[NDArray[np.floating]]:
    """Our attribution for every target, signed; of layers without the axis of one channel."""
    options: dict[str, object] = {"layer": where.named} if case.named else {}
    if case.method == "integrated_gradients":
        rule = "midpoint" if case.referee.endswith("midpoint") else "gauss_legendre"
        options = {"steps": STEPS, "rule": rule}
    component = registry.get("methods", case.method)
    line = build((component, component.params.model_validate(options)))
    keys = [(0, index) for index in range(len(images))]
    values = line.explain(Explained(where.network), images, Targets.of(LABELS), keys).values.numpy()
    return [row[0] if len(row) == 1 else row for row in values]


def error(case: Case, actual: list[NDArray[np.floating]], wanted: list[NDArray[np.floating]]) -> float:
    """The largest difference of any target, relative to the largest value of its map."""
    worst = 0.0
    for signed, answer in zip(actual, wanted, strict=True):
        rectified = case.referee.startswith("torchcam") and case.method != "cam"
        mine = signed.clip(min=0) if rectified else signed
        scale = np.abs(answer).max() or np.abs(signed).max()
        worst = max(worst, float(np.abs(mine - answer).max() / scale))
    return worst
