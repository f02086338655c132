"""Test pictures with the maps over them: the gallery, and the pairs that are confused."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from fgr_jax.evaluating import measures
from fgr_jax.evaluating.evaluation import Evaluation
from fgr_jax.evaluating.measures import ConfusedPair, Integers
from fgr_jax.reporting.choices import spread_over, surest_errors
from fgr_jax.reporting.pictures import thumbnail
from fgr_jax.reporting.plots import RUN_NAMES
from fgr_jax.reporting.viewer import Viewer

_GALLERY = 12  # pictures
_PAIRS = 8
_EXAMPLES = 2  # errors of each direction of a pair


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """A picture, or a picture with a map over it."""

    title: str
    address: str
    note: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """A test picture, and what the network made of it."""

    name: str
    label: str
    guess: str
    confidence: float
    views: list[View]

    @property
    def is_right(self) -> bool:
        return self.label == self.guess


@dataclasses.dataclass(frozen=True, slots=True)
class PairSection:
    """Two classes that are confused, and pictures of it."""

    first: str
    second: str
    pair: ConfusedPair
    compared_count: int | None  # errors of the compared run
    cards: list[Card]


def gallery(viewers: Sequence[Viewer]) -> list[Card]:
    """Pictures from the most wrong to the surest, with the true class's map by every run (figure 4).

    Of one run alone, with the map of the class it took a picture for, too.
    """
    ours = viewers[0].evaluated.evaluation
    labels = ours.predictions.shown.label
    chosen = spread_over(_true_probabilities(ours), _GALLERY).tolist()
    pairs = [(int(labels[index]), int(ours.guesses[index, 0])) for index in chosen]
    seen = [viewer.look(chosen, pairs) for viewer in viewers]
    cards = []
    for place, (index, (label, guess)) in enumerate(zip(chosen, pairs, strict=True)):
        views = [View("the picture", thumbnail(viewers[0].picture(index)))]
        for viewer, maps, run in zip(
            viewers, (each.maps for each in seen), RUN_NAMES, strict=False
        ):
            evaluation = viewer.evaluated.evaluation
            area = evaluation.predictions.shown.true_map.area[index]
            probability = _true_probabilities(evaluation)[index]
            views.append(
                View(
                    "map of the true class" + (f", {run}" if len(viewers) > 1 else ""),
                    viewer.heat_map(index, maps[place, 0]),
                    f"{probability:.1%} sure of it; "
                    + ("nothing positive" if math.isnan(area) else f"area {area:.0%}"),
                )
            )
        if len(viewers) == 1 and guess != label:
            address = viewers[0].heat_map(index, seen[0].maps[place, 1])
            views.append(View(f"map of {ours.class_names[guess]}", address))
        cards.append(_card(ours, index, views))
    return cards


def confused_pairs(ours: Viewer, theirs: Viewer | None = None) -> list[PairSection]:
    """The pairs with most errors: examples of each direction, and of what was right, with both maps."""
    evaluation = ours.evaluated.evaluation
    names = evaluation.class_names
    pairs = evaluation.pairs[:_PAIRS]
    # By pair: a picture, its class, and the other class.
    chosen: list[list[tuple[int, tuple[int, int]]]] = [
        [
            (int(index), (true, other))
            for true, other in ((pair.first, pair.second), (pair.second, pair.first))
            for taken_for, count in ((other, _EXAMPLES), (true, 1))
            for index in _surest(evaluation, true, taken_for, count)
        ]
        for pair in pairs
    ]
    everything = [each for of_pair in chosen for each in of_pair]
    if not everything:
        return []
    seen = iter(ours.look(*zip(*everything, strict=True)).maps)
    sections = []
    for pair, of_pair in zip(pairs, chosen, strict=True):
        cards = []
        for index, classes in of_pair:
            views = [View("the picture", thumbnail(ours.picture(index)))]
            for shown, activation in zip(classes, next(seen), strict=True):
                views.append(View(f"map of {names[shown]}", ours.heat_map(index, activation)))
            cards.append(_card(evaluation, index, views))
        compared = None
        if theirs is not None:
            confusion = theirs.evaluated.evaluation.confusion
            compared = int(confusion[pair.first, pair.second] + confusion[pair.second, pair.first])
        sections.append(PairSection(names[pair.first], names[pair.second], pair, compared, cards))
    return sections


def _card(evaluation: Evaluation, index: int, views: list[View]) -> Card:
    names = evaluation.class_names
    return Card(
        name=evaluation.predictions.names[index],
        label=names[evaluation.predictions.shown.label[index]],
        guess=names[evaluation.guesses[index, 0]],
        confidence=float(evaluation.confidences[index, 0]),
        views=views,
    )


def _true_probabilities(evaluation: Evaluation) -> npt.NDArray[np.float64]:
    probabilities = measures.probabilities(evaluation.predictions.scores)
    labels = evaluation.predictions.shown.label
    return np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]


def _surest(evaluation: Evaluation, true: int, taken_for: int, count: int) -> Integers:
    return surest_errors(
        evaluation.predictions.shown.label,
        evaluation.guesses[:, 0],
        evaluation.confidences[:, 0],
        true=true,
        taken_for=taken_for,
        count=count,
    )
