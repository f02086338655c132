"""What stands on the page, worked out from one evaluated run or two."""

import dataclasses
from collections.abc import Sequence

from fgr_jax.errors import UserError
from fgr_jax.evaluating.diversity import MASS_SHARE
from fgr_jax.evaluating.evaluated_run import EvaluatedRun, checkpoint_in_words
from fgr_jax.evaluating.measures import CALIBRATION_BINS, ConfusedPair
from fgr_jax.recording.curves import Curve, error_curve
from fgr_jax.reporting import plots
from fgr_jax.reporting.cards import Card, PairSection, confused_pairs, gallery
from fgr_jax.reporting.class_table import ClassRow, class_rows
from fgr_jax.reporting.embedding import Embedding, embedding
from fgr_jax.reporting.facts import Field, config_fields, run_facts
from fgr_jax.reporting.headline import Figure, headline
from fgr_jax.reporting.paper import PaperAccuracy, paper_accuracy
from fgr_jax.reporting.viewer import Viewer


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """All that the template fills in."""

    title: str
    state: str  # which checkpoint this is of; empty: the last
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
    run_colours: tuple[str, str]
    run_names: tuple[str, str]
    licence: str


def contents(ours: EvaluatedRun, theirs: EvaluatedRun | None) -> Contents:
    """Works everything out; runs the network once more over what is shown.

    Raises:
      UserError: the two runs were evaluated on different pictures or classes.
    """
    if theirs is not None:
        _require_same_pictures(ours, theirs)
    runs = [ours] if theirs is None else [ours, theirs]
    viewers = [Viewer(each) for each in runs]
    evaluation = ours.evaluation
    paper = paper_accuracy(ours.run.config.data)
    complete = ours.trained.step == ours.run.calendar.total_steps
    facts = [run_facts(each.run, each.trained.step) for each in runs]
    return Contents(
        title=ours.run.workdir.name,
        state="" if complete else checkpoint_in_words(ours.run, ours.trained.step),
        runs=[each.run.workdir.name for each in runs],
        data=f"{ours.source.data_set}, split “{ours.source.split}”",
        pictures=len(evaluation.predictions.names),
        classes=len(evaluation.class_names),
        top1=evaluation.main.top1,
        crops="five crops" if evaluation.five_crops else "one crop, the centre",
        worst_pair=evaluation.pairs[0] if evaluation.pairs else None,
        class_names=evaluation.class_names,
        corrupt=evaluation.predictions.corrupt,
        headline=headline([each.evaluation for each in runs], paper),
        paper=paper,
        pairs=confused_pairs(*viewers),
        pair_count=len(evaluation.pairs),
        gallery=gallery(viewers),
        curves=plots.draw_curves([_curves_of(each) for each in runs]),
        calibration=plots.draw_calibration([each.evaluation.main.calibration for each in runs]),
        rows=class_rows([each.evaluation for each in runs]),
        embedding=embedding(viewers),
        facts=[(name, [each.get(name, "") for each in facts]) for name in _names(facts)],
        config=config_fields([each.run.config for each in runs]),
        mass_share=MASS_SHARE,
        bins=CALIBRATION_BINS,
        run_colours=plots.RUN_COLOURS,
        run_names=plots.RUN_NAMES,
        licence=ours.source.licence,
    )


def _require_same_pictures(ours: EvaluatedRun, theirs: EvaluatedRun) -> None:
    for what, one, other in (
        ("on the pictures", ours.source.identity, theirs.source.identity),
        ("with the classes", ours.source.class_names, theirs.source.class_names),
        (
            "on the pictures",
            ours.evaluation.predictions.names,
            theirs.evaluation.predictions.names,
        ),
    ):
        if one != other:
            shown = f" ({one} and {other})" if isinstance(one, str) else ""
            raise UserError(
                f"--compare={theirs.run.workdir.name} was not tested {what} of "
                f"{ours.run.workdir.name}{shown}: compare runs on the same test split"
            )


def _curves_of(evaluated: EvaluatedRun) -> tuple[Curve, Curve]:
    """Of the test split and in training."""
    folder, epoch = evaluated.run.workdir.local, float(evaluated.run.calendar.epoch)
    return (
        error_curve(folder, "test", epoch=epoch),
        error_curve(folder, "train", epoch=epoch),
    )


def _names(facts: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(name for each in facts for name in each))
