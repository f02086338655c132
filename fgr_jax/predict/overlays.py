"""Writes the heat maps of predictions, beside each other in folders like those of the images."""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2

from fgr_jax.data.images import Canvas, ImageError, decode
from fgr_jax.files.atomic import atomic_write
from fgr_jax.files.names import as_part, shortened, with_suffix
from fgr_jax.inference.heatmaps import over_center_crop
from fgr_jax.inference.saved_run import TrainedRun
from fgr_jax.predict.predictions import Prediction

_LONGEST_CLASS = 100  # bytes of a class's name in the name of a file


class Overlays:
    """Images overlaid with the maps of the predicted classes.

    Args:
      folder: where they are written, in the folders that the images have below their common folder.
      files: all images.
      run: the run that predicts.
      stride: of its network.
      origin: likewise.
    """

    def __init__(
        self,
        folder: Path,
        files: Sequence[Path],
        run: TrainedRun,
        stride: int,
        origin: float = 0.0,
    ):
        self._folder, self._run, self._stride, self._origin = folder, run, stride, origin
        self._common = os.path.commonpath([os.path.abspath(path.parent) for path in files])

    def write(self, prediction: Prediction) -> str:
        """Writes <image>.<place>-<class>.jpg for every class of the prediction.

        Returns:
          Why they could not be written, or "".
        """
        assert prediction.maps is not None
        path, data = prediction.image.path, self._run.config.data
        target = self._folder / os.path.relpath(path, self._common)
        try:
            encoded = path.read_bytes()
            image = decode(encoded, cut_bottom=data.cut_bottom, max_pixels=data.max_pixels)
            canvas = Canvas.of(data, *image.shape[:2])
            target.parent.mkdir(parents=True, exist_ok=True)
            maps = zip(prediction.classes, prediction.maps, strict=True)
            for place, (index, activation) in enumerate(maps, start=1):
                overlaid = over_center_crop(image, activation, canvas, self._stride, self._origin)
                class_name = shortened(as_part(self._run.class_names[index]), _LONGEST_CLASS)
                name = with_suffix(target.name, f".{place}-{class_name}.jpg")
                with atomic_write(target.with_name(name)) as unfinished:
                    jpeg = cv2.imencode(".jpg", overlaid[:, :, ::-1])[1]
                    unfinished.write_bytes(jpeg.tobytes())
        except OSError as error:
            return os.strerror(error.errno or 0)
        except (ImageError, cv2.error) as error:  # the file has changed, or is too large for a JPEG
            return " ".join(str(error).split())
        return ""
