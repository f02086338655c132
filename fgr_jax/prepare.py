"""Prepares the data set of a config, once.

    python -m fgr_jax.prepare --config=configs/cub.py [--source=PATH ...] [--verify]

--source is an archive, several (--source=A --source=B), or an extracted folder; without it, archives
are looked for in the folder `downloads` beside the prepared data sets, or fetched where they are open to
all. --verify decodes every picture.
"""

import shlex
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from tensorflow_datasets.core import read_only_builder

from fgr_jax import cli
from fgr_jax.config import Data
from fgr_jax.data.prepare.preparation import default_data_dir, prepare, prepare_folder
from fgr_jax.data.sets import catalog
from fgr_jax.data.sets.folder import Folder
from fgr_jax.data.source import needs_no_download, open_splits
from fgr_jax.errors import UserError
from fgr_jax.files.buckets import is_in_bucket
from fgr_jax.terminal import Terminal


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_multi_string("source", [], "archives, or a folder", flag_values=own)
    flags.DEFINE_bool("verify", False, "decode every picture", flag_values=own)
    invocation = cli.parse(argv, __doc__ or "", own)
    data = invocation.config.data
    if is_in_bucket(data.data_dir):
        raise UserError(
            f"--config.data.data_dir={data.data_dir}: data sets are prepared on a disk: name a folder "
            "here, and copy it to the bucket: gcloud storage cp -r FOLDER/* gs://BUCKET/FOLDER"
        )
    data_dir = Path(data.data_dir).expanduser() if data.data_dir else default_data_dir()
    terminal = Terminal()
    started = time.perf_counter()
    name = _prepare(data, [Path(source) for source in own.source], data_dir, own.verify, terminal)
    info = read_only_builder.builder_from_files(name, data_dir=str(data_dir)).info
    splits = ", ".join(f"{split.num_examples:,} {name}" for name, split in info.splits.items())
    terminal.line(
        f"data set {name}: {splits} pictures, {info.features['label'].num_classes:,} classes, "
        f"{int(info.dataset_size) / 1e6:,.0f} MB, in {time.perf_counter() - started:.1f} s"
    )
    terminal.line(f"it is in  {info.data_dir}")
    train = shlex.join(["python", "-m", "fgr_jax.main", *cli.config_arguments(argv)])
    terminal.line(f"next      {train}")
    return 0


def _prepare(
    data: Data, sources: list[Path], data_dir: Path, verify: bool, terminal: Terminal
) -> str:
    """The name under which tfds finds the data set."""
    if data.name == Folder.name:
        if sources:
            raise UserError("--source: a folder of your own is named with --config.data.folder")
        return prepare_folder(data.folder, data_dir, terminal, verify=verify)
    for builder in catalog.archived():
        if builder.name == data.name:
            prepare(builder, sources, data_dir, terminal, verify=verify)
            return data.name
    if needs_no_download(data.name):
        open_splits(data, terminal)
        return data.name
    known = ", ".join(builder.name for builder in catalog.archived())
    raise UserError(
        f"--config.data.name={data.name!r} is none of {known} and {Folder.name}, which this command "
        "can prepare"
    )


if __name__ == "__main__":
    cli.run(main)
