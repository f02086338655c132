"""Predicts the classes of unlabeled images with a trained network.

    python -m fgr_jax.predict --workdir=runs/mine PATH ... [--top=5] [--output=FILE.csv|.json|.jsonl]
                              [--heatmaps=FOLDER] [--reject_below=X] [--batch_size=N] [--step=N]

PATH is an image, or a folder, in which images are found as in preparing a data set; what is left out is
named. For each image the --top most probable classes are printed, or written, as they come, to the file
that --output names. --heatmaps writes, for each of these
classes, the image overlaid with the class activation map: warm colors are evidence for the class, and
gray lies outside the crop that the network is applied to. Files that cannot be read are reported and
skipped, and the exit status is then 1.

With --reject_below=0.05, an image is said to belong to none of the classes if the network is less
confident in its prediction than in those of 95% of the test images. The run must have been evaluated
before, by python -m fgr_jax.evaluate.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

from collections.abc import Sequence

from absl import flags


def main(argv: Sequence[str]) -> int:
    """Returns the exit status. Raises a UserError (status 1) if a file could not be used."""
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run", required=True, flag_values=own)
    flags.DEFINE_integer("top", 5, "how many classes", lower_bound=1, flag_values=own)
    flags.DEFINE_string("output", None, "a .csv, .json or .jsonl file", flag_values=own)
    flags.DEFINE_string("heatmaps", None, "a folder for overlays", flag_values=own)
    flags.DEFINE_float(
        "reject_below",
        None,
        "share of test images",
        lower_bound=0,
        upper_bound=1,
        flag_values=own,
    )
    flags.DEFINE_integer("batch_size", 32, "images at once", lower_bound=1, flag_values=own)
    flags.DEFINE_integer("step", None, "which checkpoint", lower_bound=1, flag_values=own)
    paths = cli.parse_flags(argv, __doc__ or "", own, positional=("PATH ...",))
    from fgr_jax.predict.command import predict  # imports JAX, which --help does without

    predict(own, paths)
    return 0


if __name__ == "__main__":
    cli.run(main)
