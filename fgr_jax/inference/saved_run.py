"""The network that a run has trained, opened for reading: nothing in its folder is changed."""

import dataclasses
import fcntl
import json
import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from fgr_jax import config as config_lib
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.distributed import agreed_integer, once_for_all, replicated
from fgr_jax.errors import UserError
from fgr_jax.models.network import Network, build_network
from fgr_jax.runs.checkpoints import read, saved_steps
from fgr_jax.runs.folder import LOCK, RunFolder

_EXAMPLES = re.compile(r": (\d+) examples$")  # `ExampleSource.identity`
_DIFFERENCES_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True)
class TrainedRun:
    """What the files of a run say of it."""

    workdir: RunFolder
    config: Config
    recorded: dict[str, Any]  # the config's fields as the run wrote them, `config_lib.flat`
    # Fields of the config that the run's version did not have; here they have today's default. What
    # changes no result does not count.
    missing_fields: list[str]
    class_names: list[str]
    data: str  # what it was trained on, as `ExampleSource.identity`
    calendar: Calendar
    is_training: (
        bool  # whether a process on this machine is training it now; in a bucket: not known
    )


@dataclasses.dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """The network of a run at one of its checkpoints."""

    step: int
    network: Network
    variables: Any  # {"params", "batch_stats"}, replicated over the devices


def open_run(workdir: RunFolder, *, data_dir: str | None = None) -> TrainedRun:
    """Reads what describes the run in `workdir`, and asks for no device.

    Args:
      workdir: the folder.
      data_dir: where data sets are prepared, if that is another folder now.

    Raises:
      UserError: there is no run, or another version's, or a file is damaged.
    """
    folder = workdir.local
    if not folder.is_dir():
        raise UserError(f"{workdir.flag}={workdir.name}: no such folder; name the workdir of a run")
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{workdir.flag}={workdir.name} is no workdir of a run: it has no config.json"
        )
    fields = _read_json(workdir, "config.json", dict)
    config, missing = _config_of(fields, workdir)
    if data_dir is not None:
        config.data.data_dir = data_dir
    data = _read_json(workdir, "data.json", str)
    examples = _EXAMPLES.search(data)
    if examples is None:
        raise UserError(
            f"{workdir.flag}={workdir.name}: data.json does not say how many examples there are "
            f"({data!r}): it was not written by this program, or was changed"
        )
    return TrainedRun(
        workdir,
        config,
        fields,
        missing,
        class_names=_read_json(workdir, "classes.json", list),
        data=data,
        calendar=Calendar.of(config, int(examples.group(1))),
        is_training=_is_locked(folder / LOCK),
    )


def restore(run: TrainedRun, step: int | None, mesh: Mesh) -> TrainedNetwork:
    """The network of `run` at `step`, or at its latest checkpoint, on the devices of `mesh`.

    One process reads, and all get the same: a run that is still going replaces its checkpoints.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or it is of another network than the
        config describes.
    """
    step = agreed_integer(once_for_all(lambda: _chosen_step(run.workdir, step)) or 0)
    network = build_network(run.config, len(run.class_names))
    size = run.config.data.crop
    expected = jax.eval_shape(
        lambda: network.init(jax.random.key(0), np.zeros((1, size, size, 3)), train=False)
    )
    variables = once_for_all(lambda: _read_variables(run.workdir, step, expected))
    if jax.process_count() > 1:
        if variables is None:
            variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), expected)
        variables = multihost_utils.broadcast_one_to_all(variables)
    return TrainedNetwork(step, network, jax.device_put(variables, replicated(mesh)))


def _chosen_step(workdir: RunFolder, step: int | None) -> int:
    there = saved_steps(workdir.checkpoints)
    if not there:
        raise UserError(
            f"{workdir.flag}={workdir.name} holds no checkpoint yet: train there first, or name "
            "another one"
        )
    if step is None:
        return there[-1]
    if step not in there:
        raise UserError(
            f"--step={step}: {workdir.name} holds the checkpoints of the steps "
            f"{', '.join(map(str, there))}; without --step it is the last of them"
        )
    return step


def _read_variables(workdir: RunFolder, step: int, expected: Any) -> Any:
    """The variables saved at `step` as NumPy arrays, in the tree and the shapes of `expected`."""
    folder = workdir.checkpoints / str(step)
    state = read(workdir.checkpoints, step)
    variables = {name: state.get(name) for name in expected}
    differences = _differences(variables, expected)
    if differences or int(state.get("step", -1)) != step:
        reasons = differences or ["it was saved at another step than its name says"]
        raise UserError(
            f"the checkpoint {folder} is not of the network that config.json and classes.json of "
            f"{workdir.name} describe: {'; '.join(reasons[:_DIFFERENCES_SHOWN])}. One of them was "
            "brought from another run: bring back its own"
        )
    return variables


def _differences(found: Any, expected: Any) -> list[str]:
    """What is in one of two trees alone, or has another shape in the other, the last layers first."""
    ours, theirs = (
        {
            "/".join(str(key.key) for key in path): leaf.shape
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        }
        for tree in (found, expected)
    )
    lines = []
    # The classifier first: another number of classes is the most likely of all differences.
    for name in sorted(
        ours.keys() | theirs.keys(), key=lambda name: ("classifier" not in name, name)
    ):
        if name not in ours or name not in theirs:
            lines.append(f"{name} is in {'the checkpoint' if name in ours else 'the config'} alone")
        elif ours[name] != theirs[name]:
            lines.append(
                f"{name} has the shape {list(ours[name])} and would have {list(theirs[name])}"
            )
    return lines


def _config_of(fields: dict[str, Any], workdir: RunFolder) -> tuple[Config, list[str]]:
    """The config that `config_lib.flat` made `fields` of, and the fields that it lacks."""
    config = Config()
    known = config_lib.flat(config)
    unknown = sorted(fields.keys() - known.keys())
    if unknown:
        raise UserError(
            f"{workdir.flag}={workdir.name}: config.json has fields that this version does not know, "
            f"{', '.join(unknown)}: use the version that trained it (provenance.jsonl names it)"
        )
    for name, value in fields.items():
        section, _, field = name.rpartition(".")
        setattr(getattr(config, section) if section else config, field, value)
    try:
        config_lib.validate(config)
    except UserError as error:
        raise UserError(f"{workdir.flag}={workdir.name}: config.json: {error}") from error
    missing = known.keys() - fields.keys()
    return config, sorted(name for name in missing if not name.startswith("runtime."))


def _read_json(workdir: RunFolder, name: str, kind: type) -> Any:
    path = workdir.local / name
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{workdir.flag}={workdir.name}: {name} cannot be read ({error}): it describes the run, and "
            "belongs there as the run wrote it"
        ) from error
    if not isinstance(value, kind) or not value:
        raise UserError(
            f"{workdir.flag}={workdir.name}: {name} holds no {kind.__name__}: it describes the run, and "
            "belongs there as the run wrote it"
        )
    return value


def _is_locked(path: os.PathLike) -> bool:
    """Whether a run holds the lock file of its workdir."""
    try:
        lock = os.open(path, os.O_RDONLY)
    except OSError:  # a workdir that was copied may have none
        return False
    try:
        # It cannot be asked without being taken: shared, and let go at once.
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False
