"""Two runs side by side: are they the same run, and if not, where do they part, and in what?"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from fgr_jax.errors import UserError
from fgr_jax.files import json_lines
from fgr_jax.runs.fingerprint_log import FILE_NAME, STREAMS, read_fingerprints
from fgr_jax.runs.folder import RunFolder

# What a provenance record says of the machine and the code.
_MACHINE = (
    "python",
    "platform",
    "packages",
    "git_revision",
    "process_count",
    "devices",
    "xla_flags",
)


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """What two runs have in common."""

    steps: list[int]  # that both have fingerprints of
    parted: dict[str, int]  # by stream: the first of these steps at which it differs
    missing: list[int]  # steps up to the last common one that one run alone has fingerprints of
    metrics_differ: bool  # in records of the same step and split
    differences: list[str]  # in config, data, versions, devices

    @property
    def same(self) -> bool:
        """Whether all that both recorded is equal to the bit."""
        return not self.parted and not self.metrics_differ

    @property
    def first_parted(self) -> tuple[int, str] | None:
        """The first step at which they differ, and the stream that comes about first in a step."""
        if not self.parted:
            return None
        step = min(self.parted.values())
        return step, next(name for name in STREAMS if self.parted.get(name) == step)

    @property
    def last_same_step(self) -> int | None:
        """The last step with equal fingerprints before they part, or None."""
        first = self.first_parted
        before = [step for step in self.steps if first is None or step < first[0]]
        return max(before, default=None)


def compare(one: RunFolder, other: RunFolder) -> Comparison:
    """Compares the runs in two workdirs.

    Raises:
      UserError: one is no workdir, or they have no fingerprints of the same step.
    """
    for workdir in (one, other):
        if not (workdir.local / "config.json").is_file():
            raise UserError(f"{workdir.name} is no workdir of a run: it has no config.json")
        if not (workdir.local / FILE_NAME).is_file():
            raise UserError(
                f"{workdir.name} has no {FILE_NAME}: run it with --config.runtime.fingerprint_every"
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
        differences=_differences(one.local, other.local),
    )


def _metrics_differ(one: Path, other: Path) -> bool:
    ours, theirs = (
        {(each["step"], each["split"]): each for each in json_lines.read(workdir / "metrics.jsonl")}
        for workdir in (one, other)
    )
    return any(ours[key] != theirs[key] for key in ours.keys() & theirs.keys())


def _differences(one: Path, other: Path) -> list[str]:
    lines = []
    ours, theirs = _facts(one), _facts(other)
    for name in sorted(ours.keys() | theirs.keys()):
        if ours.get(name) != theirs.get(name):
            lines.append(f"{name}: {ours.get(name)!r} and {theirs.get(name)!r}")
    return lines


def _facts(workdir: Path) -> dict[str, Any]:
    """Config, data and machine of a run as one flat mapping; of several starts, the last counts."""
    facts: dict[str, Any] = {
        f"config.{name}": value
        for name, value in json.loads((workdir / "config.json").read_text()).items()
    }
    facts["data"] = json.loads((workdir / "data.json").read_text())
    starts = json_lines.read(workdir / "provenance.jsonl")
    machine = {name: starts[-1].get(name) for name in _MACHINE} if starts else {}
    for name, version in (machine.pop("packages", None) or {}).items():
        facts[f"version of {name}"] = version
    return facts | machine
