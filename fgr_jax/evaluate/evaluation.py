"""The evaluation of a trained network on a test split, from its predictions."""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fgr_jax.evaluate import measures
from fgr_jax.evaluate.diversity import MapMeasures
from fgr_jax.evaluate.measures import Calibration, ConfusedPair, Scores
from fgr_jax.evaluate.predictions import Predictions
from fgr_jax.evaluate.rejection import Coverage, Rejection, coverage
from fgr_jax.per_class import Integers, PerClass, confusion_matrix, per_class

# The number of classes listed for every image, most probable first.
TOP = 5


@dataclasses.dataclass(frozen=True, slots=True)
class Accuracy:
    """The accuracy of the scores of N images."""

    top1: float  # in [0, 1], like the next
    top5: float
    loss: float  # mean cross-entropy, in nats
    calibration: Calibration


@dataclasses.dataclass(frozen=True, slots=True)
class MapSummary:
    """`MapMeasures` of N images, as means over the maps that have mass."""

    area: float
    entropy: float
    relative_entropy: float
    parts_in_region: int
    visible_parts: int  # in images whose map has mass
    without_mass: int  # the number of such maps

    @property
    def parts_share(self) -> float:
        """The share of the visible parts that lie in the high region; NaN without annotations."""
        return self.parts_in_region / self.visible_parts if self.visible_parts else math.nan


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """The results of an evaluation. Results per class use all requested crops."""

    predictions: Predictions
    class_names: list[str]
    center_crop: Accuracy
    five_crops: Accuracy | None  # None if only the center was requested
    classes: PerClass
    confusion: Integers  # [C, C]
    pairs: list[ConfusedPair]
    predicted: Integers  # the most probable classes, [N, min(5, C)]
    confidences: npt.NDArray[np.float64]  # their probabilities
    # Of the center crop, with the accuracy of its predictions where those below a percentile are
    # rejected.
    rejection: Rejection
    coverage: Coverage
    # The loss and calibration of the center crop at the temperature.
    calibrated: Accuracy
    true_map: MapSummary | None  # both None for networks without maps
    predicted_map: MapSummary | None

    @property
    def main(self) -> Accuracy:
        """The accuracy over all requested crops."""
        return self.five_crops or self.center_crop

    def mostly_confused_with(self, index: int) -> tuple[str, int]:
        """Returns the class that class `index` is most often mistaken for, and how often.

        Without errors, these are an empty name and 0.
        """
        errors = self.confusion[index].copy()
        errors[index] = 0
        worst = int(errors.argmax())
        return self.class_names[worst] if errors[worst] else "", int(errors[worst])

    def json(self) -> dict[str, Any]:
        """Returns the numbers for the whole split, for `results.json`."""
        accuracies = {"center_crop": self.center_crop, "five_crops": self.five_crops}
        summaries = {"true_class": self.true_map, "predicted_class": self.predicted_map}
        maps = {name: _json_of_map(value) for name, value in summaries.items() if value}
        return {
            "images": len(self.predictions.names),
            "corrupt": self.predictions.corrupt,
            **{name: _json_of(value) for name, value in accuracies.items() if value},
            "temperature": self.rejection.temperature,
            "center_crop_at_temperature": _json_of(self.calibrated),
            "balanced_accuracy": self.classes.balanced_accuracy,
            "macro_precision": self.classes.macro(self.classes.precisions),
            "macro_recall": self.classes.macro(self.classes.recalls),
            "macro_f1": self.classes.macro(self.classes.f1_scores),
            "never_recognized": [self.class_names[i] for i in self.classes.never_recognized],
            **({"maps": maps} if maps else {}),
        }


def evaluate(predictions: Predictions, class_names: list[str]) -> Evaluation:
    """Computes all results from the predictions."""
    per_image, scores = predictions.per_image, predictions.scores
    labels, averaged = per_image.label, per_image.averaged_scores
    predicted = measures.top_classes(scores, TOP)
    center = per_image.center_scores
    rejection = Rejection.of(center, labels)
    is_correct = measures.ranks(center, labels) < 1
    confusion = confusion_matrix(labels, predicted[:, 0], len(class_names))
    return Evaluation(
        predictions,
        class_names,
        center_crop=_accuracy(center, labels),
        five_crops=None if averaged is None else _accuracy(averaged, labels),
        classes=per_class(confusion),
        confusion=confusion,
        pairs=measures.confused_pairs(confusion),
        predicted=predicted,
        confidences=np.take_along_axis(measures.probabilities(scores), predicted, axis=1),
        rejection=rejection,
        coverage=coverage(rejection.percentiles(center), is_correct),
        calibrated=_accuracy(center.astype(np.float64) / rejection.temperature, labels),
        true_map=_summary(per_image.true_map, per_image.visible_parts),
        predicted_map=_summary(per_image.predicted_map, per_image.visible_parts),
    )


def _accuracy(scores: Scores, labels: Integers) -> Accuracy:
    ranks = measures.ranks(scores, labels)
    # The confidence is the probability of the first class.
    confidences = measures.probabilities(scores).max(axis=1)
    return Accuracy(
        top1=float(np.mean(ranks < 1)),
        top5=float(np.mean(ranks < 5)),
        loss=float(np.mean(measures.cross_entropies(scores, labels))),
        calibration=measures.calibration(confidences, ranks < 1),
    )


def _summary(maps: MapMeasures | None, visible_parts: Integers) -> MapSummary | None:
    if maps is None:
        return None
    has_mass = ~np.isnan(maps.area)

    def mean(values: Any) -> float:
        return float(np.mean(values[has_mass])) if has_mass.any() else math.nan

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
        "loss": _or_none(accuracy.loss),
        "expected_calibration_error": _or_none(bins.error),
        "calibration": {
            "images": bins.counts.tolist(),
            "confidence": [_or_none(value) for value in bins.confidences.tolist()],
            "accuracy": [_or_none(value) for value in bins.accuracies.tolist()],
        },
    }


def _json_of_map(summary: MapSummary) -> dict[str, Any]:
    values = {**dataclasses.asdict(summary), "parts_share": summary.parts_share}
    return {name: _or_none(value) for name, value in values.items()}


def _or_none(value: float) -> float | None:
    """Returns None for a value that is NaN or infinite, which JSON does not have."""
    return value if math.isfinite(value) else None
