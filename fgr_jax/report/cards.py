"""Test images with maps over them: the gallery, and the pairs of classes that are confused."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fgr_jax.evaluate.measures import ConfusedPair
from fgr_jax.evaluate.tables import as_text
from fgr_jax.report.label_issues import LabelIssues
from fgr_jax.report.plots import RUN_NAMES
from fgr_jax.report.run_images import RunImages
from fgr_jax.report.selection import most_confident, spread_over

_GALLERY = 12  # images
_PAIRS = 8
_EXAMPLES = 2  # errors in each direction of a pair
_ISSUES = 12


class View(NamedTuple):
    """An image, or an image with a map over it."""

    title: str
    url: str
    note: str = ""


class Verdict(NamedTuple):
    """A run's prediction for an image."""

    run: str  # empty on a page of one run
    predicted: str
    confidence: float
    is_correct: bool


class Card(NamedTuple):
    """A test image with its predictions."""

    name: str
    label: str
    verdicts: list[Verdict]
    views: list[View]


class PairSection(NamedTuple):
    """Two classes that are confused, with examples."""

    first: str
    second: str
    pair: ConfusedPair
    errors: list[int]  # of each run
    cards: list[Card]


def gallery(runs: Sequence[RunImages]) -> list[Card]:
    """Selects images from the most wrong to the most certain, with maps of the true class (figure 4).

    For a single run, the map of the predicted class is added if that is another class.
    """
    ours = runs[0]
    chosen = spread_over(ours.true_probabilities, _GALLERY).tolist()
    predicted = ours.evaluation.predicted[:, 0]
    both = [(int(ours.labels[index]), int(predicted[index])) for index in chosen]
    classes = [list(dict.fromkeys(each)) if len(runs) == 1 else each[:1] for each in both]
    urls = [run.heat_map_urls(chosen, classes) for run in runs]
    cards = []
    for place, index in enumerate(chosen):
        views = [View("image", ours.image_url(index))]
        for run, name, of_run in zip(runs, RUN_NAMES, urls, strict=False):
            titles = [f"map of {ours.evaluation.class_names[each]}" for each in classes[place]]
            titles[0] = "map of the true class" + (f", {name}" if len(runs) > 1 else "")
            views += map(View, titles, of_run[place], [_note(run, index), ""])
        cards.append(_card(runs, index, views))
    return cards


def _note(run: RunImages, index: int) -> str:
    maps = run.evaluation.predictions.per_image.true_map
    if maps is None:
        return ""
    area = float(maps.area[index])
    of_map = "no positive cell" if math.isnan(area) else f"area {area:.0%}"
    return f"probability {as_text(run.true_probabilities[index])}; {of_map}"


def confused_pairs(runs: Sequence[RunImages]) -> list[PairSection]:
    """Selects the first run's most confused pairs, with errors in each direction and correct images."""
    ours = runs[0]
    evaluation, names = ours.evaluation, ours.evaluation.class_names
    predicted, confidences = evaluation.predicted[:, 0], evaluation.confidences[:, 0]
    pairs = evaluation.pairs[:_PAIRS]
    # For each pair: images, each with its class and the other class.
    examples = [
        [
            (int(index), [true, other])
            for true, other in ((pair.first, pair.second), (pair.second, pair.first))
            for wanted, count in ((other, _EXAMPLES), (true, 1))
            for index in most_confident(
                ours.labels, predicted, confidences, true=true, predicted_as=wanted, count=count
            )
        ]
        for pair in pairs
    ]
    flat = [example for of_pair in examples for example in of_pair]
    urls = iter(ours.heat_map_urls([index for index, _ in flat], [each for _, each in flat]))
    sections = []
    for pair, of_pair in zip(pairs, examples, strict=True):
        cards = []
        for index, classes in of_pair:
            titles = [f"map of {names[each]}" for each in classes]
            views = [View("image", ours.image_url(index)), *map(View, titles, next(urls))]
            cards.append(_card([ours], index, views))
        errors = [
            int(confusion[pair.first, pair.second] + confusion[pair.second, pair.first])
            for confusion in (run.evaluation.confusion for run in runs)
        ]
        sections.append(PairSection(names[pair.first], names[pair.second], pair, errors, cards))
    return sections


def label_issue_cards(issues: LabelIssues, run_images: Callable[[int], RunImages]) -> list[Card]:
    """Shows the first images whose label looks wrong, with maps of the label and of the prediction.

    Args:
      issues: the images.
      run_images: returns the images of the run of a number, as in `LabelIssue.run`.
    """
    shown = issues.found[:_ISSUES]
    cards: dict[int, Card] = {}
    for number in sorted({each.run for each in shown}):
        run = run_images(number)
        places = [place for place, each in enumerate(shown) if each.run == number]
        indices = [shown[place].image for place in places]
        classes = [
            [int(run.labels[index]), int(run.evaluation.predicted[index, 0])] for index in indices
        ]
        urls = run.heat_map_urls(indices, classes)
        for place, index, of_image in zip(places, indices, urls, strict=True):
            each = shown[place]
            titles = [f"map of {each.label}, the label", f"map of {each.prediction}"]
            notes = [each.probability_of_label, each.probability_of_prediction]
            views = [View("image", run.image_url(index), each.split)]
            views += map(View, titles, of_image, [f"probability {as_text(p)}" for p in notes])
            cards[place] = _card([run], index, views)
    return [cards[place] for place in range(len(shown))]


def _card(runs: Sequence[RunImages], index: int, views: list[View]) -> Card:
    names, label = runs[0].evaluation.class_names, runs[0].labels[index]
    verdicts = []
    for run, name in zip(runs, RUN_NAMES, strict=False):
        predicted = run.evaluation.predicted[index, 0]
        confidence = float(run.evaluation.confidences[index, 0])
        is_correct = bool(predicted == label) and math.isfinite(confidence)
        run_name = name if len(runs) > 1 else ""
        verdicts.append(Verdict(run_name, names[predicted], confidence, is_correct))
    return Card(runs[0].evaluation.predictions.names[index], names[label], verdicts, views)
