"""A prepared data set in a bucket, copied once to this machine's disk.

Images are read in random order, thousands per second, and each read would be a request to the bucket.
"""

import hashlib
import shutil
from pathlib import Path

from fgr_jax.data.prepare.preparation import exclusive
from fgr_jax.errors import UserError
from fgr_jax.files import buckets
from fgr_jax.terminal import Terminal

_MEGABYTE = 1_000_000


def copy_from_bucket(data_dir: str, name: str, copies: Path, terminal: Terminal) -> Path:
    """Returns the folder on this machine in which tfds finds the data set `name` of the bucket.

    It is copied completely or not at all, and only if there is no copy yet: after the data set in the
    bucket has changed, use another folder there, or delete this copy.

    Args:
      data_dir: gs://BUCKET/FOLDER, in which `name` is prepared.
      name: a data set, "cub" or "elpv/eight".
      copies: the folder on this machine that holds all copies.

    Raises:
      UserError: the bucket cannot be reached, or does not contain the data set.
    """
    source = buckets.open_folder(data_dir, "--config.data.data_dir") / name
    digest = hashlib.sha256(str(source.parent).encode()).hexdigest()[:8]
    destination = copies / f"{source.parent.name}-{digest}"
    with exclusive(destination, name.partition("/")[0], terminal):
        if (destination / name).is_dir():
            return destination
        files = buckets.files_below(source)
        total = sum(files.values())
        if not total:
            raise UserError(
                f"--config.data.data_dir={data_dir}: holds no data set {name!r}; prepare it on a disk "
                "and copy the folder to the bucket"
            )
        unfinished = destination / ".unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        with terminal.bar(f"copying {name}", total // _MEGABYTE + 1, unit="MB", per=1) as bar:
            buckets.fetch(source, files, unfinished, lambda done: bar.update(done // _MEGABYTE))
        (destination / name).parent.mkdir(parents=True, exist_ok=True)
        unfinished.rename(destination / name)
    return destination
