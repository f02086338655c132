"""Requests to classify an image, and their answers in JSON."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fgr_jax.inference.heatmaps import over_center_crop
from fgr_jax.inference.saved_run import TrainedNetwork, TrainedRun
from fgr_jax.inference.thumbnails import as_url
from fgr_jax.serve.classifier import Answer
from fgr_jax.serve.neighbors import Neighbors
from fgr_jax.serve.uploads import JPEG_QUALITY, Upload

_YES_OR_NO = {"0": False, "1": True, "false": False, "true": True}


class RequestError(Exception):
    """A request that cannot be answered, with its HTTP status; the text is for whoever sent it."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What an answer contains."""

    top: int  # classes
    heatmaps: bool
    nearest: int  # training images of each class

    @classmethod
    def read(
        cls, query: Sequence[tuple[str, str]], most_classes: int, most_nearest: int
    ) -> "Options":
        """Reads the parameters of a request.

        Raises:
          RequestError: one is unknown, is given twice or has an invalid value.
        """
        values = {"top": str(most_classes), "heatmaps": "0", "nearest": "0"}
        seen = set[str]()
        for name, value in query:
            if name not in values:
                raise RequestError(400, f"unknown parameter {name!r}: {', '.join(values)}")
            if name in seen:
                raise RequestError(400, f"{name} is given twice")
            seen.add(name)
            values[name] = value
        if values["heatmaps"] not in _YES_OR_NO:
            raise RequestError(400, f"heatmaps={values['heatmaps']!r}: must be 0 or 1")
        return cls(
            _integer("top", values["top"], 1, most_classes),
            _YES_OR_NO[values["heatmaps"]],
            _integer("nearest", values["nearest"], 0, most_nearest),
        )


def _integer(name: str, value: str, low: int, high: int) -> int:
    if value.isascii() and value.isdigit() and len(value) < 10 and low <= int(value) <= high:
        return int(value)
    raise RequestError(400, f"{name}={value!r}: must be a whole number from {low} to {high}")


class Writer(NamedTuple):
    """Puts answers into words and images."""

    run: TrainedRun
    trained: TrainedNetwork
    neighbors: Neighbors | None

    def write(self, upload: Upload, answer: Answer, options: Options) -> Mapping[str, Any]:
        """Returns the answer to a request; page/openapi.json describes it."""
        height, width = upload.size
        predictions = [self._prediction(upload, answer, options, i) for i in range(options.top)]
        image = {} if upload.shown is None else {"image": as_url(upload.shown, JPEG_QUALITY)}
        return {"width": width, "height": height, **image, "predictions": predictions}

    def _prediction(
        self, upload: Upload, answer: Answer, options: Options, place: int
    ) -> dict[str, Any]:
        label = int(answer.classes[place])
        probability = float(answer.probabilities[place])
        prediction: dict[str, Any] = {
            "class": self.run.class_names[label],
            # NaN, of a network that has diverged, is not JSON.
            "probability": 0.0 if math.isnan(probability) else probability,
        }
        if upload.shown is not None and answer.maps is not None:
            network = self.trained.network
            overlaid = over_center_crop(
                upload.shown, answer.maps[place], upload.canvas, network.stride, network.origin
            )
            prediction["heatmap"] = as_url(overlaid, JPEG_QUALITY)
        if options.nearest and self.neighbors is not None:
            found = self.neighbors.nearest(answer.features, label, options.nearest)
            prediction["nearest"] = [
                {
                    "image": f"training/{each.index}",
                    "name": each.name,
                    "similarity": each.similarity,
                }
                for each in found
            ]
        return prediction
