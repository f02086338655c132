"""Runs on the folds of a training split, each of which judges the images that it was not trained on."""

import dataclasses
import glob
from collections.abc import Mapping, Sequence
from typing import Any

from fgr_jax.config import parsed_fold
from fgr_jax.errors import UserError
from fgr_jax.evaluate.evaluated_run import OpenedRun
from fgr_jax.files.buckets import is_in_bucket
from fgr_jax.inference.saved_run import TrainedRun, open_run
from fgr_jax.runs.workdir import Workdir

_FLAG = "--folds"


def open_folds(names: str, fields: Mapping[str, Any]) -> list[TrainedRun]:
    """Opens the runs that are named in a list of workdirs, separated by commas, or by a pattern of them.

    Args:
      names: such as "runs/fold1,runs/fold2" or "runs/fold*".
      fields: as for `open_run`.

    Raises:
      UserError: a run cannot be opened, or was not trained on a fold.
    """
    runs = []
    for part in filter(None, names.split(",")):
        found = [] if is_in_bucket(part) else sorted(glob.glob(part))
        for name in found or [part]:
            run = open_run(Workdir.open(name, flag=_FLAG), fields)
            if not run.config.data.fold:
                raise UserError(
                    f"{_FLAG}={name}: the run was trained on all training images, and cannot judge "
                    "them: name runs with --config.data.fold=1/5, 2/5 and so on"
                )
            runs.append(run)
    if not runs:
        raise UserError(f"{_FLAG}={names}: names no run")
    return runs


def require_folds(ours: OpenedRun, folds: Sequence[OpenedRun]) -> None:
    """Checks that runs have folds of one training split, all of them others, of the data of `ours`.

    Raises:
      UserError: they do not.
    """
    expected = folds[0]
    seen: dict[str, str] = {}
    for each in folds:
        name = f"{_FLAG}={each.run.workdir.name}"
        identity = each.source.identity
        same_split = dataclasses.replace(
            identity, split=ours.source.identity.split, examples=ours.source.identity.examples
        )
        if not same_split.is_same_data(ours.source.identity):
            raise UserError(
                f"{name}: was trained on {identity.data_set}, and {ours.run.workdir.name} on "
                f"{ours.source.identity.data_set}: name folds of the same images"
            )
        if each.source.class_names != ours.source.class_names:
            raise UserError(f"{name}: has other classes than {ours.run.workdir.name}")
        if _division(each) != _division(expected):
            raise UserError(
                f"{name}: holds out {each.source.split}, and {expected.run.workdir.name} "
                f"{expected.source.split}: name runs with folds of the same split and number"
            )
        if identity.split in seen:
            raise UserError(
                f"{name}: holds out {each.source.split}, as {seen[identity.split]} does: name one of "
                "the two"
            )
        seen[identity.split] = each.run.workdir.name


def _division(opened: OpenedRun) -> tuple[Any, ...]:
    """Returns which images are divided into folds, and the number of these."""
    data = opened.run.config.data
    fold = parsed_fold(data.fold)
    assert fold is not None  # as `open_folds` has checked
    shares = (data.test_share, data.validation_share, data.group)
    return data.split, data.train_split, *shares, fold[1]
