"""What a run was: config, versions, devices, time, fingerprint."""

import dataclasses
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.files import json_lines
from fgr_jax.inference.saved_run import TrainedRun
from fgr_jax.runs.fingerprint_log import read_fingerprints


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A field of the config in the runs of a report."""

    name: str
    values: list[str]  # a run each; empty where its version had no such field
    is_default: bool  # in all of them
    differs: bool  # the runs have different values


def config_fields(recorded: Sequence[Mapping[str, Any]]) -> list[Field]:
    """All fields, as the runs wrote them, those that are not as by default first."""
    fields = []
    for name, default in config_lib.flat(Config()).items():
        values = [each.get(name, "") for each in recorded]
        fields.append(
            Field(
                name,
                [str(value) for value in values],
                is_default=all(value == default for value in values),
                differs=any(value != values[0] for value in values),
            )
        )
    return sorted(fields, key=lambda field: field.is_default)


def run_facts(run: TrainedRun, step: int) -> dict[str, str]:
    """What else there is to say of a run, by what it is called."""
    folder = run.workdir.local
    facts = {
        "workdir": run.workdir.name,
        "checkpoint": f"step {step:,} of {run.calendar.total_steps:,}",
        "trained on": run.data,
        "seed": str(run.config.seed),
        "time in training": _in_words(_training_seconds(folder, run.config.batch_size))
        + ", without evaluating, saving and compiling",
        "fingerprint": _fingerprint(folder),
    }
    return facts | _of_starts(json_lines.read(folder / "provenance.jsonl"))


def _of_starts(starts: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Of the lines of `provenance.jsonl`: each value with the step that it counts from.

    The older the run, the less they say.
    """
    said: dict[str, Callable[[dict[str, Any]], str]] = {
        "started": lambda start: start.get("time") or "",
        "command": lambda start: shlex.join(start.get("command") or []),
        "code": lambda start: start.get("git_revision") or "",
        "devices": lambda start: _devices(start.get("devices") or []),
        "processes": lambda start: str(start.get("process_count") or ""),
        "XLA flags": lambda start: start.get("xla_flags") or "",
        "Python": lambda start: start.get("python") or "",
        "platform": lambda start: start.get("platform") or "",
        "packages": lambda start: ", ".join(
            f"{name} {version}"
            for name, version in (start.get("packages") or {}).items()
            if version
        ),
    }
    facts = {}
    for name, value_of in said.items():
        changes: list[tuple[int, str]] = []
        for start in starts:
            if not changes or changes[-1][1] != value_of(start):
                changes.append((start["step"], value_of(start)))
        if len(changes) == 1:
            facts[name] = changes[0][1]
        else:
            facts[name] = "; ".join(f"from step {step:,}: {value}" for step, value in changes)
    return {name: value for name, value in facts.items() if value}


def _devices(devices: Sequence[str]) -> str:
    kinds = sorted({device.partition(" ")[2] for device in devices})
    return f"{len(devices)} × {', '.join(kinds)}" if devices else ""


def _training_seconds(folder: Path, batch_size: int) -> float:
    """As `timings.jsonl` has it: evaluations, saving and the first step's compilation left out."""
    seconds, before = 0.0, 0
    for record in json_lines.read(folder / "timings.jsonl"):
        if "images_per_second" in record:
            pictures = (record["step"] - before) * batch_size
            seconds += pictures / max(record["images_per_second"], 1e-9)
            before = record["step"]
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
