"""What is written of a run: its network at a checkpoint, as a function, and the metadata."""

import copy
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from fgr_jax.inference.saved_run import TrainedNetwork, TrainedRun
from fgr_jax.models.network import forward, network_name
from fgr_jax.runs.logs import read_metrics
from fgr_jax.runs.provenance import starting_weights

IMAGE = "image"  # the input: uint8 [B, H, W, 3], RGB, resized and cropped
PROBABILITIES = "probabilities"  # [B, C]
MAPS = "maps"  # [B, h, w, C]

_GEOMETRY = ("cut_bottom", "resize", "resize_method", "crop")


@dataclasses.dataclass(frozen=True, slots=True)
class ExportedRun:
    """A run's network at a checkpoint."""

    run: TrainedRun
    trained: TrainedNetwork

    @property
    def size(self) -> int:
        """The side of the images in pixels."""
        return self.run.config.data.crop

    def outputs(self, images: jax.Array) -> dict[str, jax.Array]:
        """Computes probabilities and, if the head has them, maps of uint8 `[B, size, size, 3]`."""
        # On no device, so that a function that is traced does not depend on the devices here.
        variables = jax.device_get(self.trained.variables)
        return outputs_of(forward(self.trained.network, variables, images))


def outputs_of(outputs: Any) -> dict[str, jax.Array]:
    """Returns what is exported of the outputs of a network."""
    found = {PROBABILITIES: jax.nn.softmax(outputs.scores)}
    return found if outputs.maps is None else {**found, MAPS: outputs.maps}


def in_float32(run: TrainedRun) -> TrainedRun:
    """Returns the run with a network that computes in float32, as all exported files do."""
    config = copy.deepcopy(run.config)
    config.network.compute_dtype = "float32"
    return dataclasses.replace(run, config=config)


def metadata(exported: ExportedRun) -> dict[str, Any]:
    """Returns what is stored with the network, as values of JSON.

    Raises:
      UserError: the metrics of the run are damaged.
    """
    run, trained = exported.run, exported.trained
    network, config = trained.network, run.config
    mean, std = network.normalization
    entries = {
        "class_names": run.class_names,
        "geometry": {
            **{name: getattr(config.data, name) for name in _GEOMETRY},
            "padding": network.padding,
            "mean": [float(each) for each in mean],
            "std": [float(each) for each in std],
            "stride": network.stride,
            "origin": network.origin,
        },
        "network": network_name(config.network),
        "step": trained.step,
        "digest": _digest(trained.variables),
        "data": str(run.data),
        "accuracy": _accuracy(run, trained.step),
        "weights": starting_weights(run.workdir.local),
        "version": _version(),
    }
    return {name: value for name, value in entries.items() if value}


def as_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns metadata as texts: strings as they are, and everything else as JSON in ASCII."""
    return {
        # Names of files that are not UTF-8 are escaped, as JSON escapes them.
        name: value.encode("utf-8", "backslashreplace").decode()
        if isinstance(value, str)
        else json.dumps(value)
        for name, value in values.items()
    }


def _accuracy(run: TrainedRun, step: int) -> dict[str, Any]:
    """Returns the results on the test split at `step`; none if the run was not tested there."""
    data = run.config.data
    split = f"fold {data.fold} of {data.train_split}" if data.fold else data.test_split
    for record in reversed(read_metrics(run.workdir.local)):
        if (record["step"], record["split"]) == (step, "test"):
            numbers = {name: record[name] for name in ("top1", "top5", "loss")}
            return {"split": split, "images": record["examples"], **numbers}
    return {}


def _digest(variables: Any) -> str:
    """Returns the SHA-256 of all variables and their names, in 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for path, value in sorted(traverse_util.flatten_dict(variables, sep="/").items()):
        digest.update(path.encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def _version() -> str:
    try:
        return importlib.metadata.version("fgr-jax")
    except importlib.metadata.PackageNotFoundError:  # a source tree that is not installed
        return ""
