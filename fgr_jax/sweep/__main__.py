"""Trains the runs of a table or a figure of the paper, and writes the table and the figure.

    python -m fgr_jax.sweep --sweep=configs/sweeps/table4.py [--workdir=DIR] [--config=FILE] [--seeds=N]
                            [--folds=N] [--config.FIELD=VALUE ...]

The runs are trained one at a time, each on all devices. The same command resumes a sweep that was
stopped: finished runs are not repeated, and a run that fails does not stop the others. A sweep with a
search first chooses a value for each row, on a validation split of the training set. --config runs the
same sweep with another config, such as configs/quickstart.py, and omits the paper's results;
--config.FIELD overrides a field in all runs, unless the rows differ in it. With --folds, each row is
trained once without each of N folds of the training images, with seed 0, and tested on it; the table
has mean and deviation over the folds, and the test split remains unused. The results are in DIR, by
default in runs/<name of the sweep>: results.md, results.csv, figure.png, and a workdir for each run.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

from collections.abc import Sequence

from absl import flags


def main(argv: Sequence[str]) -> int:
    """Runs the sweep.

    Returns:
      The exit status: 128 + n if signal n stopped the sweep.

    Raises:
      UserError: the sweep or a config is invalid, or a run failed.
    """
    own = flags.FlagValues()
    flags.DEFINE_string("sweep", None, "which sweep", required=True, flag_values=own)
    flags.DEFINE_string("workdir", None, "where the results go", flag_values=own)
    flags.DEFINE_integer("seeds", None, "runs of each row", lower_bound=1, flag_values=own)
    flags.DEFINE_integer(
        "folds", None, "folds of the training images", lower_bound=2, flag_values=own
    )
    cli.parse_flags(cli.define_config(argv, own), __doc__ or "", own)
    from fgr_jax.sweep.command import sweep  # imports JAX, which --help does without

    return sweep(own, argv, __doc__ or "")


if __name__ == "__main__":
    cli.run(main)
