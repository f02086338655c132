"""Saves and restores the state of a run, a tree of arrays. No other module uses Orbax."""

import asyncio
import contextlib
import errno
import json
import logging
import operator
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers

from fgr_jax.digests import digests
from fgr_jax.distributed import once_for_all
from fgr_jax.errors import UserError
from fgr_jax.files.atomic import atomic_write
from fgr_jax.files.buckets import is_in_bucket

_LATEST_TO_KEEP = 2
_METRIC = "top1"
_ITEM = "default"  # Orbax's name of the state in the folder of a step
_DIGEST = "digest"  # beside the arrays of a state; older versions did not save it
_NAMES = "_METADATA"  # Orbax's list of the arrays
_STEP = re.compile(r"0|[1-9][0-9]*")
_OVERHEAD_BYTES = 1_000_000  # of metadata beside the arrays
# Paths that Orbax, epath and TensorStore all take literally. Of others, they expand wildcards, change
# "gs:/" and backslashes, or refuse characters that are not UTF-8 and names that end in .__lock.
_LITERAL = re.compile(r"(?!.*__lock)[\w/.,+=@ -]{1,1000}", re.ASCII)


class Checkpoints:
    """The checkpoints of one run: the latest two, and the best on the split it is evaluated on.

    That is the validation split, or without one the test split. The best one is kept for inspection. A
    run reports its last step: selecting a step on the test split would bias the result.

    Args:
      directory: where they are; its parent must exist.

    Raises:
      UserError: that path needs a temporary folder, and there is none.
    """

    def __init__(self, directory: epath.Path):
        self._directory = directory
        self._stack = contextlib.ExitStack()
        literal = self._stack.enter_context(_literal_path(directory))
        logging.getLogger("absl").addFilter(_is_news)
        self._saving: int | None = None
        latest = checkpoint_managers.LatestN(_LATEST_TO_KEEP)
        best = checkpoint_managers.BestN(
            get_metric_fn=operator.itemgetter(_METRIC), n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            # `max_to_keep` with `best_fn` would delete the newest step.
            preservation_policy=checkpoint_managers.AnyPreservationPolicy([latest, best]),
            best_fn=operator.itemgetter(_METRIC),  # otherwise a reopened folder has no metrics
        )
        # By default each device saves a slice of every array, though it has all of it, and each slice of
        # each shape is a program to compile: hundreds of them, at the first checkpoint of a run.
        arrays = ocp.type_handlers.ArrayHandler(use_replica_parallel=False)
        handlers = ocp.type_handlers.create_type_handler_registry(
            (jax.Array, arrays), (np.ndarray, ocp.type_handlers.NumpyHandler())
        )
        self._manager = ocp.CheckpointManager(
            literal,
            options=options,
            item_handlers=ocp.PyTreeCheckpointHandler(type_handler_registry=handlers),
        )
        self._literal = literal
        self._remove_unfinished()  # Orbax cleans up later, in the background

    def restore(self, step: int, like: dict[str, Any]) -> dict[str, Any]:
        """Restores the state saved at `step`, with the shapes, dtypes and shardings of `like`.

        Raises:
          UserError: the checkpoint is damaged.
        """
        try:
            item = self._literal / str(step) / _ITEM
            once_for_all(lambda: _merge_if_forgotten(item))
            if f"('{_DIGEST}',)" in json.loads((item / _NAMES).read_text())["tree_metadata"]:
                everywhere = jax.tree.leaves(like)[0].sharding
                like = {**like, _DIGEST: jax.device_put(np.zeros(2, np.uint32), everywhere)}
            abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
            placed = ocp.checkpoint_utils.construct_restore_args(abstract)
            restored = self._manager.restore(step, args=ocp.args.PyTreeRestore(abstract, placed))
            return _without_digest(restored)
        except Exception as error:  # Orbax and TensorStore raise many kinds
            self._stack.close()  # as this ends the run
            others = [each for each in self._manager.all_steps() if each < step]
            start = f"from step {max(others):,}" if others else "from its beginning"
            raise UserError(
                f"the checkpoint {self._directory / str(step)} cannot be read ({type(error).__name__}): "
                f"move that folder elsewhere, and the run is resumed {start}. Keep it until you know "
                "that nothing in it can be saved"
            ) from error

    def save(self, step: int, state: dict[str, Any], *, top1: float | None) -> None:
        """Starts saving and returns once the state has been copied off the devices.

        Its digest is saved with it, since nothing else shows a changed bit.

        Raises:
          UserError: in this save or the previous one, the disk was full or read-only.
        """
        metrics = None if top1 is None else {_METRIC: top1}
        self.wait()
        self._saving = step
        # Checked in advance, so that a disk that is too small is not filled up first.
        needed = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) + _OVERHEAD_BYTES
        on_disk = not is_in_bucket(os.fspath(self._directory))
        if on_disk and shutil.disk_usage(self._directory).free < needed:
            self._explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        saved = {**state, _DIGEST: _digest(state)}
        try:
            self._manager.save(step, args=ocp.args.PyTreeSave(saved), metrics=metrics)
        except Exception as error:
            self._explain(error)
            raise

    def rate(self, step: int, top1: float) -> None:
        """Adds the accuracy to a checkpoint that was saved before the evaluation."""
        self.wait()
        if jax.process_index() == 0:
            # Where and as Orbax keeps it, which has no function for this.
            folder = self._directory / str(step) / "metrics"
            folder.mkdir(exist_ok=True)
            with atomic_write(folder / "metrics") as unfinished:
                unfinished.write_text(json.dumps({_METRIC: top1}))
        self._manager.reload()

    def wait(self) -> None:
        """Waits until the save that was started is on the disk.

        Raises:
          UserError: the disk is full or read-only.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._explain(error)
            raise

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Waits for a save in progress, even if the run ends with an error."""
        with self._stack:
            if kind is None:
                self.wait()
            elif issubclass(kind, Exception):
                with contextlib.suppress(Exception):  # the run's own error is the one to raise
                    self.wait()

    def _explain(self, error: Exception) -> None:
        """Raises a UserError if `error` is one that the user can fix."""
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            reason = os.strerror(code)
            # TensorStore's errors contain the system's message but not its errno.
            if getattr(error, "errno", None) == code or reason in str(error):
                self._remove_unfinished()
                latest = self._manager.latest_step()
                kept = "there is none yet" if latest is None else f"the last is of step {latest}"
                raise UserError(
                    f"the checkpoint of step {self._saving} could not be written to "
                    f"{self._directory}: {reason}. Complete checkpoints are kept ({kept}): make room "
                    "and run the same command again"
                ) from error

    def _remove_unfinished(self) -> None:
        if jax.process_index() == 0 and self._directory.exists():
            for path in self._directory.iterdir():
                if ocp.utils.TMP_DIR_SUFFIX in path.name:
                    path.rmtree()


def saved_steps(directory: epath.Path) -> list[int]:
    """Returns the steps saved completely in `directory`, in order; none if it does not exist."""
    if not directory.exists():
        return []
    numbered = [path for path in directory.iterdir() if _STEP.fullmatch(path.name)]
    return sorted(int(path.name) for path in numbered if ocp.utils.is_checkpoint_finalized(path))


def latest_step(directory: epath.Path) -> int | None:
    """Returns the newest step that was saved completely in `directory`, or None."""
    return max(saved_steps(directory), default=None)


def read_latest(directory: epath.Path) -> dict[str, Any]:
    """Reads the newest checkpoint in `directory` as nested dicts of NumPy arrays.

    A process can call this alone, without the others.

    Raises:
      UserError: there is none, or it is damaged.
    """
    step = latest_step(directory)
    if step is None:
        raise UserError(
            f"{directory} holds no checkpoint: train there first, or name another folder"
        )
    return read(directory, step)


def read(directory: epath.Path, step: int) -> dict[str, Any]:
    """Reads the checkpoint of `step` as `read_latest` does.

    Raises:
      UserError: the checkpoint is damaged, or a run has replaced it with a later one.
    """
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    folder = directory / str(step)
    logging.getLogger("absl").addFilter(_is_news)
    try:
        with (
            _literal_path(directory) as literal,
            ocp.StandardCheckpointer(multiprocessing_options=alone) as checkpointer,
        ):
            item = literal / str(step) / _ITEM
            _merge_if_forgotten(item)
            shapes = checkpointer.metadata(item).item_metadata.tree
            # As NumPy arrays: the devices that wrote them may not be here.
            like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), shapes)
            return _without_digest(checkpointer.restore(item, like))
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many kinds
        raise UserError(
            f"the checkpoint {folder} cannot be read ({type(error).__name__}): it is damaged, or the "
            "run has replaced it with a later one; try another step"
        ) from error


class _BitsChangedError(Exception):
    """The arrays of a checkpoint are not those that were saved."""


def _without_digest(saved: dict[str, Any]) -> dict[str, Any]:
    """Returns the state in what was read, after comparing its digest."""
    state = {name: value for name, value in saved.items() if name != _DIGEST}
    if _DIGEST in saved and not np.array_equal(_digest(state), saved[_DIGEST]):
        raise _BitsChangedError
    return state


@jax.jit
def _digest(state: dict[str, Any]) -> jax.Array:
    """Returns a digest of all arrays, uint32 `[2]`, whatever the tree is made of and its order."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(state)]
    return jnp.sum(digests(leaves), axis=0, dtype=jnp.uint32)


@contextlib.contextmanager
def _literal_path(directory: epath.Path) -> Iterator[epath.Path]:
    """Yields a path to `directory` that Orbax and TensorStore take literally.

    It is `directory` itself or leads there by a link, in a temporary folder, to the parent.

    Raises:
      UserError: the link cannot be created, or the path of the temporary folder has odd characters too.
    """
    if is_in_bucket(os.fspath(directory)) or _LITERAL.fullmatch(os.fspath(directory)):
        yield directory
        return
    needed = (
        f"{directory} has characters that Orbax does not take literally, and needs a link to it"
    )
    with contextlib.ExitStack() as stack:
        try:
            made = tempfile.TemporaryDirectory(prefix="fgr_jax-", ignore_cleanup_errors=True)
            link = Path(stack.enter_context(made), "workdir")
            link.symlink_to(directory.parent)
        except OSError as error:
            raise UserError(
                f"{needed}, which cannot be created ({error.strerror}): set TMPDIR to another folder"
            ) from error
        if not _LITERAL.fullmatch(str(link)):
            raise UserError(
                f"{needed}, but so has the folder for temporary files, {link.parent.parent}: set TMPDIR "
                "to a folder with letters and digits only"
            )
        yield epath.Path(link / directory.name)


def _merge_if_forgotten(item: epath.Path) -> None:
    """Completes a checkpoint whose arrays Orbax did not merge, as its path had wildcards."""
    if (item / "_METADATA").exists() and not (item / "manifest.ocdbt").exists():
        merging = ocp.type_handlers.merge_ocdbt_per_process_files(
            item, ocp.type_handlers.get_ts_context(use_ocdbt=True), use_zarr3=False
        )
        asyncio.run(merging)


def _is_news(record: logging.LogRecord) -> bool:
    """Drops Orbax's log records of errors that are raised anyway, and of what is intended.

    Orbax logs, with a traceback, the error that `wait` will raise. A checkpoint between two evaluations
    has no accuracy, and one with a single item has no metadata of its own: both are intended.
    """
    if "orbax" not in record.pathname:
        return True
    intended = ("tracked_metric", "Metadata file does not exist")
    return not record.exc_info and not any(words in record.getMessage() for words in intended)
