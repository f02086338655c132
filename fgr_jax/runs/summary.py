"""What came out of a run, in a table and in plain words."""

from fgr_jax.runs.folder import RunFolder
from fgr_jax.runs.metrics_log import read_metrics
from fgr_jax.terminal import Terminal


def print_summary(
    workdir: RunFolder, class_count: int, image_license: str, terminal: Terminal
) -> None:
    """Prints the last results of the finished run in `workdir` and says where its files are."""
    records = read_metrics(workdir.local)
    tests = [record for record in records if record["split"] == "test"]
    trainings = [record for record in records if record["split"] == "train"]
    last, best = tests[-1], max(tests, key=lambda record: record["top1"])

    def row(name: str, record: dict) -> tuple[str, ...]:
        return (
            name,
            f"{record['step']:,}",
            f"{record['top1']:.1%}",
            f"{record['top5']:.1%}",
            f"{record['loss']:.3f}",
            f"{record['examples']:,}",
        )

    terminal.table(
        "results",
        [
            row("test", last),
            row("training, last epoch", trainings[-1]),
            row("best on test, not to be reported", best),
        ],
        header=("split", "step", "top-1", "top-5", "loss", "pictures"),
    )
    terminal.line(
        "The loss on test is cross-entropy; in training it is that of the config, GCE for one."
    )
    terminal.line(
        f"The network was shown {last['examples']:,} test pictures that it had not been trained on. "
        f"For {last['top1']:.1%} of them its first guess among {class_count} classes is right"
        + (f", for {last['top5']:.1%} one of its first five." if class_count > 5 else ".")
    )
    if image_license:
        terminal.line(f"The pictures stand under the license {image_license}.")
    terminal.line(f"Files in {workdir.name}:")
    for name, what in (
        ("checkpoints/", "the trained network"),
        ("metrics.jsonl", "every result, a line each"),
        ("timings.jsonl", "how fast it went"),
        ("tensorboard/", f"curves: tensorboard --logdir={workdir.name}"),
        ("fingerprints.jsonl", "digests, to compare runs with: python -m fgr_jax.verify"),
        ("config.json", "every field of the config"),
        ("classes.json", "the names of the classes"),
        ("provenance.jsonl", "versions, devices and code, a line for each start"),
    ):
        terminal.line(f"  {name:<18} {what}")
