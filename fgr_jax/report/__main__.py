"""Writes a page that shows what a run has learned; it opens offline, in any browser.

    python -m fgr_jax.report --workdir=runs/cub [--compare=runs/other] [--crops=one|five] [--step=N]
                             [--folds=RUN,RUN,...]
                             [--config.data.data_dir=FOLDER] [--config.data.folder=FOLDER]

It shows the accuracy beside the paper's, the confused classes and the evidence for each, a gallery with
class activation maps, the training curves, all classes, the features of confused classes, and how the
run was made. --compare adds another run with the same test split. Training writes the page at its end;
for a run that is still training, it shows the latest checkpoint. --crops=five averages the softmax
outputs of five crops, which is the default where the paper reports five crops.

Test images whose label looks wrong are shown, and listed in DIR/label_issues.csv. With --folds, so are
training images: it names the workdirs, separated by commas, or a pattern of them (--folds='runs/fold*'),
of runs with --config.data.fold=1/5, 2/5 and so on, each of which judges the images that were kept out of
its training.

--config.data.data_dir is the folder in which data sets are prepared, and --config.data.folder or
--config.data.table are your own images, if they are no longer where the run had them; --data_dir is the
first of them, too. The fields of --config.runtime can be given as well.

The page is DIR/report.html; with --compare, DIR/comparison.html.

Several processes write it together when all are started with --distributed, or with
--coordinator=HOST:PORT --process_count=N --process_id=I, as in `python -m fgr_jax.main`.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

from collections.abc import Sequence
from typing import Any

from absl import flags

from fgr_jax.errors import UserError
from fgr_jax.evaluate.crops import CROPS


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run", required=True, flag_values=own)
    flags.DEFINE_string("compare", None, "another run", flag_values=own)
    flags.DEFINE_string("folds", None, "runs on folds", flag_values=own)
    flags.DEFINE_enum("crops", None, list(CROPS), "of each image", flag_values=own)
    flags.DEFINE_integer("step", None, "which checkpoint", lower_bound=1, flag_values=own)
    flags.DEFINE_string("data_dir", None, "where data sets are", flag_values=own)
    cli.define_job_flags(own)
    fields = cli.parse_fields(argv, __doc__ or "", own)
    if own.folds is not None and own.compare is not None:
        raise UserError("--folds and --compare: give one of them; a comparison judges no labels")
    if own.data_dir is not None:
        fields["data.data_dir"] = own.data_dir
    return _run(own, fields)


def _run(own: flags.FlagValues, fields: dict[str, Any]) -> int:
    # These imports take a second, which --help and a mistake in the flags do without.
    import jax

    from fgr_jax import compilation, distributed
    from fgr_jax.distributed import data_mesh
    from fgr_jax.inference.saved_run import open_run
    from fgr_jax.report.folds import open_folds
    from fgr_jax.report.page import write_report
    from fgr_jax.runs.workdir import Workdir
    from fgr_jax.terminal import Terminal

    run = open_run(Workdir.open(own.workdir), fields)
    compared = None
    if own.compare is not None:
        compared = open_run(Workdir.open(own.compare, flag="--compare"), fields)
    folds = open_folds(own.folds, fields) if own.folds is not None else []
    compilation.set_up(run.config)
    cli.join_job(own)
    terminal = Terminal(quiet=jax.process_index() > 0)
    page = write_report(
        run, compared, data_mesh(), terminal, crops=own.crops, step=own.step, folds=folds
    )
    terminal.line(f"report    {page}")
    distributed.leave()
    return 0


if __name__ == "__main__":
    cli.run(main)
