"""Lists and removes the features that runs with a frozen backbone have computed.

    python -m fgr_jax.features --list [--config.data.data_dir=DIR]
    python -m fgr_jax.features --remove=NAME|all [--config.data.data_dir=DIR]

A run whose features are removed computes them again.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

from collections.abc import Sequence

from absl import flags

from fgr_jax.errors import UserError

_FIELD = "data.data_dir"


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_bool("list", False, "show all features", flag_values=own)
    flags.DEFINE_string("remove", None, "NAME or all", flag_values=own)
    fields = cli.parse_fields(argv, __doc__ or "", own)
    others = sorted(fields.keys() - {_FIELD})
    if others:
        raise UserError(f"--config.{others[0]}: only {_FIELD} is of use here")
    if own.list == (own.remove is not None):
        raise UserError("needs either --list or --remove=NAME")
    from fgr_jax.features.command import list_or_remove  # imports JAX, which --help does without

    list_or_remove(fields.get(_FIELD, ""), own.remove)
    return 0


if __name__ == "__main__":
    cli.run(main)
