"""Images of one split that look like images of another: copies that were resized or encoded again."""

import functools
import itertools
from types import ModuleType

import numpy as np
import PIL.Image

from fgr_jax.config import Data
from fgr_jax.data import images
from fgr_jax.data.prepare.prepared import NotPreparedError, Prepared, Records
from fgr_jax.data.prepare.used_splits import used_splits
from fgr_jax.data.read_ahead import map_ahead
from fgr_jax.errors import UserError
from fgr_jax.terminal import Terminal

# Of the 64 bits of dHash. Among the 35 million pairs of a test and a training image of CUB-200-2011, the
# two that are copies differ in none, and the next, of different birds, in 6.
_MOST_DIFFERENT_BITS = 4
_READERS = 8  # threads
_READ_AHEAD = 64  # images


def near_duplicates(prepared: Prepared, reading: Data, terminal: Terminal) -> list[tuple[str, str]]:
    """Returns the names of all pairs of images of two splits that look the same.

    The splits are those that a run with the fields of `reading` uses. Images that cannot be decoded,
    which `prepared.verify` names, are left out.

    Raises:
      UserError: ImageHash is not installed.
    """
    try:
        import imagehash
    except ModuleNotFoundError as error:
        raise UserError(
            "--near_duplicates: needs ImageHash: pip install 'fgr-jax[duplicates]'"
        ) from error
    used = used_splits(prepared, reading, terminal)
    found: dict[str, list[tuple[str, np.uint64]]] = {split: [] for split in used}
    for split, each in used.items():
        records = Records(prepared, each.records)
        rows = range(len(records)) if each.rows is None else each.rows.tolist()
        work = functools.partial(_hash_of, imagehash, reading, records)
        with terminal.bar(f"comparing {split}", len(rows), unit="images", per=1) as bar:
            hashes_of = map_ahead(work, rows, threads=_READERS, ahead=_READ_AHEAD)
            for done, hashed in enumerate(hashes_of, start=1):
                bar.update(done)
                found[split] += [] if hashed is None else [hashed]
    names = {split: [name for name, _ in each] for split, each in found.items()}
    hashes = {
        split: np.array([value for _, value in each], np.uint64) for split, each in found.items()
    }
    pairs = []
    for one, other in itertools.combinations(names, 2):
        for name, value in zip(names[other], hashes[other], strict=True):
            near = np.bitwise_count(hashes[one] ^ value) <= _MOST_DIFFERENT_BITS
            pairs += [(f"{other}/{name}", f"{one}/{names[one][i]}") for i in np.flatnonzero(near)]
    return pairs


def _hash_of(
    imagehash: ModuleType, reading: Data, records: Records, index: int
) -> tuple[str, np.uint64] | None:
    """Returns the name and the hash of an image; None if it cannot be decoded."""
    try:
        record = records[index]
        encoded = record["image"].bytes_list.value[0]
        image = images.decode(encoded, cut_bottom=reading.cut_bottom, max_pixels=reading.max_pixels)
    except (NotPreparedError, images.ImageError):
        return None
    bits = imagehash.dhash(PIL.Image.fromarray(image)).hash
    return records.file_name(record, index), np.packbits(bits).view(np.uint64)[0]
