"""Writes the network of a run for other programs: ONNX, StableHLO, weights for PyTorch, or a page.

    python -m fgr_jax.export --workdir=runs/cub [--format=onnx|stablehlo|safetensors|page]
                             [--output=FILE] [--verify] [--step=N] [--onnxruntime_web=FOLDER]
                             [--config.data.data_dir=FOLDER] [--config.data.folder=FOLDER]

ONNX and StableHLO files take images, uint8 [batch, height, width, 3], that are resized and cropped as
the run's test images, and give probabilities and class activation maps. They normalize the images and
compute in float32. safetensors files hold the weights with timm's names, torchvision's for ResNets.
Class names, the geometry of the images, the accuracy and the license of the starting weights are in the
file, or, for StableHLO, in FILE.json.

A page is one HTML file that classifies images in a browser, without a server. It contains the files of
the npm package onnxruntime-web, in the folder that --onnxruntime_web names.

The file is written to DIR/export/ unless --output names another one. --verify runs it on all images of
the test split, in onnxruntime for ONNX, and compares all predictions, probabilities and maps with those
of the run; a file that differs is not kept. --step selects a checkpoint; by default it is the latest.
"""

from fgr_jax import cli  # isort: skip  # first: it says which packages are missing

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from fgr_jax.errors import UserError
from fgr_jax.export.suffixes import SUFFIXES
from fgr_jax.files.atomic import atomic_write
from fgr_jax.files.local import local_path

if TYPE_CHECKING:
    from fgr_jax.runs.workdir import Workdir


def main(argv: Sequence[str]) -> int:
    """Returns the exit status."""
    own = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "the run", required=True, flag_values=own)
    flags.DEFINE_enum("format", "onnx", list(SUFFIXES), "of the file", flag_values=own)
    flags.DEFINE_string("output", None, "the file", flag_values=own)
    flags.DEFINE_bool("verify", False, "compare the file with the run", flag_values=own)
    flags.DEFINE_string("onnxruntime_web", None, "its folder, for a page", flag_values=own)
    flags.DEFINE_integer("step", None, "which checkpoint", lower_bound=1, flag_values=own)
    fields = cli.parse_fields(argv, __doc__ or "", own)
    output = _checked(own.output, own.format) if own.output is not None else None
    return _run(own, fields, output, _options(own))


def _checked(typed: str, form: str) -> Path:
    """Returns the path of the file to write.

    Raises:
      UserError: it has another suffix, or its folder does not exist.
    """
    output, suffix = local_path(typed, "--output"), SUFFIXES[form]
    if output.suffix.lower() != suffix:
        raise UserError(
            f"--output={output}: must end in {suffix}, with --format={form}; the formats are "
            f"{', '.join(SUFFIXES)}"
        )
    if not output.parent.is_dir():
        raise UserError(f"--output={output}: the folder {output.parent} does not exist")
    return output


def _options(own: flags.FlagValues) -> dict[str, Path]:
    """Returns the options of the format.

    Raises:
      UserError: --onnxruntime_web is missing for a page, is no such folder, or is given without one.
    """
    if own.format != "page":
        if own.onnxruntime_web is not None:
            raise UserError(f"--onnxruntime_web={own.onnxruntime_web}: is for --format=page")
        return {}
    if own.onnxruntime_web is None:
        raise UserError(
            "--format=page needs --onnxruntime_web=FOLDER, that of the npm package: "
            "node_modules/onnxruntime-web after npm install onnxruntime-web"
        )
    from fgr_jax.export.page import check_runtime

    folder = local_path(own.onnxruntime_web, "--onnxruntime_web")
    check_runtime(folder)
    return {"runtime": folder}


def _run(
    own: flags.FlagValues, fields: dict[str, Any], output: Path | None, options: dict[str, Path]
) -> int:
    # These imports take a second, which --help and a mistake in the flags do without.
    from fgr_jax import compilation
    from fgr_jax.distributed import data_mesh
    from fgr_jax.evaluate.evaluated_run import open_for_test
    from fgr_jax.export.exported_run import ExportedRun, as_texts, in_float32, metadata
    from fgr_jax.export.formats import FORMATS, check_packages
    from fgr_jax.export.verification import DifferenceError, verify_outputs, verify_weights
    from fgr_jax.inference.saved_run import open_run, restore
    from fgr_jax.runs.workdir import Workdir
    from fgr_jax.terminal import Terminal

    form, terminal = FORMATS[own.format], Terminal()
    check_packages(own.format, runs=own.verify)
    described = open_run(Workdir.open(own.workdir), fields)
    compilation.set_up(described.config)
    run, mesh = in_float32(described), data_mesh()
    source = None
    if own.verify and form.open:
        opened = open_for_test(run, mesh, terminal, step=own.step)
        trained, source = opened.trained, opened.source
    else:
        trained = restore(run, own.step, mesh)
    exported = ExportedRun(run, trained)
    facts = metadata(exported)
    computes_in = described.config.network.compute_dtype
    if form.open and computes_in != run.config.network.compute_dtype:
        terminal.line(
            f"the run computes in {computes_in}; the file computes in float32, and is compared with "
            "the run's network in float32"
        )
    verdict = ""
    with contextlib.ExitStack() as files:
        path = files.enter_context(_destination(output, run.workdir, SUFFIXES[own.format]))
        unfinished = files.enter_context(atomic_write(path))
        if not form.has_metadata:
            beside = files.enter_context(atomic_write(path.with_name(f"{path.name}.json")))
            beside.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        form.write(exported, facts, unfinished, **options)
        if own.verify:
            try:
                if source is not None and form.open:
                    file = form.open(unfinished)
                    verdict = verify_outputs(exported, source, mesh, file, terminal)
                else:
                    verdict = verify_weights(exported, as_texts(facts), unfinished)
            except DifferenceError as error:
                raise UserError(f"the file {path} {error}; it was not kept") from error
    shown = output or f"{run.workdir.exports().name}/{path.name}"
    terminal.line(f"wrote step {trained.step:,} of {run.workdir.name} to {shown}")
    if verdict:
        terminal.line(f"verified: {verdict}")
    return 0


@contextlib.contextmanager
def _destination(output: Path | None, workdir: "Workdir", suffix: str) -> Iterator[Path]:
    """Yields the path of the file to write: `output`, or one in the run's folder of exported files."""
    if output is not None:
        yield output
        return
    folder = workdir.exports()
    folder.local.mkdir(parents=True, exist_ok=True)
    try:
        yield folder.local / f"model{suffix}"
    except BaseException:
        with contextlib.suppress(OSError):  # it has other files
            folder.local.rmdir()
        raise
    folder.publish()


if __name__ == "__main__":
    cli.run(main)
