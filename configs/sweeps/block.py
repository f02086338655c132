"""The parameters of the block that the paper does not state: p_peak, p_patch and the patch size G.

python -m fgr_jax.sweep --sweep=configs/sweeps/block.py
"""

from fgr_jax.sweep.plan import Row, Sweep


def get_sweep() -> Sweep:
    return Sweep(
        title="The block: p_peak × p_patch × G",
        config="configs/cub.py",
        rows=[
            *(
                Row(
                    f"p_peak {p_peak:g}, p_patch {p_patch:g}, G = {patch_size}",
                    {
                        "diversification.p_peak": p_peak,
                        "diversification.p_patch": p_patch,
                        "diversification.patch_size": patch_size,
                    },
                )
                for p_peak in (0.0, 0.5)
                for p_patch in (0.0, 0.1, 0.3, 0.5)
                for patch_size in (2, 3)
                if (p_peak or p_patch) and (p_patch or patch_size == 2)
            ),
            Row("without the block", {"diversification.alpha": 1.0}),
        ],
    )
