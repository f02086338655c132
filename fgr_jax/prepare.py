"""Prepares the data set of a config; needed only once.

    python -m fgr_jax.prepare --config=configs/cub.py [--source=PATH ...] [--verify] [--near_duplicates]

--source is an archive, several of them (--source=A --source=B), or an extracted folder. Without it, the
archives are taken from the folder `downloads` beside the prepared data sets, or downloaded if they are
publicly available. --verify decodes every image, also of a data set that is prepared already.
--near_duplicates names test images that are copies of training images at another size or compression.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

import shlex
import time
from collections.abc import Sequence

from absl import flags

from fgr_jax.errors import UserError


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_multi_string("source", [], "archives, or an extracted folder", flag_values=own)
    flags.DEFINE_bool("verify", False, "decode every image", flag_values=own)
    flags.DEFINE_bool("near_duplicates", False, "find copies", flag_values=own)
    invocation = cli.parse(argv, __doc__ or "", own)
    return _prepare(invocation, own)


def _prepare(invocation: cli.Invocation, own: flags.FlagValues) -> int:
    # These imports take two seconds, which --help does without.
    from fgr_jax.data.prepare.listing import counted, raise_if_any
    from fgr_jax.data.prepare.near_duplicates import near_duplicates
    from fgr_jax.data.prepare.preparation import local_data_dir, warn_of_copies, warn_of_pairs
    from fgr_jax.data.prepare.prepared import NotPreparedError, verify
    from fgr_jax.data.prepare.used_splits import copies, used_splits, with_splits
    from fgr_jax.data.sets import catalog
    from fgr_jax.files.buckets import is_in_bucket
    from fgr_jax.files.local import local_path
    from fgr_jax.terminal import Terminal

    data = invocation.config.data
    if is_in_bucket(data.data_dir):
        raise UserError(
            f"--config.data.data_dir={data.data_dir}: data sets are prepared on a disk: name a local "
            "folder, and copy it to the bucket: gcloud storage cp -r FOLDER/* gs://BUCKET/FOLDER"
        )
    data_dir = local_data_dir(data.data_dir)
    sources = [local_path(source, "--source") for source in own.source]
    terminal = Terminal()
    started = time.perf_counter()
    try:
        prepared = catalog.prepare(data, sources, data_dir, terminal, verify=own.verify)
        if own.verify and not prepared.is_verified:
            way_out = f"it was prepared before: move {prepared.folder} away and prepare it again"
            raise_if_any(verify(prepared, data, terminal), f"data set {prepared.name}", way_out)
        if own.near_duplicates:
            pairs = near_duplicates(prepared, data, terminal)
            what = "of images of two splits: they look the same"
            what = f"{counted(len(pairs), 'pair')} {what}"
            warn_of_pairs(pairs, what, "Accuracy on copies says little", terminal)
            if not pairs:
                terminal.line("no two images of different splits look the same")
        sizes = {name: each.num_examples for name, each in prepared.builder.info.splits.items()}
        if data.split == "hash":
            used = used_splits(prepared, data, terminal)
            warn_of_copies(copies(used), terminal)
            prepared = prepared._replace(contents=with_splits(prepared.contents, used))
            sizes = {split: sum(counts) for split, counts in prepared.contents.images.items()}
    except NotPreparedError as error:
        again = shlex.join(["python", "-m", "fgr_jax.prepare", *invocation.config_arguments])
        raise UserError(f"{error}: run {again}") from error
    info = prepared.builder.info
    splits = ", ".join(f"{size:,} {name}" for name, size in sizes.items())
    terminal.line(
        f"data set {prepared.name.rpartition('/')[0]}: {splits} images, "
        f"{len(prepared.contents.class_names):,} classes, {int(info.dataset_size) / 1e6:,.0f} MB, in "
        f"{time.perf_counter() - started:.1f} s"
    )
    for line in prepared.contents.lines():
        terminal.line(line)
    if own.verify:
        number = counted(sum(split.num_examples for split in info.splits.values()), "image")
        content = ", content as recorded" if prepared.contents.digest else ""
        content = "" if prepared.is_verified else content or ", no content was recorded"
        terminal.line(f"verified  {number}: all can be decoded{content}")
    terminal.line(f"it is in  {prepared.folder}")
    train = shlex.join(["python", "-m", "fgr_jax.main", *invocation.config_arguments])
    terminal.line(f"next      {train}")
    return 0


if __name__ == "__main__":
    cli.run(main)
