"""The report: a self-contained HTML file on one or two evaluated runs."""

import re
from collections.abc import Sequence
from types import SimpleNamespace

import jinja2
from jax.sharding import Mesh
from markupsafe import Markup, escape

from fgr_jax.distributed import once_for_all
from fgr_jax.errors import UserError
from fgr_jax.evaluate.evaluated_run import EvaluatedRun, evaluate_run, open_for_test
from fgr_jax.evaluate.files import write_csv
from fgr_jax.evaluate.tables import as_text
from fgr_jax.files.atomic import atomic_write
from fgr_jax.inference.saved_run import TrainedRun
from fgr_jax.report.contents import contents, require_same_test
from fgr_jax.report.folds import require_folds
from fgr_jax.report.label_issues import columns
from fgr_jax.report.tables import paper_accuracy
from fgr_jax.runs.workdir import COMPARISON, LABEL_ISSUES, REPORT, Workdir
from fgr_jax.terminal import Terminal


def write_report(
    run: TrainedRun,
    compared: TrainedRun | None,
    mesh: Mesh,
    terminal: Terminal,
    *,
    crops: str | None = None,
    step: int | None = None,
    folds: Sequence[TrainedRun] = (),
) -> str:
    """Evaluates one or two runs and writes the page to the first one's folder. Called by all processes.

    Args:
      run: the run.
      compared: another one, with the same test split, or None.
      mesh: all devices.
      terminal: shows the progress.
      crops: a key of `CROPS`; None: "five" if the paper reports five crops, otherwise "one".
      step: the step of the checkpoint; None: the latest.
      folds: runs on folds of the same training split, whose labels are judged; only without `compared`.

    Returns:
      Where the page is.

    Raises:
      UserError: as for `open_for_test`, `require_folds` and `evaluate_run`, or the runs have different
        test splits, or the page cannot be written.
    """
    # All checks come before the first forward pass.
    opened = [open_for_test(run, mesh, terminal, step=step)]
    if compared is not None:
        opened.append(open_for_test(compared, mesh, terminal))
        require_same_test(*opened)
    opened_folds = [open_for_test(each, mesh, terminal) for each in folds]
    if folds:
        require_folds(opened[0], opened_folds)
    paper = paper_accuracy(run.config.data)
    crops = crops or ("five" if paper and paper.five_crops else "one")
    evaluated = [evaluate_run(each, mesh, terminal, crops=crops) for each in opened]
    of_folds = [evaluate_run(each, mesh, terminal, crops="one") for each in opened_folds]
    name = REPORT if compared is None else COMPARISON
    once_for_all(lambda: _write(evaluated, of_folds, mesh, run.workdir, name))
    return f"{run.workdir.name}/{name}"


def as_html(contents: SimpleNamespace) -> str:
    """Renders the template; strings from the data set and the file system are escaped."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fgr_jax.report", "template"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = as_text
    environment.filters["breakable"] = _breakable
    return environment.get_template("report.html").render(contents=contents)


def _breakable(text: str) -> Markup:
    """Escapes names of classes and files, and lets lines break where words end in them."""
    return Markup(re.sub(r"(?<=[_/])", "<wbr>", escape(text)))


def _write(
    evaluated: Sequence[EvaluatedRun | None],
    folds: Sequence[EvaluatedRun | None],
    mesh: Mesh,
    workdir: Workdir,
    name: str,
) -> None:
    runs, of_folds = ([each for each in group if each is not None] for group in (evaluated, folds))
    filled = contents(runs, mesh, of_folds)
    page = as_html(filled)
    try:
        if filled.label_issues is not None:
            with atomic_write(workdir.local / LABEL_ISSUES) as unfinished:
                write_csv(unfinished, columns(filled.label_issues))
        with atomic_write(workdir.local / name) as unfinished:
            # As for the bytes of a path that is not UTF-8.
            unfinished.write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UserError(f"{workdir.name}/{name} cannot be written: {error.strerror}") from error
    workdir.publish()
