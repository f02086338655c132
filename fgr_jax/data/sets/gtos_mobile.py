"""GTOS-mobile."""

from pathlib import Path
from typing import ClassVar

from fgr_jax.data.prepare.builder import ImageBuilder
from fgr_jax.data.prepare.downloads import Archive
from fgr_jax.data.prepare.listing import Listing, find
from fgr_jax.data.sets.folder import read_class_folders


class GtosMobile(ImageBuilder):
    """GTOS for training; GTOS-mobile, which was photographed with a mobile phone, for testing.

    Xue, Zhang and Dana, "Deep Texture Manifold for Ground Terrain Recognition", CVPR 2018.
    """

    HOMEPAGE = "https://github.com/jiaxue1993/Deep-Encoding-Pooling-Network-DEP-"
    CLASSES = 31
    COUNTS: ClassVar = {"train": 31315, "test": 6066}
    ARCHIVES = tuple(map(Archive, ("gtos-mobile.zip", "gtos_mobile.zip", "gtos-mobile.tar.gz")))
    HOW_TO_GET = (
        "its authors share it on request (see the address above). Pass the archive, or the folder that "
        "holds train/ and test/, with --source="
    )

    @classmethod
    def read(cls, root: Path) -> Listing:
        """Reads `train/<class>/*` and `test/<class>/*`."""
        return read_class_folders(find(root, "train/").parent)
