"""Runs that were not trained: a config and random weights in a workdir."""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from etils import epath
from networks import random_variables
from tiny_run import QUIET

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.data.source import open_splits
from fgr_jax.models.network import build_network
from fgr_jax.runs.checkpoints import Checkpoints
from fgr_jax.runs.description import Description
from fgr_jax.runs.workdir import Workdir

STEP = 2


def saved(config: Config, workdir: Path, names: Sequence[str] = ()) -> Path:
    """Writes a run of `config` at `STEP`, with other names of the classes if `names` are given."""
    source, _ = open_splits(config.data, QUIET)
    names = [*(names or source.class_names)]
    side = config.data.crop
    variables = random_variables(build_network(config, len(names)), side, side)
    Workdir.open(workdir).claim(Description(config_lib.flat(config), source.identity, names))
    state = {"batch_stats": {}, **variables, "step": jnp.int32(STEP)}
    with Checkpoints(epath.Path(workdir) / "checkpoints") as kept:
        kept.save(STEP, state, top1=None)
    return workdir
