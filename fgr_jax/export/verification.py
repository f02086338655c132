"""Compares an exported file with the run that it was written from."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy
from jax.sharding import Mesh

from fgr_jax.data.pipeline import Share, Source, annotated_batches, evaluation_batch_count
from fgr_jax.errors import UserError
from fgr_jax.export.exported_run import MAPS, PROBABILITIES, ExportedRun, outputs_of
from fgr_jax.export.formats import Run
from fgr_jax.inference.forward import IMAGES_PER_DEVICE, HostBatch, compiled, stream
from fgr_jax.models.weights.table import to_tensors
from fgr_jax.terminal import Terminal

TOLERANCE = 1e-5  # of a probability, and of a map relative to the largest value of all maps


class DifferenceError(UserError):
    """A file is not what the run is; the message lacks the file's name."""


@dataclasses.dataclass
class _Differences:
    """How far a file is from the run."""

    images: int = 0
    predictions: int = 0  # that differ, and are not equally probable
    probability: float = 0.0
    map_value: float = 0.0
    largest_map_value: float = 0.0

    def add(self, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
        """Adds the outputs of the run and of the file for some images."""
        if ours.keys() != theirs.keys() or any(
            ours[name].shape != theirs[name].shape for name in ours
        ):
            raise DifferenceError("has other outputs than the run")
        expected, found = ours[PROBABILITIES], theirs[PROBABILITIES]
        self.images += len(expected)
        predicted = np.take_along_axis(expected, found.argmax(-1)[:, None], -1)[:, 0]
        # Written so that NaN counts as a difference.
        self.predictions += int(np.sum(~(predicted >= expected.max(-1) - TOLERANCE)))
        self.probability = _larger(self.probability, expected - found)
        if MAPS in ours:
            self.map_value = _larger(self.map_value, ours[MAPS] - theirs[MAPS])
            self.largest_map_value = _larger(self.largest_map_value, ours[MAPS])

    @property
    def relative_map_value(self) -> float:
        """The largest difference of a map, relative to the largest value of all maps."""
        return self.map_value / self.largest_map_value if self.map_value else 0.0

    def __str__(self) -> str:
        words = f"probabilities differ by at most {self.probability:.1e}"
        if self.largest_map_value:
            words += f", maps by {self.relative_map_value:.1e} of their largest value"
        return words

    @property
    def are_small(self) -> bool:
        """Whether the file computes the same up to rounding."""
        largest = max(self.probability, self.relative_map_value)
        return not self.predictions and largest <= TOLERANCE


def _larger(known: float, values: Any) -> float:
    """Returns the largest absolute value so far; infinity after a NaN."""
    found = np.max(np.abs(values), initial=known)
    return float(found) if np.isfinite(found) else np.inf


def verify_outputs(
    exported: ExportedRun, source: Source, mesh: Mesh, file: Run, terminal: Terminal
) -> str:
    """Runs a file on all images of a split, and compares its outputs with those of the run.

    Returns:
      What was found, in words.

    Raises:
      DifferenceError: the outputs are not the same up to `TOLERANCE`.
    """
    config, trained = exported.run.config, exported.trained
    size = min(config.batch_size, IMAGES_PER_DEVICE * mesh.size)
    share = Share(-(-size // mesh.size) * mesh.size, 0, 1)
    count = evaluation_batch_count(source, share)
    forward = compiled(trained, mesh, lambda outputs, _: outputs_of(outputs))

    def batches() -> Iterator[tuple[Any, HostBatch]]:
        padding = trained.network.padding
        for batch in annotated_batches(
            source, config.data, config.runtime, share, crops=1, padding=padding
        ):
            images = batch["image"][:, 0]
            yield (images, batch["mask"]), {"image": images}

    differences = _Differences()
    with (
        # Where devices would multiply in fewer bits unless told otherwise.
        jax.default_matmul_precision("highest"),
        terminal.bar("verifying", count, unit="images", per=share.batch_size) as bar,
    ):
        for done, ((images, mask), ours) in enumerate(stream(forward, batches(), mesh), start=1):
            theirs = file(images[mask]) if mask.any() else {}
            if theirs:
                differences.add({name: values[mask] for name, values in ours.items()}, theirs)
            bar.update(done)
    if not differences.are_small:
        raise DifferenceError(
            f"has {differences.predictions:,} other predictions than the run on {differences.images:,} "
            f"images; {differences}"
        )
    return f"all predictions are those of the run on {differences.images:,} images; {differences}"


def verify_weights(exported: ExportedRun, metadata: Mapping[str, str], path: Path) -> str:
    """Reads a file of weights again, and compares it bit by bit; otherwise as `verify_outputs`."""
    trained = exported.trained
    expected = to_tensors(jax.device_get(trained.variables), trained.network.table)
    with safetensors.safe_open(path, "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        described = file.metadata()
    differing = [
        name
        for name in expected.keys() | found.keys()
        if name not in expected
        or name not in found
        or expected[name].dtype != found[name].dtype
        or expected[name].tobytes() != found[name].tobytes()
        or expected[name].shape != found[name].shape
    ]
    if differing or described != metadata:
        names = ", ".join(sorted(differing)[:3]) or "the metadata"
        raise DifferenceError(f"differs from the run in {names}")
    return f"all {len(expected):,} tensors are those of the run, bit by bit"
