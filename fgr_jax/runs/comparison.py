"""Compares two runs: whether they are the same and, if not, at which step and in what they diverge."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fgr_jax.errors import UserError
from fgr_jax.files import json_lines
from fgr_jax.runs.description import Description, differing_fields
from fgr_jax.runs.logs import STREAMS, read_fingerprints, read_metrics
from fgr_jax.runs.workdir import FINGERPRINTS, PROVENANCE, Workdir

# The fields of a provenance record that do not concern the machine or the code.
_OF_START = ("step", "time", "command", "weights")


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """The result of comparing two runs."""

    steps: list[int]  # for which both have fingerprints
    parted: dict[str, int]  # by stream: the first of these steps at which it differs
    missing: list[int]  # up to the last common step: steps for which only one has fingerprints
    metrics_differ: bool  # in records of the same step and split
    differences: list[str]  # in config, data, versions and devices

    @property
    def same(self) -> bool:
        """Whether everything that both recorded is bitwise equal."""
        return not self.parted and not self.metrics_differ

    @property
    def first_parted(self) -> tuple[int, str] | None:
        """The first step at which they differ, and the first differing stream in that step."""
        if not self.parted:
            return None
        step = min(self.parted.values())
        return step, next(name for name in STREAMS if self.parted.get(name) == step)

    @property
    def last_same_step(self) -> int | None:
        """The last step with equal fingerprints before they diverge, or None."""
        first = self.first_parted
        before = [step for step in self.steps if first is None or step < first[0]]
        return max(before, default=None)


def compare(one: Workdir, other: Workdir) -> Comparison:
    """Compares the runs in two workdirs.

    Raises:
      UserError: one is not a workdir, or they have no fingerprints of the same step.
    """
    descriptions = one.read(), other.read()
    for folder in (one, other):
        if not (folder.local / FINGERPRINTS).is_file():
            raise UserError(
                f"{folder} has no {FINGERPRINTS}: run it with --config.runtime.fingerprint_every"
            )
    ours, theirs = read_fingerprints(one.local), read_fingerprints(other.local)
    common = sorted(ours.keys() & theirs.keys())
    if not common:
        raise UserError(
            f"{one.name} and {other.name} have no fingerprints of the same step: choose "
            "--config.runtime.fingerprint_every so that they do"
        )
    parted: dict[str, int] = {}
    for step in common:
        for name in STREAMS:
            if ours[step][name] != theirs[step][name]:
                parted.setdefault(name, step)
    return Comparison(
        steps=common,
        parted=parted,
        missing=sorted(step for step in ours.keys() ^ theirs.keys() if step < common[-1]),
        metrics_differ=_metrics_differ(one.local, other.local),
        differences=_differences(descriptions, _machine(one.local), _machine(other.local)),
    )


def _metrics_differ(one: Path, other: Path) -> bool:
    ours, theirs = (
        {(record["step"], record["split"]): record for record in read_metrics(folder)}
        for folder in (one, other)
    )
    return any(ours[key] != theirs[key] for key in ours.keys() & theirs.keys())


def _differences(
    descriptions: tuple[Description, Description],
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
) -> list[str]:
    """Returns the differences in the configs, the data and the machines."""
    one, other = descriptions
    fields = differing_fields(one.config, other.config)
    values = {f"config.{name}": pair for name, pair in fields.items()}
    values["data"] = (str(one.data), str(other.data))
    values |= {name: (ours.get(name), theirs.get(name)) for name in ours.keys() | theirs.keys()}
    return [
        f"{name}: {our!r} and {their!r}"
        for name, (our, their) in sorted(values.items())
        if our != their
    ]


def _machine(folder: Path) -> dict[str, Any]:
    """Returns the machine and code facts of a run's last start as a flat mapping."""
    starts = json_lines.read(folder / PROVENANCE)
    last = starts[-1] if starts else {}
    facts = {name: value for name, value in last.items() if name not in _OF_START}
    versions = facts.pop("packages", None) or {}
    return facts | {f"version of {name}": version for name, version in versions.items()}
