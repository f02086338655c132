"""The contents of the page, computed from one evaluated run or two."""

import dataclasses
from collections.abc import Sequence

from jax.sharding import Mesh

from fgr_jax.errors import UserError
from fgr_jax.evaluate.diversity import MASS_SHARE
from fgr_jax.evaluate.evaluated_run import EvaluatedRun, OpenedRun
from fgr_jax.evaluate.measures import CALIBRATION_BINS, ConfusedPair
from fgr_jax.report import plots
from fgr_jax.report.cards import Card, PairSection, confused_pairs, gallery
from fgr_jax.report.embedding import Embedding, embedding
from fgr_jax.report.facts import Field, config_fields, run_facts
from fgr_jax.report.paper import PaperAccuracy, paper_accuracy
from fgr_jax.report.run_images import RunImages
from fgr_jax.report.tables import ClassRow, Metric, class_rows, metrics
from fgr_jax.runs.logs import Curve, error_curve, read_metrics


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """The values that the template fills in."""

    title: str
    # What a reader must know first.
    notices: list[str]
    # The names of the runs.
    runs: list[str]
    data: str
    images: int
    # By `crops`.
    top1: float
    crops: str
    # Whether the network of any run has class activation maps.
    has_maps: bool
    worst_pair: ConfusedPair | None
    class_names: list[str]
    corrupt: list[str]
    metrics: list[Metric]
    paper: PaperAccuracy | None
    pairs: list[PairSection]
    pair_count: int
    gallery: list[Card]
    curves: str
    calibration: str
    rows: list[ClassRow]
    embedding: Embedding | None
    facts: list[tuple[str, list[str]]]
    config: list[Field]
    mass_share: float
    bins: int
    run_colors: tuple[str, str]
    run_names: tuple[str, str]
    license: str


def contents(runs: Sequence[EvaluatedRun], mesh: Mesh) -> Contents:
    """Computes the contents; applies the networks once more to the images that are shown.

    Args:
      runs: one, or two with the same test split.
      mesh: the devices; those of this process are used.

    Raises:
      UserError: one of two runs could read images that the other could not.
    """
    ours = runs[0]
    _require_same_images(runs)
    run_images = [RunImages(each, mesh) for each in runs]
    evaluation = ours.evaluation
    paper = paper_accuracy(ours.run.config.data)
    facts = [run_facts(each.run, each.trained.step) for each in runs]
    return Contents(
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
        corrupt=evaluation.predictions.corrupt,
        metrics=metrics([each.evaluation for each in runs], paper),
        paper=paper,
        pairs=confused_pairs(run_images),
        pair_count=len(evaluation.pairs),
        gallery=gallery(run_images),
        curves=plots.draw_curves([_curves_of(each) for each in runs]),
        calibration=plots.draw_calibration([each.evaluation.main.calibration for each in runs]),
        rows=class_rows([each.evaluation for each in runs]),
        embedding=embedding(run_images),
        facts=[(name, [each.get(name, "") for each in facts]) for name in _names(facts)],
        config=config_fields([each.run.recorded for each in runs]),
        mass_share=MASS_SHARE,
        bins=CALIBRATION_BINS,
        run_colors=plots.RUN_COLORS,
        run_names=plots.RUN_NAMES,
        license=ours.source.license,
    )


def _notices(runs: Sequence[EvaluatedRun]) -> list[str]:
    """Returns the state of the runs' checkpoints, and what has changed since they were trained."""
    notices = []
    for evaluated in runs:
        who = f"{evaluated.run.workdir.name}: " if len(runs) > 1 else ""
        notices += [who + notice for notice in (evaluated.state, *evaluated.warnings) if notice]
    return [notice[0].upper() + notice[1:] if len(runs) == 1 else notice for notice in notices]


def require_same_test(ours: OpenedRun, theirs: OpenedRun) -> None:
    """Checks that two runs can be compared.

    Raises:
      UserError: they have different test splits, or different classes.
    """
    compared, name = theirs.run.workdir, ours.run.workdir.name
    if ours.source.identity != theirs.source.identity:
        raise UserError(
            f"{compared} is tested on {theirs.source.identity}, and {name} on "
            f"{ours.source.identity}: compare runs on the same test split"
        )
    if ours.source.class_names != theirs.source.class_names:
        raise UserError(
            f"{compared} has other classes than {name}: compare runs with the same classes"
        )


def _require_same_images(runs: Sequence[EvaluatedRun]) -> None:
    names = [set(each.evaluation.predictions.names) for each in runs]
    alone = sorted(names[0] ^ names[-1])
    if alone:
        compared = runs[-1].run.workdir
        raise UserError(
            f"{compared} could not be tested on the images of "
            f"{runs[0].run.workdir.name}: one of them could not read {', '.join(alone[:5])}"
        )


def _curves_of(evaluated: EvaluatedRun) -> tuple[Curve, Curve]:
    """Returns the error on the test split and in training."""
    records = read_metrics(evaluated.run.workdir.local)
    epoch = float(evaluated.run.calendar.epoch)
    return error_curve(records, "test", epoch=epoch), error_curve(records, "train", epoch=epoch)


def _names(facts: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for each in facts for name in each))
