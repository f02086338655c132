"""What stands on the page, worked out from one evaluated run or two."""

import dataclasses
from collections.abc import Sequence

from jax.sharding import Mesh

from fgr_jax.errors import UserError
from fgr_jax.evaluate.diversity import MASS_SHARE
from fgr_jax.evaluate.evaluated_run import EvaluatedRun, OpenedRun
from fgr_jax.evaluate.measures import CALIBRATION_BINS, ConfusedPair
from fgr_jax.report import plots
from fgr_jax.report.cards import Card, PairSection, confused_pairs, gallery
from fgr_jax.report.class_table import ClassRow, class_rows
from fgr_jax.report.embedding import Embedding, embedding
from fgr_jax.report.facts import Field, config_fields, run_facts
from fgr_jax.report.headline import Figure, headline
from fgr_jax.report.paper import PaperAccuracy, paper_accuracy
from fgr_jax.report.viewer import Viewer
from fgr_jax.runs.curves import Curve, error_curve
from fgr_jax.runs.metrics_log import read_metrics


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """All that the template fills in."""

    title: str
    notices: list[str]  # what a reader must know before any figure
    runs: list[str]  # what they are called
    data: str
    pictures: int
    classes: int
    top1: float  # of the main figure
    crops: str  # by which
    worst_pair: ConfusedPair | None
    class_names: list[str]
    corrupt: list[str]
    headline: list[Figure]
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
    """Works everything out; runs the networks once more over what is shown.

    Args:
      runs: one, or two of the same test split.
      mesh: the devices; those of this process are used.

    Raises:
      UserError: the two runs could not read the same pictures.
    """
    ours = runs[0]
    _require_same_pictures(runs)
    viewers = [Viewer(each, mesh) for each in runs]
    evaluation = ours.evaluation
    paper = paper_accuracy(ours.run.config.data)
    facts = [run_facts(each.run, each.trained.step) for each in runs]
    return Contents(
        title=ours.run.workdir.name,
        notices=_notices(runs),
        runs=[each.run.workdir.name for each in runs],
        data=f"{ours.source.data_set}, split “{ours.source.split}”",
        pictures=len(evaluation.predictions.names),
        classes=len(evaluation.class_names),
        top1=evaluation.main.top1,
        crops="five crops" if evaluation.five_crops else "one crop, the center",
        worst_pair=evaluation.pairs[0] if evaluation.pairs else None,
        class_names=evaluation.class_names,
        corrupt=evaluation.predictions.corrupt,
        headline=headline([each.evaluation for each in runs], paper),
        paper=paper,
        pairs=confused_pairs(viewers),
        pair_count=len(evaluation.pairs),
        gallery=gallery(viewers),
        curves=plots.draw_curves([_curves_of(each) for each in runs]),
        calibration=plots.draw_calibration([each.evaluation.main.calibration for each in runs]),
        rows=class_rows([each.evaluation for each in runs]),
        embedding=embedding(viewers),
        facts=[(name, [each.get(name, "") for each in facts]) for name in _names(facts)],
        config=config_fields([each.run.recorded for each in runs]),
        mass_share=MASS_SHARE,
        bins=CALIBRATION_BINS,
        run_colors=plots.RUN_COLORS,
        run_names=plots.RUN_NAMES,
        license=ours.source.license,
    )


def _notices(runs: Sequence[EvaluatedRun]) -> list[str]:
    """What a reader must know of the runs before any figure."""
    notices = []
    for evaluated in runs:
        who = f"{evaluated.run.workdir.name}: " if len(runs) > 1 else ""
        notices += [who + notice for notice in (evaluated.state, *evaluated.warnings) if notice]
    return [notice[0].upper() + notice[1:] if len(runs) == 1 else notice for notice in notices]


def require_same_test(ours: OpenedRun, theirs: OpenedRun) -> None:
    """Checks that two runs can be compared.

    Raises:
      UserError: they are of different test splits, or of different classes.
    """
    compared, name = theirs.run.workdir, ours.run.workdir.name
    if ours.source.identity != theirs.source.identity:
        raise UserError(
            f"{compared.flag}={compared.name} is tested on {theirs.source.identity}, and {name} on "
            f"{ours.source.identity}: compare runs on the same test split"
        )
    if ours.source.class_names != theirs.source.class_names:
        raise UserError(
            f"{compared.flag}={compared.name} tells other classes apart than {name}: compare runs of "
            "the same classes"
        )


def _require_same_pictures(runs: Sequence[EvaluatedRun]) -> None:
    names = [set(each.evaluation.predictions.names) for each in runs]
    alone = sorted(names[0] ^ names[-1])
    if alone:
        compared = runs[-1].run.workdir
        raise UserError(
            f"{compared.flag}={compared.name} could not be tested on the pictures of "
            f"{runs[0].run.workdir.name}: one of them could not read {', '.join(alone[:5])}"
        )


def _curves_of(evaluated: EvaluatedRun) -> tuple[Curve, Curve]:
    """Of the test split and in training."""
    records = read_metrics(evaluated.run.workdir.local)
    epoch = float(evaluated.run.calendar.epoch)
    return error_curve(records, "test", epoch=epoch), error_curve(records, "train", epoch=epoch)


def _names(facts: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for each in facts for name in each))
