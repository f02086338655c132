"""t-SNE of the features of classes that are confused (figure 1)."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import threadpoolctl

from fgr_jax.report import plots
from fgr_jax.report.choices import confusable_group
from fgr_jax.report.viewer import Viewer

_GROUP = 10  # classes at most
_PICTURES = 1000  # at most
_FEWEST = 10  # pictures
_PERPLEXITY = 30.0  # scikit-learn's; less where there are few pictures


@dataclasses.dataclass(frozen=True, slots=True)
class Embedding:
    """t-SNE of the confusable group."""

    plots: list[str]  # of each run
    colors: list[tuple[str, str]]  # of each class its color and name
    pictures: int
    of: int  # pictures there are of these classes
    limit: int  # classes at most


def embedding(viewers: Sequence[Viewer]) -> Embedding | None:
    """The first run's largest confusable group, by every run; None where there is nothing to show."""
    ours = viewers[0].evaluated.evaluation
    group = confusable_group(ours.pairs, _GROUP)
    labels = ours.predictions.shown.label
    of_group = np.flatnonzero(np.isin(labels, group))
    shown = of_group[:: max(1, math.ceil(len(of_group) / _PICTURES))]
    if len(shown) < _FEWEST:
        return None
    groups = np.searchsorted(group, labels[shown])
    drawn = []
    for viewer in viewers:
        features = viewer.features(shown.tolist())
        # With a network that makes the same of everything, or no numbers, t-SNE brings the process down.
        if not np.isfinite(features).all() or not np.ptp(features, axis=0).any():
            return None
        errors = viewer.evaluated.evaluation.guesses[shown, 0] != labels[shown]
        drawn.append(plots.draw_embedding(_in_the_plane(features), groups, errors))
    colors = plots.group_colors(len(group))
    names = [ours.class_names[index] for index in group]
    return Embedding(
        drawn, list(zip(colors, names, strict=True)), len(shown), len(of_group), _GROUP
    )


def _in_the_plane(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """`[n, D]` to `[n, 2]`; the same features give the same points."""
    from sklearn.manifold import TSNE  # two seconds, and only here

    perplexity = min(_PERPLEXITY, (len(features) - 1) / 3)
    features = (features - features.mean(axis=0)) / features.std()  # it is the same at any scale
    # Threads that wait for one another make it many times slower where anything else is running.
    with threadpoolctl.threadpool_limits(1):
        return TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(features)
