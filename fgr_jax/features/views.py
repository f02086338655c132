"""The fixed views of training images, and which of them a step of training takes."""

import numpy as np

from fgr_jax.config import Data
from fgr_jax.data.augmentation import View, random_view
from fgr_jax.random_streams import Stream, stream_seed


def fixed_views(data: Data, views: int, example: int) -> View:
    """Draws the views of an image: view v is a function of the index of the image and v alone.

    Runs with different seeds share them.
    """
    seed = stream_seed(0, Stream.VIEWS)
    drawn = [
        random_view(data, example, np.random.default_rng([seed, example, view]))
        for view in range(views)
    ]
    places = tuple(view.places[0] for view in drawn)
    return View(example, places, tuple(view.symmetries[0] for view in drawn))


def view_at(seed: int, views: int, example: int, visit: int) -> int:
    """Returns the view of an image at one of its visits, in [0, views).

    In every `views` visits each view is taken once, in an order that is drawn anew. The number of a
    visit is that of `balance.Visit`: without balancing, that of the epoch.
    """
    if views == 1:
        return 0
    generator = np.random.default_rng(
        [stream_seed(seed, Stream.VIEW_ORDER), example, visit // views]
    )
    return int(generator.permutation(views)[visit % views])
