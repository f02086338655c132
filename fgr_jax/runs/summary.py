"""The results of a finished run, in a table and in sentences."""

from fgr_jax.errors import UserError
from fgr_jax.per_class import confusion_matrix, per_class
from fgr_jax.runs import workdir as files
from fgr_jax.runs.checkpoints import saved_steps
from fgr_jax.runs.logs import read_metrics, read_predictions
from fgr_jax.runs.workdir import Workdir
from fgr_jax.terminal import Terminal

_CONTENTS = {
    f"{files.CHECKPOINTS}/": "the trained network",
    files.METRICS: "every result, one per line",
    files.PREDICTIONS: "label and prediction of each test image",
    files.TIMINGS: "images per second",
    f"{files.TENSORBOARD}/": "curves: tensorboard --logdir={workdir}",
    files.FINGERPRINTS: "digests, to compare runs with: python -m fgr_jax.verify",
    files.CONFIG: "every field of the config",
    files.CLASSES: "the names of the classes",
    files.PROVENANCE: "versions, devices and code, a line for each start",
}
_NAME_WIDTH = max(map(len, _CONTENTS))


def print_summary(
    workdir: Workdir, class_count: int, image_license: str, terminal: Terminal
) -> None:
    """Prints the last results of the finished run in `workdir`, and where its files are.

    Raises:
      UserError: its metrics are damaged or missing.
    """
    records = read_metrics(workdir.local)
    tests, trainings = (
        [record for record in records if record["split"] == split] for split in ("test", "train")
    )
    if not (tests and trainings):
        raise UserError(
            f"{workdir}: {files.METRICS} has no results, though the run is finished: put back a copy of "
            "it; python -m fgr_jax.evaluate tests the network anew"
        )
    last, training = tests[-1], trainings[-1]
    shown = {"test": last, "training, last epoch": training}
    validations = [record for record in records if record["split"] == "validation"]
    if validations:
        shown["validation"] = validations[-1]
        best = max(validations, key=lambda each: each["top1"])
        shown["best on validation"] = best
    else:
        shown["best on test, not to be reported"] = max(tests, key=lambda each: each["top1"])
    rows: list[tuple[str, ...]] = [
        (
            name,
            f"{record['step']:,}",
            f"{record['top1']:.1%}",
            f"{record['top5']:.1%}",
            f"{record['loss']:.3f}",
            f"{record['examples']:,}",
        )
        for name, record in shown.items()
    ]
    header = ("split", "step", "top-1", "top-5", "loss", "images")
    terminal.table("results", rows, header=header)
    terminal.line(
        "The test loss is cross-entropy; the training loss is the one of the config, such as GCE."
    )
    if validations:
        terminal.line(
            "The network was tested once, after the last step. Choose settings by the validation split "
            "alone."
        )
        if best["step"] < last["step"] and best["step"] in saved_steps(workdir.checkpoints):
            terminal.line(
                f"The network that was best on the validation split is kept too: --step={best['step']} "
                "evaluates it, predicts with it and exports it."
            )
    terminal.line(
        f"The network was tested on {last['examples']:,} images that it had not been trained on. For "
        f"{last['top1']:.1%} of them its first prediction among {class_count} classes is correct"
        + (f", for {last['top5']:.1%} one of its first five." if class_count > 5 else ".")
    )
    if (workdir.local / files.PREDICTIONS).exists():  # older versions wrote none
        labels, predicted = read_predictions(workdir.local).T
        tested = labels >= 0  # the others are corrupt
        names = workdir.read().class_names
        classes = per_class(confusion_matrix(labels[tested], predicted[tested], len(names)))
        if never := classes.never_recognized_in_words(names):
            terminal.line(f"{never}.")
    if image_license:
        terminal.line(f"The images are licensed under {image_license}.")
    terminal.line(f"Files in {workdir.name}:")
    for name, content in _CONTENTS.items():
        terminal.line(f"  {name:<{_NAME_WIDTH}} {content.format(workdir=workdir.name)}")
