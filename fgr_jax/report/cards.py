"""Test images with maps over them: the gallery, and the pairs of classes that are confused."""

import dataclasses
import math
from collections.abc import Sequence

from fgr_jax.evaluate.evaluation import Evaluation
from fgr_jax.evaluate.measures import ConfusedPair, Integers
from fgr_jax.evaluate.missing import as_text
from fgr_jax.report.plots import RUN_NAMES
from fgr_jax.report.run_images import RunImages
from fgr_jax.report.selection import most_confident, spread_over

_GALLERY = 12  # images
_PAIRS = 8
_EXAMPLES = 2  # errors in each direction of a pair


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """An image, or an image with a map over it."""

    title: str
    url: str
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """A run's prediction for an image."""

    # Empty on a page of one run.
    run: str
    predicted: str
    confidence: float
    is_correct: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """A test image with its predictions."""

    name: str
    label: str
    verdicts: list[Verdict]
    views: list[View]


@dataclasses.dataclass(frozen=True, slots=True)
class PairSection:
    """Two classes that are confused, with examples."""

    first: str
    second: str
    pair: ConfusedPair
    # Of every run.
    errors: list[int]
    cards: list[Card]


def gallery(runs: Sequence[RunImages]) -> list[Card]:
    """Shows images from the most wrong to the most certain, with maps of the true class (figure 4).

    Of one run, with the map of the predicted class, too, where that is another.
    """
    ours = runs[0]
    chosen = spread_over(ours.true_probabilities, _GALLERY).tolist()
    classes = [
        list(dict.fromkeys((int(ours.labels[index]), int(ours.evaluation.predicted[index, 0]))))
        for index in chosen
    ]
    if len(runs) > 1:
        classes = [of_image[:1] for of_image in classes]
    urls = [run.heat_map_urls(chosen, classes) for run in runs]
    cards = []
    for place, index in enumerate(chosen):
        views = [View("image", ours.image_url(index))]
        for run, name, of_run in zip(runs, RUN_NAMES, urls, strict=False):
            titles = [f"map of {ours.evaluation.class_names[each]}" for each in classes[place]]
            titles[0] = "map of the true class" + (f", {name}" if len(runs) > 1 else "")
            notes = [_note(run, index), ""]
            views += map(View, titles, of_run[place], notes)
        cards.append(_card(runs, index, views))
    return cards


def _note(run: RunImages, index: int) -> str:
    maps = run.evaluation.predictions.per_image.true_map
    if maps is None:
        return ""
    area = float(maps.area[index])
    return f"probability {as_text(run.true_probabilities[index])}; " + (
        "no positive cell" if math.isnan(area) else f"area {area:.0%}"
    )


def confused_pairs(runs: Sequence[RunImages]) -> list[PairSection]:
    """Shows the first run's pairs with the most errors: examples of each direction, and correct ones."""
    ours = runs[0]
    evaluation = ours.evaluation
    names = evaluation.class_names
    pairs = evaluation.pairs[:_PAIRS]
    # For each pair: images, each with its class and the other class.
    examples = [
        [
            (int(index), [true, other])
            for true, other in ((pair.first, pair.second), (pair.second, pair.first))
            for predicted, count in ((other, _EXAMPLES), (true, 1))
            for index in _most_confident(evaluation, true, predicted, count)
        ]
        for pair in pairs
    ]
    flat = [example for of_pair in examples for example in of_pair]
    urls = iter(ours.heat_map_urls([index for index, _ in flat], [each for _, each in flat]))
    sections = []
    for pair, of_pair in zip(pairs, examples, strict=True):
        cards = []
        for index, classes in of_pair:
            views = [View("image", ours.image_url(index))]
            titles = [f"map of {names[each]}" for each in classes]
            views += map(View, titles, next(urls))
            cards.append(_card([ours], index, views))
        errors = [
            int(confusion[pair.first, pair.second] + confusion[pair.second, pair.first])
            for confusion in (run.evaluation.confusion for run in runs)
        ]
        sections.append(PairSection(names[pair.first], names[pair.second], pair, errors, cards))
    return sections


def _card(runs: Sequence[RunImages], index: int, views: list[View]) -> Card:
    ours = runs[0]
    return Card(
        name=ours.evaluation.predictions.names[index],
        label=ours.evaluation.class_names[ours.labels[index]],
        verdicts=[
            _verdict(run.evaluation, index, name if len(runs) > 1 else "")
            for run, name in zip(runs, RUN_NAMES, strict=False)
        ],
        views=views,
    )


def _verdict(evaluation: Evaluation, index: int, run: str) -> Verdict:
    predicted, confidence = evaluation.predicted[index, 0], float(evaluation.confidences[index, 0])
    is_correct = predicted == evaluation.predictions.per_image.label[index]
    return Verdict(
        run,
        evaluation.class_names[predicted],
        confidence,
        bool(is_correct) and math.isfinite(confidence),
    )


def _most_confident(evaluation: Evaluation, true: int, predicted: int, count: int) -> Integers:
    return most_confident(
        evaluation.predictions.per_image.label,
        evaluation.predicted[:, 0],
        evaluation.confidences[:, 0],
        true=true,
        predicted_as=predicted,
        count=count,
    )
