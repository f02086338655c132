"""Random scores and labels for property tests."""

import numpy as np
from hypothesis import strategies as st


@st.composite
def score_batches(
    draw: st.DrawFn,
    *,
    ties: bool | None = None,
    spreads: tuple[float, ...] = (0.1, 1.0, 5.0),
    sizes: tuple[tuple[int, int], ...] = ((4, 2), (3, 5), (5, 17), (1, 40)),
) -> tuple[np.ndarray, np.ndarray]:
    """Scores `[B, C]` in float32, with many equal ones half of the time, and labels `[B]`."""
    # A handful of sizes, because each is compiled anew.
    batch, classes = draw(st.sampled_from(sizes))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if draw(st.booleans()) if ties is None else ties:
        scores = rng.integers(-2, 3, (batch, classes)).astype(np.float32)
    else:
        spread = draw(st.sampled_from(spreads))
        scores = rng.normal(0, spread, (batch, classes)).astype(np.float32)
    # + 0.0: lax.top_k ranks -0.0 below 0.0, the reference does not.
    return scores + np.float32(0.0), rng.integers(0, classes, batch)
