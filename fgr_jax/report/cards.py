"""Test pictures with the maps over them: the gallery, and the pairs that are confused."""

import dataclasses
import math
from collections.abc import Sequence

from fgr_jax.evaluate.evaluation import Evaluation
from fgr_jax.evaluate.measures import ConfusedPair, Integers
from fgr_jax.report.choices import spread_over, surest_errors
from fgr_jax.report.plots import RUN_NAMES
from fgr_jax.report.viewer import Viewer

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
class Verdict:
    """What a run made of a picture."""

    run: str  # which; empty where there is one
    guess: str
    confidence: float
    is_right: bool


@dataclasses.dataclass(frozen=True, slots=True)
class Card:
    """A test picture, and what the network made of it."""

    name: str
    label: str
    verdicts: list[Verdict]
    views: list[View]


@dataclasses.dataclass(frozen=True, slots=True)
class PairSection:
    """Two classes that are confused, and pictures of it."""

    first: str
    second: str
    pair: ConfusedPair
    errors: list[int]  # of every run
    cards: list[Card]


def gallery(viewers: Sequence[Viewer]) -> list[Card]:
    """Pictures from the most wrong to the surest, with the true class's map by every run (figure 4).

    Of one run alone, with the map of the class it took a picture for, too.
    """
    ours = viewers[0].evaluated.evaluation
    labels = ours.predictions.shown.label
    chosen = spread_over(viewers[0].true_probabilities, _GALLERY).tolist()
    pairs = [(int(labels[index]), int(ours.guesses[index, 0])) for index in chosen]
    maps = [viewer.maps(chosen, pairs) for viewer in viewers]
    cards = []
    for place, (index, (label, guess)) in enumerate(zip(chosen, pairs, strict=True)):
        views = [View("the picture", viewers[0].picture(index))]
        if len(viewers) == 1:
            shown = maps[0][place, : 1 if guess == label else 2]
            true, *guessed = viewers[0].heat_maps(index, shown)
            views.append(View("map of the true class", true, _note(viewers[0], index)))
            views += [View(f"map of {ours.class_names[guess]}", address) for address in guessed]
        else:
            for viewer, run, of_run in zip(viewers, RUN_NAMES, maps, strict=True):
                address = viewer.heat_maps(index, of_run[place, :1])[0]
                views.append(View(f"map of the true class, {run}", address, _note(viewer, index)))
        cards.append(_card(viewers, index, views))
    return cards


def _note(viewer: Viewer, index: int) -> str:
    area = viewer.evaluated.evaluation.predictions.shown.true_map.area[index]
    probability = viewer.true_probabilities[index]
    sure = "no number" if math.isnan(probability) else f"{probability:.1%} sure of it"
    return f"{sure}; " + ("nothing positive" if math.isnan(area) else f"area {area:.0%}")


def confused_pairs(viewers: Sequence[Viewer]) -> list[PairSection]:
    """The pairs with most errors of the first run: of each direction examples, and what was right."""
    ours = viewers[0]
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
    maps = iter(ours.maps(*zip(*everything, strict=True)))
    sections = []
    for pair, of_pair in zip(pairs, chosen, strict=True):
        cards = []
        for index, classes in of_pair:
            views = [View("the picture", ours.picture(index))]
            addresses = ours.heat_maps(index, next(maps))
            views += [
                View(f"map of {names[shown]}", address)
                for shown, address in zip(classes, addresses, strict=True)
            ]
            cards.append(_card([ours], index, views))
        confusions = [viewer.evaluated.evaluation.confusion for viewer in viewers]
        errors = [
            int(confusion[pair.first, pair.second] + confusion[pair.second, pair.first])
            for confusion in confusions
        ]
        sections.append(PairSection(names[pair.first], names[pair.second], pair, errors, cards))
    return sections


def _card(viewers: Sequence[Viewer], index: int, views: list[View]) -> Card:
    evaluation = viewers[0].evaluated.evaluation
    return Card(
        name=evaluation.predictions.names[index],
        label=evaluation.class_names[evaluation.predictions.shown.label[index]],
        verdicts=[
            _verdict(viewer.evaluated.evaluation, index, run if len(viewers) > 1 else "")
            for viewer, run in zip(viewers, RUN_NAMES, strict=False)
        ],
        views=views,
    )


def _verdict(evaluation: Evaluation, index: int, run: str) -> Verdict:
    guess, confidence = evaluation.guesses[index, 0], float(evaluation.confidences[index, 0])
    is_right = guess == evaluation.predictions.shown.label[index] and math.isfinite(confidence)
    return Verdict(run, evaluation.class_names[guess], confidence, bool(is_right))


def _surest(evaluation: Evaluation, true: int, taken_for: int, count: int) -> Integers:
    return surest_errors(
        evaluation.predictions.shown.label,
        evaluation.guesses[:, 0],
        evaluation.confidences[:, 0],
        true=true,
        taken_for=taken_for,
        count=count,
    )
