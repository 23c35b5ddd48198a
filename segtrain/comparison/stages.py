"""The stages of a comparison, each a command's own run below DIR, so that what is finished stays.

    classifier/                    pl train, where the recipe has one to train
    reference/{train,report}.safetensors
    candidates/<candidate>/{train,report}  pl generate with raw maps
    candidates/<candidate>/{train,report}-masks   pl refine at the threshold that was picked
    candidates/<candidate>/network         seg train on the masks of train
    candidates/<candidate>/predictions     seg predict on the images of the report

Commands with a run folder know by its fingerprint what is done; a stage whose result is one document is kept
beside what it was made from, and made again when that changes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pseudolabel import console
from pseudolabel.commands.evaluate import evaluate as evaluate_masks
from pseudolabel.commands.generate import generate
from pseudolabel.commands.reference import reference
from pseudolabel.commands.refine import refine
from pseudolabel.commands.sweep import sweep
from pseudolabel.commands.train import ClassifierSummary
from pseudolabel.commands.train import train as train_classifier
from pseudolabel.errors import DataError, Interrupted, PseudolabelError
from pseudolabel.recipes.loading import load_recipe, plain_data
from pseudolabel.recipes.schema import GenerateRecipe
from pseudolabel.recipes.steps import ReaderStep
from pseudolabel.records import Dataset
from pseudolabel.runs import disk
from segtrain.comparison.kept import contents, kept, mark, truth_of
from segtrain.comparison.plan import CandidatePlan, ComparisonPlan
from segtrain.recipe import SegRecipe
from segtrain.results import PredictionSummary, SegmentationEvaluation, TrainingSummary

SPLITS = ("train", "report")


@dataclass(frozen=True)
class Options:
    """How stages run; no byte depends on it.

    Attributes:
        device: auto, cpu, cuda or cuda:n.
        workers: beside the model; None leaves it to each command.
        overwrite: a stage of another configuration is moved aside and run again.
        quiet: no progress.
    """

    device: str = "auto"
    workers: int | None = None
    overwrite: bool = False
    quiet: bool = False

    def of(self, *names: str) -> dict[str, Any]:
        """Those of the options that a command takes."""
        given = {name: getattr(self, name) for name in names}
        return {name: value for name, value in given.items() if value is not None}


@dataclass(frozen=True)
class SegCommands:
    """`seg`'s own commands, handed in since they stand above this kind."""

    train: Callable[..., TrainingSummary]
    evaluate: Callable[..., SegmentationEvaluation]
    predict: Callable[..., PredictionSummary]


@dataclass(frozen=True)
class Outcome:
    """What a candidate came to.

    Attributes:
        plan: the candidate.
        threshold: what its masks were made with, or None.
        seconds: per training image, maps and masks, when they were made; None where masks were given.
        sweep: result of `pl sweep` on the training split, or None.
        masks: results of `pl evaluate` by split, train and report; None where there is nothing to score.
        network: result of `seg evaluate` on the reporting split.
        training: result of `seg train`.
        folders: of the masks by split.
        predictions: masks of the trained network by record id, for the images of the report.
    """

    plan: CandidatePlan
    threshold: float | None
    seconds: float | None
    sweep: dict[str, Any] | None
    masks: Mapping[str, dict[str, Any] | None]
    network: dict[str, Any]
    training: TrainingSummary
    folders: Mapping[str, Path]
    predictions: Mapping[str, Path]


@dataclass(frozen=True)
class Results:
    """All of a comparison, to be written up.

    Attributes:
        train, report: the data of either split.
        shown: ids of the reporting images that the report shows.
        classifier: result of `pl train`, or None where the classifier was there.
        references: `{maps, threshold, rule, sha256}` by split, or empty.
        outcomes: by candidate, in the order of the table.
    """

    train: Dataset
    report: Dataset
    shown: tuple[str, ...]
    classifier: ClassifierSummary | None
    references: Mapping[str, dict[str, Any]]
    outcomes: tuple[Outcome, ...]


def run(plan: ComparisonPlan, folder: Path, commands: SegCommands, options: Options) -> Results:
    """Run every stage that is not finished.

    Args:
        plan: what must run.
        folder: DIR, which is there and locked.
        commands: of `seg`.
        options: how.

    Raises:
        PseudolabelError: of the stage that failed, its name in front.
    """
    with _stage("data", options):
        data = {"train": _dataset(plan.train_data), "report": _dataset(plan.report_data)}
        if data["train"].space != data["report"].space:
            raise DataError("report_on: its classes are not those of the training images")
    trained, checkpoint = None, plan.checkpoint
    if plan.classifier is not None:
        checkpoint = str(folder / "classifier")
        with _stage("classifier", options):
            trained = train_classifier(
                plan.classifier, checkpoint, **options.of("device", "workers", "overwrite", "quiet")
            )
    candidates = [_with_classifier(candidate, checkpoint) for candidate in plan.candidates]
    seconds = {
        candidate.folder: _generate(candidate, folder, options)
        for candidate in candidates
        if candidate.generate
    }
    references = _references(candidates, folder, data, options)
    scored = [_score(candidate, plan, folder, data, references, options) for candidate in candidates]
    shown = _shown(data["report"], plan.recipe.images)
    outcomes = []
    for candidate, (threshold, swept, masks, folders) in zip(candidates, scored, strict=True):
        training, network, predictions = _network(
            candidate, plan, folder, folders, data, shown, commands, options
        )
        took = seconds.get(candidate.folder)
        outcomes.append(
            Outcome(candidate, threshold, took, swept, masks, network, training, folders, predictions)
        )
    descriptions = {split: description for split, (_, description) in references.items()}
    return Results(data["train"], data["report"], shown, trained, descriptions, tuple(outcomes))


@contextlib.contextmanager
def _stage(name: str, options: Options) -> Iterator[None]:
    """Say what runs, and name it where it fails."""
    if not options.quiet:
        console.say(f"stage {name}")
    try:
        yield
    except Interrupted:
        raise
    except PseudolabelError as fault:
        raise type(fault)(f"stage {name}: {fault}") from fault


def _dataset(step: ReaderStep) -> Dataset:
    component, params = step.component, step.params
    dataset: Dataset = component.run(params)
    if not dataset.records:
        raise DataError(f"{step.reader} gives no image; look at its root and split")
    return dataset


def _with_classifier(candidate: CandidatePlan, checkpoint: str | None) -> CandidatePlan:
    """The candidate with the classifier that this comparison has, in place of its recipe's own."""
    if checkpoint is None:
        return candidate

    def changed(recipe: GenerateRecipe) -> GenerateRecipe:
        data = plain_data(recipe)
        data["classifier"]["checkpoint"] = checkpoint
        return load_recipe(data, GenerateRecipe)

    return replace(
        candidate, generate={split: changed(recipe) for split, recipe in candidate.generate.items()}
    )


def _place(folder: Path, candidate: CandidatePlan, name: str) -> Path:
    return folder / "candidates" / candidate.folder / name


def _generate(candidate: CandidatePlan, folder: Path, options: Options) -> float | None:
    """Maps and masks of both splits; seconds per training image when they were made."""
    seconds: float | None = None
    for split, recipe in candidate.generate.items():
        out = _place(folder, candidate, split)
        with _stage(f"{candidate.name}: maps on {split}", options):
            summary = generate(
                recipe, out, on_bad="stop", **options.of("device", "workers", "overwrite", "quiet")
            )

            def timing(done: int = summary.done, seconds: float = summary.seconds) -> dict[str, Any]:
                return {"seconds_per_image": seconds / done if done else None}

            # asked again, a finished run takes no time: the first answer stays while its masks do
            timed = kept(_place(folder, candidate, f"{split}-time.json"), mark(out), timing)
        if split == "train":
            seconds = timed["seconds_per_image"]
    return seconds


def _references(
    candidates: Sequence[CandidatePlan], folder: Path, data: Mapping[str, Dataset], options: Options
) -> dict[str, tuple[Path, dict[str, Any]]]:
    """The single-scale CAM of the first candidate's classifier on either split: (file, what it is)."""
    first = next((candidate for candidate in candidates if candidate.generate), None)
    if first is None:
        return {}
    references: dict[str, tuple[Path, dict[str, Any]]] = {}
    for split, recipe in first.generate.items():
        file = folder / "reference" / f"{split}.safetensors"
        key = {**mark(_place(folder, first, split)), "split": split}
        with _stage(f"reference on {split}", options):

            def make(recipe: GenerateRecipe = recipe, file: Path = file) -> dict[str, Any]:
                reference(recipe, file, **options.of("device", "quiet"))
                return {"sha256": disk.sha256_file(file)}

            description = kept(file.with_suffix(".json"), key, make, files={file: "sha256"})
        references[split] = (file, description)
    return references


def _score(
    candidate: CandidatePlan,
    plan: ComparisonPlan,
    folder: Path,
    data: Mapping[str, Dataset],
    references: Mapping[str, tuple[Path, dict[str, Any]]],
    options: Options,
) -> tuple[float | None, dict[str, Any] | None, dict[str, dict[str, Any] | None], dict[str, Path]]:
    """Threshold, sweep, figures of the masks by split, and the folders of the masks by split."""
    if candidate.truth:
        return None, None, dict.fromkeys(SPLITS), {}
    means = plan.recipe.average_over
    if not candidate.generate:
        folders = {"train": Path(str(candidate.masks)).expanduser()}
        figures = _evaluate(candidate, plan, folder, folders["train"], "train", data, references, options)
        return None, None, {"train": figures, "report": None}, folders
    maps = _place(folder, candidate, "train")
    swept: dict[str, Any] | None = None
    chosen = None
    if candidate.swept is not None:
        chosen = candidate.generate["train"].background.parameters()[candidate.swept]
        with _stage(f"{candidate.name}: thresholds on train", options):
            key = {**mark(maps), **truth_of(data["train"]), "reference": references["train"][1]}

            def make() -> dict[str, Any]:
                shared: dict[str, Any] = {"reference": references["train"][0], "other_classifier": True}
                return sweep(maps, **shared, average_over=means, **options.of("workers", "quiet")).as_dict()

            key |= {"average_over": list(means or ())}
            swept = kept(_place(folder, candidate, "thresholds.json"), key, make)
        if plan.recipe.threshold == "train":
            chosen = swept["best"]["threshold"]
    evaluations: dict[str, dict[str, Any] | None] = {}
    folders = {}
    for split in SPLITS:
        folders[split] = _masks(candidate, folder, split, chosen, options)
        evaluations[split] = _evaluate(
            candidate, plan, folder, folders[split], split, data, references, options
        )
    return chosen, swept, evaluations, folders


def _masks(
    candidate: CandidatePlan, folder: Path, split: str, chosen: float | None, options: Options
) -> Path:
    """The run with the masks of a split at the threshold; those of the maps' own run where it is the same."""
    maps = _place(folder, candidate, split)
    if (
        candidate.swept is None
        or candidate.generate["train"].background.parameters()[candidate.swept] == chosen
    ):
        return maps
    out = _place(folder, candidate, f"{split}-masks")
    with _stage(f"{candidate.name}: masks on {split} at {chosen:g}", options):
        refine(
            maps,
            out,
            overrides=[f"background.{candidate.swept}={chosen!r}"],
            **options.of("workers", "overwrite", "quiet"),
        )
    return out


def _evaluate(
    candidate: CandidatePlan,
    plan: ComparisonPlan,
    folder: Path,
    masks: Path,
    split: str,
    data: Mapping[str, Dataset],
    references: Mapping[str, tuple[Path, dict[str, Any]]],
    options: Options,
) -> dict[str, Any]:
    """Figures of the masks of a split."""
    means = plan.recipe.average_over
    file, description = references.get(split, (None, {}))
    generated = bool(candidate.generate)
    named = {f"{r.id}.png": r.id for r in data[split].records}
    masks_key = mark(masks) if generated else contents(masks, named)
    key = {**masks_key, **truth_of(data[split]), "reference": description, "average_over": list(means or ())}
    out = _place(folder, candidate, f"{split}-evaluation.json")
    with _stage(f"{candidate.name}: score of the masks on {split}", options):

        def make() -> dict[str, Any]:
            where: dict[str, Any] = {"run": masks} if generated else {"masks": masks, "data": plan.train_data}
            shared: dict[str, Any] = {"reference": file, "other_classifier": True}
            return evaluate_masks(
                **where, **shared, average_over=means, out=out, **options.of("workers", "quiet")
            ).as_dict()

        return kept(out.with_name(f"{split}-score.json"), key, make)


def _network(
    candidate: CandidatePlan,
    plan: ComparisonPlan,
    folder: Path,
    folders: Mapping[str, Path],
    data: Mapping[str, Dataset],
    shown: Sequence[str],
    commands: SegCommands,
    options: Options,
) -> tuple[TrainingSummary, dict[str, Any], dict[str, Path]]:
    """Train the network on a candidate's masks; its figures and predictions on the reporting split."""
    out = _place(folder, candidate, "network")
    with _stage(f"{candidate.name}: network", options):
        recipe = plain_data(plan.segmentation)
        recipe["masks"] = None if candidate.truth else str(folders["train"])
        training = commands.train(
            load_recipe(recipe, SegRecipe), out, **options.of("device", "workers", "overwrite", "quiet")
        )
    weights = contents(out / "checkpoints", [path.name for path in sorted((out / "checkpoints").iterdir())])
    means = plan.recipe.average_over
    key = {**weights, **truth_of(data["report"]), "average_over": list(means or ())}
    with _stage(f"{candidate.name}: score of the network", options):

        def make() -> dict[str, Any]:
            scored = commands.evaluate(out, average_over=means, **options.of("device", "workers", "quiet"))
            return scored.as_dict()

        network = kept(_place(folder, candidate, "network-score.json"), key, make)
    images = {r.id: r.image for r in data["report"].records if r.id in set(shown)}
    place = _place(folder, candidate, "predictions")
    if images:
        with _stage(f"{candidate.name}: predictions for the report", options):
            # what they are made from has its own guard, so predictions of another network just give way
            commands.predict(
                out, list(images.values()), place, on_bad="stop", overwrite=True,
                **options.of("device", "workers", "quiet"),
            )  # fmt: skip
    predictions = {name: place / f"{image.stem}.png" for name, image in images.items()}
    return training, network, predictions


def _shown(data: Dataset, count: int) -> tuple[str, ...]:
    """Ids of the images to show: spread evenly over the list, so that nobody has picked them."""
    # predictions are named after the image's file, which in a nested data set may stand twice
    stems = {record.image.stem.casefold(): record.id for record in data.records if record.mask is not None}
    ids = [record.id for record in data.records if stems.get(record.image.stem.casefold()) == record.id]
    count = min(count, len(ids))
    return tuple(ids[(2 * index + 1) * len(ids) // (2 * count)] for index in range(count))
