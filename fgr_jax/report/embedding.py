"""t-SNE of the features of classes that are confused (figure 1)."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import threadpoolctl

from fgr_jax.report import plots
from fgr_jax.report.run_images import RunImages
from fgr_jax.report.selection import confusable_group

# The largest numbers of classes and images, and the smallest number of images.
_GROUP = 10
_IMAGES = 1000
_FEWEST = 10
# scikit-learn's default; less for few images.
_PERPLEXITY = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class Embedding:
    """t-SNE of the confusable group."""

    # Of each run.
    plots: list[str]
    # The color and the name of each class.
    colors: list[tuple[str, str]]
    # The images in the plots, and all images of these classes.
    images: int
    of: int
    # The largest number of classes.
    limit: int


def embedding(runs: Sequence[RunImages]) -> Embedding | None:
    """Embeds the first run's largest confusable group, for every run; None if that is impossible."""
    ours, labels = runs[0].evaluation, runs[0].labels
    group = confusable_group(ours.pairs, _GROUP)
    of_group = np.flatnonzero(np.isin(labels, group))
    chosen = of_group[:: max(1, math.ceil(len(of_group) / _IMAGES))]
    if len(chosen) < _FEWEST:
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
    colors = plots.group_colors(len(group))
    names = [ours.class_names[index] for index in group]
    return Embedding(
        plot_urls, list(zip(colors, names, strict=True)), len(chosen), len(of_group), _GROUP
    )


def _in_the_plane(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Embeds `[n, D]` as `[n, 2]`; the same features give the same points."""
    from sklearn.manifold import TSNE  # takes two seconds to import

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    features = (
        features - features.mean(axis=0)
    ) / features.std()  # t-SNE does not depend on the scale
    # Its threads wait for one another, which takes many times longer on a busy machine.
    with threadpoolctl.threadpool_limits(1):
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
