"""From the folder of a run to the file of its report."""

from pathlib import Path

from jax.sharding import Mesh

from fgr_jax.evaluating.evaluated_run import EvaluatedRun, evaluate_run
from fgr_jax.processes import once_for_all
from fgr_jax.reporting.contents import contents
from fgr_jax.reporting.page import as_html
from fgr_jax.reporting.paper import paper_accuracy
from fgr_jax.terminal import Terminal
from fgr_jax.trained_run import TrainedRun
from fgr_jax.whole_files import whole

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
      UserError: as of `evaluate_run`, or the runs were tested on different pictures.
    """
    paper = paper_accuracy(run.config.data)
    crops = crops or ("five" if paper and paper.five_crops else "one")
    ours = evaluate_run(run, mesh, terminal, crops=crops, step=step)
    theirs = None if compared is None else evaluate_run(compared, mesh, terminal, crops=crops)
    name = REPORT if compared is None else COMPARISON
    once_for_all(lambda: _write(ours, theirs, run.workdir.local / name))
    run.workdir.publish()
    return f"{run.workdir.name}/{name}"


def _write(ours: EvaluatedRun | None, theirs: EvaluatedRun | None, path: Path) -> None:
    """On process 0."""
    assert ours is not None
    page = as_html(contents(ours, theirs))
    with whole(path) as unfinished:
        # What cannot be written as UTF-8, in the name of a file for one, becomes a question mark.
        unfinished.write_text(page, encoding="utf-8", errors="replace")
