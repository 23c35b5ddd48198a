"""What `pl train` minimises: a weighted sum of objectives, each with its parameters and its own modules.

    L = sum_k weight_k L_k

An objective is called with (network, images, targets, draws, params). Further keyword arguments follow from
its traits. `own` is the module that its trait `modules` has made. `classify`, for one that says `wraps=True`,
is a function of (logits, targets): the classification loss of the first objective of the list that has one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pseudolabel import registry
from pseudolabel.draws import generator, seed_of
from pseudolabel.errors import UsageError
from pseudolabel.recipes.steps import ObjectiveStep
from pseudolabel.records import ObjectiveValue

Draws = Callable[[str, int], torch.Generator]  # (name of the objective, row of the image in the batch)


@dataclass(frozen=True)
class Term:
    """One objective of the sum.

    Attributes:
        component: the objective.
        params: its parameters, the weight among them.
        own: the module that it brings, or None.
    """

    component: registry.Component
    params: Any
    own: nn.Module | None

    @property
    def name(self) -> str:
        """Of the component."""
        return self.component.name

    @property
    def lr_factor(self) -> float:
        """How many times faster than the backbone its own module learns."""
        return float(self.params.lr_factor)


@dataclass(frozen=True)
class Terms:
    """The objectives of a recipe, in its order."""

    terms: tuple[Term, ...]

    @staticmethod
    def of(steps: Sequence[ObjectiveStep], network: nn.Module, classes: int, seed: int) -> Terms:
        """Objectives with their own modules, whose start values follow from the seed and the name.

        Args:
            steps: of the recipe.
            network: the classifier.
            classes: C.
            seed: root of the draws.
        """
        terms = []
        for step in steps:
            own, make = None, step.component.traits.get("modules")
            if make is not None:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed_of(seed, "objective", step.component_name))
                    own = make(network, classes, step.params)
            terms.append(Term(step.component, step.params, own))
        return Terms(tuple(terms))

    @property
    def modules(self) -> dict[str, nn.Module]:
        """Own modules by the prefix of their tensors in a state file."""
        return {f"objective.{term.name}": term.own for term in self.terms if term.own is not None}

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that `value` gives beside the loss."""
        active = [term for term in self.terms if term.params.weight]
        losses = [f"{term.name}.loss" for term in active if len(active) > 1]
        own = [f"{term.name}.{name}" for term in active for name in term.component.traits.get("figures", ())]
        return (*losses, *own)

    def check_ranks(self, world: int) -> None:
        """Refuse objectives that several ranks would not minimise as one does.

        Raises:
            UsageError: the loss of a batch is not the mean of the losses of its images.
        """
        alone = [term.name for term in self.terms if not term.component.traits.get("adds_up")]
        if world > 1 and alone:
            raise UsageError(
                f"objective: the loss of {alone[0]!r} is not a mean over images, so that {world} ranks would "
                "minimise another one; train on one device"
            )

    def value(self, network: nn.Module, images: Tensor, targets: Tensor, draws: Draws) -> ObjectiveValue:
        """The weighted sum over a batch.

        Args:
            network: the classifier.
            images: (B, 3, h, w) float32, normalised.
            targets: (B, C) float32, 1 where the image has the class.
            draws: a fresh generator of an objective for an image of the batch.

        Returns:
            Loss, and figures by the names in `figures`.
        """
        losses: list[Tensor] = []
        figures: dict[str, float] = {}
        active = [term for term in self.terms if term.params.weight]
        for term in active:
            value = self._call(term, network, images, targets, draws)
            losses.append(term.params.weight * value.loss)
            figures |= {f"{term.name}.{name}": float(figure) for name, figure in value.figures.items()}
            if len(active) > 1:
                figures[f"{term.name}.loss"] = float(value.loss.detach())
        total = losses[0]
        for loss in losses[1:]:
            total = total + loss
        return ObjectiveValue(total, figures)

    def _call(
        self, term: Term, network: nn.Module, images: Tensor, targets: Tensor, draws: Draws
    ) -> ObjectiveValue:
        further: dict[str, Any] = {}
        if term.own is not None:
            further["own"] = term.own
        if term.component.traits.get("wraps"):
            further["classify"] = self._classification()

        def draw(row: int) -> torch.Generator:
            return draws(term.name, row)

        value: ObjectiveValue = term.component.run(network, images, targets, draw, term.params, **further)
        return value

    def _classification(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The classification loss that an objective may wrap."""
        plain = registry.get("objectives", "soft_margin")
        known = [
            (term.component, term.params) for term in self.terms if "classification" in term.component.traits
        ]
        component, params = known[0] if known else (plain, plain.params())
        loss: Callable[..., Tensor] = component.traits["classification"]
        return lambda logits, targets: loss(logits, targets, params)


def draws_of(seed: int, ids: Sequence[str], epoch: int) -> Draws:
    """Generators that follow from (seed, objective, id, epoch) and not from the batch."""
    return lambda name, row: generator(seed, "objective", name, ids[row], epoch)


def shares(figures: Mapping[str, float], part: float) -> dict[str, float]:
    """Means over a part of the batch as what that part adds to the means over the batch."""
    return {name: part * figure for name, figure in figures.items()}
