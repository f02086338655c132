"""What a run was: config, versions, devices, time, fingerprint."""

import dataclasses
from pathlib import Path
from typing import Any

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.recording import json_lines
from fgr_jax.recording.fingerprint_log import read_fingerprints
from fgr_jax.trained_run import TrainedRun


@dataclasses.dataclass(frozen=True, slots=True)
class Field:
    """A field of the config in the runs of a report."""

    name: str
    values: list[str]  # a run each
    is_default: bool  # in all of them

    @property
    def differs(self) -> bool:
        """Whether the runs have different values."""
        return len(set(self.values)) > 1


def config_fields(configs: list[Config]) -> list[Field]:
    """All fields, those that are not as by default first."""
    flat = [config_lib.flat(config) for config in configs]
    default = config_lib.flat(Config())
    fields = [
        Field(
            name,
            [str(each[name]) for each in flat],
            all(each[name] == default[name] for each in flat),
        )
        for name in default
    ]
    return sorted(fields, key=lambda field: field.is_default)


def run_facts(run: TrainedRun, step: int) -> dict[str, str]:
    """What else there is to say of a run, by what it is called."""
    folder = run.workdir.local
    starts = json_lines.read(folder / "provenance.jsonl")
    facts = {
        "workdir": run.workdir.name,
        "checkpoint": f"step {step:,} of {run.calendar.total_steps:,}",
        "trained on": run.data,
        "seed": str(run.config.seed),
        "time in training": _in_words(_training_seconds(folder, run.config.batch_size)),
        "fingerprint": _fingerprint(folder),
        "starts": str(len(starts)),
    }
    return facts | (_of_start(starts[-1]) if starts else {})


def _of_start(start: dict[str, Any]) -> dict[str, str]:
    """Of a line of `provenance.jsonl`; the older the run, the less it says."""
    devices = start.get("devices") or []
    kinds = sorted({device.partition(" ")[2] for device in devices})
    packages = start.get("packages") or {}
    facts = {
        "started": start.get("time"),
        "command": " ".join(start.get("command") or []),
        "code": start.get("git_revision"),
        "devices": f"{len(devices)} × {', '.join(kinds)}" if devices else "",
        "processes": start.get("process_count"),
        "XLA flags": start.get("xla_flags"),
        "Python": start.get("python"),
        "platform": start.get("platform"),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items() if version),
    }
    return {name: str(value) for name, value in facts.items() if value}


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
