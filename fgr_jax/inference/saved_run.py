"""The trained network of a run, opened for reading: nothing in its folder is changed."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from fgr_jax import config as config_lib
from fgr_jax.calendar import Calendar
from fgr_jax.config import Config
from fgr_jax.data.identity import DataIdentity
from fgr_jax.distributed import agreed_integer, once_for_all, replicated
from fgr_jax.errors import UserError
from fgr_jax.models.network import Network, build_network, inference_variables, with_all_cells
from fgr_jax.runs.checkpoints import read, saved_steps
from fgr_jax.runs.description import is_with_effect, missing_fields
from fgr_jax.runs.logs import last_step
from fgr_jax.runs.workdir import CLASSES, CONFIG, PROVENANCE, Workdir

_DIFFERENCES_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run as its files describe it."""

    workdir: Workdir
    config: Config
    recorded: dict[str, Any]  # the config as the run wrote it, by command-line names
    # The fields that can change a result but did not exist in the run's version; `config` has their
    # defaults.
    missing_fields: list[str]
    class_names: list[str]
    data: DataIdentity  # what it was trained on
    calendar: Calendar
    is_training: bool  # by a process on this machine; always false for a run in a bucket


@dataclasses.dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """The network of a run at one of its checkpoints."""

    step: int
    network: Network  # with all cells (`with_all_cells`), whatever the run was trained on
    variables: Any  # {"params", "batch_stats"}, replicated over the devices


def open_run(workdir: Workdir, fields: Mapping[str, Any] | None = None) -> TrainedRun:
    """Reads the description of the run in `workdir`, without using a device.

    Args:
      workdir: the folder of a run.
      fields: other values of fields of its config, by command-line name. They may be those without
        effect on the run, such as `data.data_dir`, where data sets are prepared now.

    Raises:
      UserError: there is no run, it is from a later version, or a file is damaged; or a field may not be
        changed.
    """
    described = workdir.read()
    config = _config_of(described.config, workdir)
    # The programs that a run names are of another machine, or of somebody whom the user does not trust.
    config.runtime.compilation_cache = Config().runtime.compilation_cache
    for name, value in (fields or {}).items():
        if is_with_effect(name):
            raise UserError(
                f"--config.{name}={value}: the run in {workdir.name} has its own value; here, only "
                "data.data_dir, data.folder, data.table and the fields of runtime can be changed"
            )
        _set(config, name, value)
    config_lib.validate(config)
    calendar = Calendar.of(config, described.data.examples)
    return TrainedRun(
        workdir,
        config,
        described.config,
        missing_fields(described.config),
        described.class_names,
        described.data,
        calendar.ending_at(last_step(workdir.local, calendar)),
        is_training=workdir.is_claimed(),
    )


def restore(run: TrainedRun, step: int | None, mesh: Mesh) -> TrainedNetwork:
    """Restores the network of `run` at `step`, or at its latest checkpoint, on the devices of `mesh`.

    One process reads for all, since a run that is still training replaces its checkpoints.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or it does not match the network of the
        config.
    """
    step = agreed_integer(once_for_all(lambda: _chosen_step(run.workdir, step)) or 0)
    network = with_all_cells(build_network(run.config, len(run.class_names)))
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


def _chosen_step(workdir: Workdir, step: int | None) -> int:
    saved = saved_steps(workdir.checkpoints)
    if not saved:
        raise UserError(
            f"{workdir} holds no checkpoint yet: train there first, or name another one"
        )
    if step is None:
        return saved[-1]
    if step not in saved:
        raise UserError(
            f"--step={step}: {workdir.name} holds the checkpoints of the steps "
            f"{', '.join(map(str, saved))}; without --step the last of them is used"
        )
    return step


def _read_variables(workdir: Workdir, step: int, expected: Any) -> Any:
    """Reads the variables saved at `step` as NumPy arrays, with the tree and shapes of `expected`."""
    state = read(workdir.checkpoints, step)
    found = inference_variables(state)
    variables = {name: found.get(name) for name in expected}
    differences = _differences(variables, expected)
    if not differences and int(state.get("step", -1)) != step:
        differences = ["it was saved at another step than its name says"]
    if differences:
        raise UserError(
            f"the checkpoint {workdir.checkpoints / str(step)} is not of the network that {CONFIG} and "
            f"{CLASSES} of {workdir.name} describe: {'; '.join(differences[:_DIFFERENCES_SHOWN])}. One "
            "of them comes from another run: put back its own"
        )
    return variables


def _differences(found: Any, expected: Any) -> list[str]:
    """Lists leaves that only one tree has, or that differ in shape, the classifier first."""
    ours, theirs = (
        {
            "/".join(str(key.key) for key in path): leaf.shape
            for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]
        }
        for tree in (found, expected)
    )
    lines = []
    names = ours.keys() | theirs.keys()
    # A different number of classes is the most likely difference.
    for name in sorted(names, key=lambda name: ("classifier" not in name, name)):
        if name not in ours or name not in theirs:
            lines.append(f"{name} is in {'the checkpoint' if name in ours else 'the config'} alone")
        elif ours[name] != theirs[name]:
            shapes = list(ours[name]), list(theirs[name])
            lines.append(f"{name} has the shape {shapes[0]} and would have {shapes[1]}")
    return lines


def _config_of(fields: dict[str, Any], workdir: Workdir) -> Config:
    """Rebuilds the config of a run from its recorded `fields`."""
    config = Config()
    unknown = sorted(fields.keys() - config_lib.flat(config).keys())
    if unknown:
        raise UserError(
            f"{workdir}: {CONFIG} has fields that this version does not know, {', '.join(unknown)}: "
            f"use the version that trained it ({PROVENANCE} names it)"
        )
    for name, value in fields.items():
        _set(config, name, value)
    try:
        config_lib.validate(config)
    except UserError as error:
        raise UserError(f"{workdir}: {CONFIG}: {error}") from error
    return config


def _set(config: Config, name: str, value: Any) -> None:
    """Sets a field by its command-line name."""
    section, _, field = name.rpartition(".")
    setattr(getattr(config, section) if section else config, field, value)
