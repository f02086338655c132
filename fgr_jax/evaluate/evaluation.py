"""All that is measured of a trained network on a test split, from its predictions."""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fgr_jax.evaluate import measures
from fgr_jax.evaluate.diversity import MapMeasures
from fgr_jax.evaluate.measures import Calibration, ConfusedPair, Integers, PerClass, Scores
from fgr_jax.evaluate.predictions import Predictions

GUESSES = 5  # classes that are told of every picture, the likeliest first


@dataclasses.dataclass(frozen=True, slots=True)
class Accuracy:
    """How good the scores of N pictures are."""

    top1: float  # in [0, 1]
    top5: float
    loss: float  # mean cross-entropy, in nats
    calibration: Calibration


@dataclasses.dataclass(frozen=True, slots=True)
class MapSummary:
    """`MapMeasures` of N pictures, as means over the maps that have mass."""

    area: float
    entropy: float
    relative_entropy: float
    parts_in_region: int
    visible_parts: int  # in pictures whose map has mass
    without_mass: int  # maps

    @property
    def parts_share(self) -> float:
        """Of the visible parts, those that lie in the high region; NaN where no part is known."""
        return self.parts_in_region / self.visible_parts if self.visible_parts else float("nan")


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out. What is said of classes is by all crops that were asked for."""

    predictions: Predictions
    class_names: list[str]
    center_crop: Accuracy
    five_crops: Accuracy | None  # None where one was asked for
    classes: PerClass
    confusion: Integers  # [C, C]
    pairs: list[ConfusedPair]
    guesses: Integers  # [N, min(5, C)]
    confidences: npt.NDArray[np.float64]  # probabilities of the guesses
    true_map: MapSummary
    predicted_map: MapSummary

    @property
    def main(self) -> Accuracy:
        """By all crops that were asked for."""
        return self.five_crops or self.center_crop

    def json(self) -> dict[str, Any]:
        """What is one number for all of the split, for `results.json`."""
        accuracies = {"center_crop": self.center_crop, "five_crops": self.five_crops}
        return {
            "pictures": len(self.predictions.names),
            "corrupt": self.predictions.corrupt,
            **{name: _json_of(value) for name, value in accuracies.items() if value},
            "maps": {
                "true_class": _json_of_map(self.true_map),
                "predicted_class": _json_of_map(self.predicted_map),
            },
        }


def evaluate(predictions: Predictions, class_names: list[str]) -> Evaluation:
    """Measures everything."""
    shown, scores = predictions.shown, predictions.scores
    guesses = measures.top_classes(scores, GUESSES)
    confusion = measures.confusion_matrix(shown.label, guesses[:, 0], len(class_names))
    averaged = shown.averaged_scores
    return Evaluation(
        predictions,
        class_names,
        center_crop=_accuracy(shown.center_scores, shown.label),
        five_crops=None if averaged is None else _accuracy(averaged, shown.label),
        classes=measures.per_class(confusion),
        confusion=confusion,
        pairs=measures.confused_pairs(confusion),
        guesses=guesses,
        confidences=np.take_along_axis(measures.probabilities(scores), guesses, axis=1),
        true_map=_summary(shown.true_map, shown.visible_parts),
        predicted_map=_summary(shown.predicted_map, shown.visible_parts),
    )


def _accuracy(scores: Scores, labels: Integers) -> Accuracy:
    ranks = measures.ranks(scores, labels)
    # The first class's probability is the largest.
    confidences = measures.probabilities(scores).max(axis=1)
    return Accuracy(
        top1=float(np.mean(ranks < 1)),
        top5=float(np.mean(ranks < 5)),
        loss=float(np.mean(measures.cross_entropies(scores, labels))),
        calibration=measures.calibration(confidences, ranks < 1),
    )


def _summary(maps: MapMeasures, visible_parts: Integers) -> MapSummary:
    has_mass = ~np.isnan(maps.area)

    def mean(values: Any) -> float:
        return float(np.mean(values[has_mass])) if has_mass.any() else float("nan")

    return MapSummary(
        area=mean(maps.area),
        entropy=mean(maps.entropy),
        relative_entropy=mean(maps.relative_entropy),
        parts_in_region=int(np.sum(np.asarray(maps.parts)[has_mass])),
        visible_parts=int(np.sum(visible_parts[has_mass])),
        without_mass=int(np.sum(~has_mass)),
    )


def _json_of(accuracy: Accuracy) -> dict[str, Any]:
    bins = accuracy.calibration
    return {
        "top1": accuracy.top1,
        "top5": accuracy.top5,
        "loss": accuracy.loss,
        "expected_calibration_error": bins.error,
        "calibration": {
            "pictures": bins.counts.tolist(),
            "confidence": [_or_null(value) for value in bins.confidences.tolist()],
            "accuracy": [_or_null(value) for value in bins.accuracies.tolist()],
        },
    }


def _json_of_map(summary: MapSummary) -> dict[str, Any]:
    values = {**dataclasses.asdict(summary), "parts_share": summary.parts_share}
    return {name: _or_null(value) for name, value in values.items()}


def _or_null(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else value
