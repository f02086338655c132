"""How a run was made: config, versions, devices, time, fingerprint."""

import itertools
import operator
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.files import json_lines
from fgr_jax.inference.saved_run import TrainedRun
from fgr_jax.runs.description import differing_fields
from fgr_jax.runs.logs import read_fingerprints, read_rates
from fgr_jax.runs.provenance import starting_weights
from fgr_jax.runs.workdir import PROVENANCE


class Field(NamedTuple):
    """A field of the config in the runs of a report."""

    name: str
    values: list[str]  # of each run
    is_default: bool  # in all runs
    differs: bool  # between the runs


def config_fields(recorded: Sequence[Mapping[str, Any]]) -> list[Field]:
    """Returns all fields of the flat configs of one or two runs, non-default fields first."""
    defaults = config_lib.flat(Config())
    chosen = {name for config in recorded for name in differing_fields(config, defaults)}
    different = differing_fields(recorded[0], recorded[-1])
    return [
        Field(
            name,
            [str(config.get(name, default)) for config in recorded],
            is_default=name not in chosen,
            differs=name in different,
        )
        for name, default in sorted(defaults.items(), key=lambda field: field[0] not in chosen)
    ]


def run_facts(run: TrainedRun, step: int) -> dict[str, str]:
    """Returns the other facts about a run, by name."""
    folder = run.workdir.local
    facts = {
        "workdir": run.workdir.name,
        "checkpoint": f"step {step:,} of {run.calendar.total_steps:,}",
        "trained on": str(run.data),
        "seed": str(run.config.seed),
        "training time": _in_words(_training_seconds(folder, run.config.batch_size))
        + ", without evaluation, saving and compilation",
        "fingerprint": _fingerprint(folder),
    }
    if run.missing_fields:
        facts["older config"] = f"lacks {', '.join(run.missing_fields)}, with their defaults here"
    if weights := starting_weights(folder):
        facts["starting weights"] = weights
    return facts | _of_starts(json_lines.read(folder / PROVENANCE))


def _of_starts(starts: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Summarizes provenance records: each value, with its first step if the value changed."""
    described = [_of_start(start) for start in starts]
    facts = {}
    for name in described[0] if described else ():
        values = [(start["step"], of[name]) for start, of in zip(starts, described, strict=True)]
        runs = itertools.groupby(values, key=operator.itemgetter(1))
        changes = [next(equal) for _, equal in runs]
        if len(changes) == 1:
            facts[name] = changes[0][1]
        else:
            facts[name] = "; ".join(f"from step {step:,}: {value}" for step, value in changes)
    return {name: value for name, value in facts.items() if value}


def _of_start(start: dict[str, Any]) -> dict[str, str]:
    """Describes a provenance record; fields that older versions did not record are empty."""
    devices = start.get("devices") or []
    kinds = sorted({device.partition(" ")[2] for device in devices})
    packages = start.get("packages") or {}
    return {
        "started": start.get("time") or "",
        "command": shlex.join(start.get("command") or []),
        "code": start.get("git_revision") or "",
        "devices": f"{len(devices)} × {', '.join(kinds)}" if devices else "",
        "processes": str(start.get("process_count") or ""),
        "XLA flags": start.get("xla_flags") or "",
        "Python": start.get("python") or "",
        "platform": start.get("platform") or "",
        "packages": ", ".join(f"{name} {packages[name]}" for name in packages if packages[name]),
    }


def _training_seconds(folder: Path, batch_size: int) -> float:
    """Sums the timings in seconds, which exclude evaluation, saving and compilation."""
    seconds, before = 0.0, 0
    for step, rate in read_rates(folder).items():
        seconds += (step - before) * batch_size / max(rate, 1e-9)
        before = step
    return seconds


def _in_words(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _fingerprint(folder: Path) -> str:
    digests = read_fingerprints(folder)
    if not digests:
        return "none was recorded"
    last = max(digests)
    return f"parameters {digests[last]['parameters']} after step {last:,}"
