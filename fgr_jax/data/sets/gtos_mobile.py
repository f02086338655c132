"""GTOS-mobile."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from fgr_jax.data.prepare.builder import PictureBuilder
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import Listing, find_folder
from fgr_jax.data.sets.folder import read_class_folders


class GtosMobile(PictureBuilder):
    """GTOS, photographed on the ground, to train on; GTOS-mobile, by a telephone, to test on.

    Xue, Zhang and Dana, "Deep Texture Manifold for Ground Terrain Recognition", CVPR 2018.
    """

    HOMEPAGE = "https://github.com/jiaxue1993/Deep-Encoding-Pooling-Network-DEP-"
    CLASSES = 31
    COUNTS: ClassVar[Mapping[str, int]] = {"train": 31315, "test": 6066}
    ARCHIVES: ClassVar[Sequence[Archive]] = (
        Archive("gtos-mobile.zip"),
        Archive("gtos_mobile.zip"),
        Archive("gtos-mobile.tar.gz"),
    )
    HOW_TO_GET = (
        "its makers give it on request (see the address above). Name the archive, or the folder that "
        "holds train/ and test/, with --source="
    )

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads `train/<class>/*` and `test/<class>/*`."""
        return read_class_folders(find_folder(root, "train").parent)
