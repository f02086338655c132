"""Compares two runs bit by bit, or tests whether a run repeats on this machine.

    python -m fgr_jax.verify RUN_A RUN_B
    python -m fgr_jax.verify --config=configs/cub.py --steps=20 [--synthetic]

The first form reads the fingerprints of two workdirs and reports whether they are the same run, or else
at which step and in what they diverge, and lists the differences of their configs, versions and devices.
The second form repeats the first steps of a config: compiled again, with compiled programs that are
read, with other numbers of threads and worker processes, killed and resumed, and, where there are
several devices, on one. --synthetic uses generated images and random weights.

The exit status is 0 if the runs are the same, and 1 if they are not or could not be compared.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

from collections.abc import Sequence

from absl import flags


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    if not any(argument.lstrip("-").startswith("config") for argument in argv[1:]):
        runs = cli.parse_flags(argv, __doc__ or "", own, positional=("RUN_A", "RUN_B"))
        from fgr_jax.verify.command import compare_runs  # imports JAX, which --help does without

        return compare_runs(*runs)
    flags.DEFINE_integer("steps", 20, "steps of each run", lower_bound=2, flag_values=own)
    flags.DEFINE_bool("synthetic", False, "generated images, random weights", flag_values=own)
    invocation = cli.parse(argv, __doc__ or "", own)
    from fgr_jax.verify.command import repeat

    return repeat(invocation, own.steps, synthetic=own.synthetic)


if __name__ == "__main__":
    cli.run(main)
