"""t-SNE of the features of classes that are confused (figure 1)."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import threadpoolctl

from fgr_jax.report import plots
from fgr_jax.report.run_images import RunImages
from fgr_jax.report.selection import confusable_group

_CLASSES = 10  # at most
_IMAGES = 1000  # at most
_FEWEST_IMAGES = 10
_PERPLEXITY = 30.0  # scikit-learn's default; lowered for few images


class Embedding(NamedTuple):
    """t-SNE of the confusable group."""

    plots: list[str]  # `data:` URL for each run
    colors: list[tuple[str, str]]  # color and name of each class
    images: int  # in the plots
    of: int  # number of all images of these classes
    limit: int  # maximum number of classes


def embedding(runs: Sequence[RunImages]) -> Embedding | None:
    """Embeds the first run's largest confusable group, for every run; None if that is impossible."""
    ours, labels = runs[0].evaluation, runs[0].labels
    group = confusable_group(ours.pairs, _CLASSES)
    of_group = np.flatnonzero(np.isin(labels, group))
    chosen = of_group[:: max(1, math.ceil(len(of_group) / _IMAGES))]
    if len(chosen) < _FEWEST_IMAGES:
        return None
    groups = np.searchsorted(group, labels[chosen])
    plot_urls = []
    for run in runs:
        features = run.features(chosen.tolist())
        # Features that are all equal, NaN or infinite crash t-SNE.
        if not np.isfinite(features).all() or not np.ptp(features, axis=0).any():
            return None
        errors = run.evaluation.predicted[chosen, 0] != labels[chosen]
        plot_urls.append(plots.draw_embedding(_in_the_plane(features), groups, errors))
    names = [ours.class_names[index] for index in group]
    colors = list(zip(plots.group_colors(len(group)), names, strict=True))
    return Embedding(plot_urls, colors, len(chosen), len(of_group), _CLASSES)


def _in_the_plane(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Embeds `[n, D]` as `[n, 2]`; the same features give the same points."""
    from sklearn.manifold import TSNE  # takes two seconds to import

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    # The embedding does not depend on the scale.
    features = (features - features.mean(axis=0)) / features.std()
    # Its threads wait for each other, which is many times slower on a busy machine.
    with threadpoolctl.threadpool_limits(1):
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
