"""From the folder of a run to the file of its report."""

from collections.abc import Sequence

from jax.sharding import Mesh

from fgr_jax.distributed import once_for_all
from fgr_jax.errors import UserError
from fgr_jax.evaluate.evaluated_run import EvaluatedRun, evaluate_run, open_for_test
from fgr_jax.files.whole import whole
from fgr_jax.inference.saved_run import TrainedRun
from fgr_jax.report.contents import contents, require_same_test
from fgr_jax.report.page import as_html
from fgr_jax.report.paper import paper_accuracy
from fgr_jax.runs.folder import RunFolder
from fgr_jax.terminal import Terminal

REPORT, COMPARISON = "report.html", "comparison.html"


def write_report(
    run: TrainedRun,
    compared: TrainedRun | None,
    mesh: Mesh,
    terminal: Terminal,
    *,
    crops: str | None = None,
    step: int | None = None,
) -> str:
    """Evaluates a run, or two, and writes the page into the first one's folder; all processes call it.

    Args:
      run: which.
      compared: another one, of the same test split; None: none.
      mesh: all devices.
      terminal: is told what happens.
      crops: of each picture; None: as the paper does, five, where it has figures to compare with, and
        else one.
      step: of the checkpoint; None: the latest.

    Returns:
      Where the page is.

    Raises:
      UserError: as of `open_for_test` and `evaluate_run`, or the runs are not of the same test split, or
        the page cannot be written.
    """
    # All that can be wrong is found before the first picture is looked at.
    opened = [open_for_test(run, mesh, terminal, step=step)]
    if compared is not None:
        opened.append(open_for_test(compared, mesh, terminal))
        require_same_test(*opened)
    paper = paper_accuracy(run.config.data)
    crops = crops or ("five" if paper and paper.five_crops else "one")
    evaluated = [evaluate_run(each, mesh, terminal, crops=crops) for each in opened]
    name = REPORT if compared is None else COMPARISON
    once_for_all(lambda: _write(evaluated, mesh, run.workdir, name))
    return f"{run.workdir.name}/{name}"


def _write(
    evaluated: Sequence[EvaluatedRun | None], mesh: Mesh, workdir: RunFolder, name: str
) -> None:
    """On process 0."""
    page = as_html(contents([each for each in evaluated if each is not None], mesh))
    try:
        with whole(workdir.local / name) as unfinished:
            # What cannot be written as UTF-8, in the name of a file for one, becomes a question mark.
            unfinished.write_text(page, encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{workdir.name}/{name} cannot be written: {error.strerror}") from error
    workdir.publish()
