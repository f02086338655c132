"""The contents of the page, computed from one or two evaluated runs."""

import functools
from collections.abc import Sequence
from types import SimpleNamespace

from jax.sharding import Mesh

from fgr_jax.errors import UserError
from fgr_jax.evaluate.diversity import MASS_SHARE
from fgr_jax.evaluate.evaluated_run import EvaluatedRun, OpenedRun
from fgr_jax.evaluate.measures import CALIBRATION_BINS
from fgr_jax.report import plots
from fgr_jax.report.cards import confused_pairs, gallery, label_issue_cards
from fgr_jax.report.embedding import embedding
from fgr_jax.report.facts import config_fields, run_facts
from fgr_jax.report.label_issues import find_label_issues
from fgr_jax.report.run_images import RunImages
from fgr_jax.report.tables import class_rows, metrics, paper_accuracy
from fgr_jax.runs.logs import Curve, error_curve, evaluated_split, read_metrics
from fgr_jax.runs.workdir import LABEL_ISSUES


def contents(
    runs: Sequence[EvaluatedRun], mesh: Mesh, folds: Sequence[EvaluatedRun] = ()
) -> SimpleNamespace:
    """Computes the contents of the template, applying the networks again to the images shown.

    Args:
      runs: one, or two with the same test split.
      mesh: the devices, of which those of this process are used.
      folds: runs that are tested on folds of the training split, for labels that look wrong.

    Raises:
      UserError: one of two runs could not read all images that the other could.
    """
    ours = runs[0]
    _require_same_images(runs)
    run_images = [RunImages(each, mesh) for each in runs]
    evaluation, evaluations = ours.evaluation, [each.evaluation for each in runs]
    paper = paper_accuracy(ours.run.config.data)
    label_issues = find_label_issues(ours, folds) if len(runs) == 1 else None

    @functools.cache
    def images_of(number: int) -> RunImages:
        return RunImages(folds[number - 1], mesh) if number else run_images[0]

    facts = [run_facts(each.run, each.trained.step) for each in runs]
    fact_names = dict.fromkeys(name for of_run in facts for name in of_run)
    return SimpleNamespace(
        title=ours.run.workdir.name,
        notices=_notices(runs),
        runs=[each.run.workdir.name for each in runs],
        data=f"{ours.source.data_set}, split “{ours.source.split}”",
        images=len(evaluation.predictions.names),
        top1=evaluation.main.top1,
        crops="five crops" if evaluation.five_crops else "one crop, the center",
        has_maps=any(each.has_maps for each in run_images),
        worst_pair=evaluation.pairs[0] if evaluation.pairs else None,
        class_names=evaluation.class_names,
        never=evaluation.classes.never_recognized_in_words(evaluation.class_names),
        corrupt=evaluation.predictions.corrupt,
        metrics=metrics(evaluations, paper),
        paper=paper,
        pairs=confused_pairs(run_images),
        pair_count=len(evaluation.pairs),
        gallery=gallery(run_images),
        label_issues=label_issues,
        issue_cards=label_issue_cards(label_issues, images_of) if label_issues else [],
        issues_file=LABEL_ISSUES,
        curves=plots.draw_curves([_curves(each) for each in runs]),
        calibration=plots.draw_calibration([each.main.calibration for each in evaluations]),
        coverage=plots.draw_coverage([each.coverage for each in evaluations]),
        rows=class_rows(evaluations),
        embedding=embedding(run_images),
        facts=[(name, [of_run.get(name, "") for of_run in facts]) for name in fact_names],
        config=config_fields([each.run.recorded for each in runs]),
        mass_share=MASS_SHARE,
        bins=CALIBRATION_BINS,
        run_colors=plots.RUN_COLORS,
        run_names=plots.RUN_NAMES,
        license=ours.source.license,
    )


def _notices(runs: Sequence[EvaluatedRun]) -> list[str]:
    if len(runs) == 1:
        return [notice[0].upper() + notice[1:] for notice in runs[0].notices]
    return [f"{each.run.workdir.name}: {notice}" for each in runs for notice in each.notices]


def require_same_test(ours: OpenedRun, theirs: OpenedRun) -> None:
    """Checks that two runs can be compared.

    Raises:
      UserError: they have different test splits, or different classes.
    """
    compared, name = theirs.run.workdir, ours.run.workdir.name
    if not ours.source.identity.is_same_data(theirs.source.identity):
        one, other = theirs.source.identity.compared(ours.source.identity)
        raise UserError(
            f"{compared} is tested on {one}, and {name} on {other}: compare runs on the same test split"
        )
    if ours.source.class_names != theirs.source.class_names:
        raise UserError(
            f"{compared} has other classes than {name}: compare runs with the same classes"
        )


def _require_same_images(runs: Sequence[EvaluatedRun]) -> None:
    ours, theirs = (set(runs[index].evaluation.predictions.names) for index in (0, -1))
    alone = sorted(ours ^ theirs)
    if alone:
        raise UserError(
            f"{runs[-1].run.workdir} could not be tested on the images of "
            f"{runs[0].run.workdir.name}: one of them could not read {', '.join(alone[:5])}"
        )


def _curves(evaluated: EvaluatedRun) -> dict[str, Curve]:
    """Returns the error curves of the split that the run was evaluated on, and of the training."""
    records = read_metrics(evaluated.run.workdir.local)
    epoch, split = float(evaluated.run.calendar.epoch), evaluated_split(records)
    return {
        split: error_curve(records, split, epoch=epoch),
        "training": error_curve(records, "train", epoch=epoch),
    }
