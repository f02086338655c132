"""The step from which GCE replaces cross-entropy, at once or gradually.

python -m fgr_jax.sweep --sweep=configs/sweeps/gce_start.py                          (pretrained)
python -m fgr_jax.sweep --sweep=configs/sweeps/gce_start.py --config.pretrained=     (from scratch)

The gradual change (`loss.gce_fade`) is an addition to the paper.
"""

from fgr_jax.sweep.plan import Row, Sweep


def get_sweep() -> Sweep:
    return Sweep(
        title="When GCE replaces cross-entropy",
        config="configs/cub.py",
        rows=[
            Row("cross-entropy", {"loss.gce_start": "never"}),
            *(
                Row(
                    f"GCE from epoch {start}" + (f", over {fade} epochs" if fade else ", at once"),
                    {"loss.gce_start": f"{start} epochs", "loss.gce_fade": f"{fade} epochs"},
                )
                for start, fade in ((0, 0), (5, 0), (10, 0), (0, 5), (0, 10), (0, 15), (5, 10))
            ),
        ],
    )
