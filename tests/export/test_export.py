"""`python -m fgr_jax.export` as a user runs it, and its answers to a workdir that is not right."""

import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
import safetensors
from documents import ROOT, read
from jax import export as jax_export
from onnx_files import run_onnx
from PIL import Image
from pooled_head import POOLED_HEAD
from saved_runs import saved
from tiny_run import QUIET, resnet_config, small_config

from fgr_jax.data.pipeline import Share, annotated_batches
from fgr_jax.data.source import open_splits
from fgr_jax.distributed import data_mesh
from fgr_jax.errors import UserError
from fgr_jax.export import __main__ as export
from fgr_jax.export import exported_run, formats, verification
from fgr_jax.export.jaxpr_to_onnx import simplification
from fgr_jax.export.suffixes import SUFFIXES
from fgr_jax.inference.saved_run import open_run, restore
from fgr_jax.models.network import forward
from fgr_jax.models.weights.pretrained import start_from
from fgr_jax.predict import __main__ as predict
from fgr_jax.runs import checkpoints
from fgr_jax.runs.workdir import Workdir
from fgr_jax.train.loop import train

STEPS = 7


@pytest.fixture(scope="module")
def finished(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run with moving averages; it is not to be changed."""
    config = small_config(data_dir)
    config.duration, config.optimizer.average = "1 epoch", 0.9
    config.checkpoint_every = "4 steps"
    workdir = tmp_path_factory.mktemp("finished") / "run"
    train(config, Workdir.open(workdir), QUIET)
    return workdir


@pytest.fixture(scope="module")
def resnet(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a run in bfloat16 whose backbone is listed."""
    config = resnet_config(data_dir)
    config.network.compute_dtype = "bfloat16"
    return saved(config, tmp_path_factory.mktemp("resnet") / "run")


@pytest.fixture
def workdir(finished: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def run(workdir: Path | str, *options: str) -> int:
    return export.main(["export", f"--workdir={workdir}", *options])


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def images_of(workdir: Path) -> tuple[Any, Any]:
    """The images of the test split and, from the run's own forward pass, what is expected."""
    opened = open_run(Workdir.open(workdir))
    opened.config.network.compute_dtype = "float32"
    _, test = open_splits(opened.config.data, QUIET, opened.data)
    trained = restore(opened, None, data_mesh())
    (batch,) = annotated_batches(
        test, opened.config.data, opened.config.runtime, Share(len(test), 0, 1), crops=1
    )
    images = batch["image"][:, 0]
    outputs: Any = forward(trained.network, jax.device_get(trained.variables), jnp.asarray(images))
    return images, {"probabilities": jax.nn.softmax(outputs.scores), "maps": outputs.maps}


def assert_same(found: Any, expected: Any) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)


def test_onnx_with_all_that_its_users_need(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "tiny.onnx"
    assert run(finished, f"--output={output}", "--verify") == 0
    printed = capsys.readouterr()
    assert f"wrote step 7 of {finished} to {output}\n" in printed.out
    assert "verified: all predictions are those of the run on 27 images; prob" in printed.out
    assert "\r" not in printed.out + printed.err
    assert names_in(tmp_path) == {"tiny.onnx"}

    model = onnx.load(output)
    assert model.graph.input[0].name == "image"
    images, expected = images_of(finished)
    model.graph.input[0].name = "x"  # as `run_onnx` calls it
    for node in model.graph.node:
        node.input[:] = ["x" if name == "image" else name for name in node.input]
    assert_same(run_onnx(model, images), expected)

    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["class_names"]) == json.loads((finished / "classes.json").read_text())
    geometry = json.loads(facts["geometry"])
    config = json.loads((finished / "config.json").read_text())
    for name in ("cut_bottom", "resize", "resize_method", "crop"):
        assert geometry[name] == config[f"data.{name}"]
    assert geometry["stride"] == 16
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    (last,) = (line for line in lines if (line["step"], line["split"]) == (STEPS, "test"))
    accuracy = json.loads(facts["accuracy"])
    assert (accuracy["split"], accuracy["images"], accuracy["top1"]) == ("test", 27, last["top1"])
    assert facts["weights"] == "random weights"
    assert facts["step"] == str(STEPS)
    assert len(facts["digest"]) == 64
    assert "train: 52 examples" in facts["data"]


def test_the_example_of_the_documentation_predicts_as_the_run(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished, "runs/mine")
    assert run("runs/mine") == 0
    image = np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8)
    Image.fromarray(image).resize((80, 60)).save("photo.jpg", quality=95)
    capsys.readouterr()
    (example,) = (b for b in read(ROOT / "docs/export.md").blocks if b.language == "python")
    exec(compile(example.code, "docs/export.md", "exec"), {})
    found, confidence = capsys.readouterr().out.strip().rsplit(" ", 1)
    assert predict.main(["predict", "--workdir=runs/mine", "photo.jpg", "--top=1"]) == 0
    expected, probability = capsys.readouterr().out.strip().split(": ")[1].rsplit(" ", 1)
    assert found == expected
    # Pillow resizes with other weights.
    assert abs(float(confidence.rstrip("%")) - float(probability.rstrip("%"))) < 3


def test_the_moving_average_is_exported(finished: Path) -> None:
    state = checkpoints.read_latest(Workdir.open(finished).checkpoints)
    average, last = state["average"]["params"], state["params"]
    assert not np.array_equal(average["classifier"]["kernel"], last["classifier"]["kernel"])
    exported = exported_run.ExportedRun(
        opened := open_run(Workdir.open(finished)), restore(opened, None, data_mesh())
    )
    np.testing.assert_array_equal(
        exported.trained.variables["params"]["classifier"]["kernel"],
        average["classifier"]["kernel"],
    )


def test_stablehlo_for_any_number_of_images_and_every_platform(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(workdir, "--format=stablehlo", "--verify") == 0
    assert "all predictions are those of the run on 27 images" in capsys.readouterr().out
    folder = workdir / "export"
    assert names_in(folder) == {"model.stablehlo", "model.stablehlo.json"}
    function = jax_export.deserialize(bytearray((folder / "model.stablehlo").read_bytes()))
    assert set(function.platforms) == {"cpu", "cuda", "tpu"}
    lines = (line.strip() for line in function.mlir_module().splitlines())
    products = [line for line in lines if re.match(r"%\S+ = \S+\.(convolution|dot_general)", line)]
    assert products
    assert all("HIGHEST" in line for line in products)  # GPUs would use TF32
    images, expected = images_of(workdir)
    assert_same(function.call(images), expected)
    assert_same(function.call(images[:1]), {name: each[:1] for name, each in expected.items()})
    facts = json.loads((folder / "model.stablehlo.json").read_text())
    assert facts["class_names"] == json.loads((workdir / "classes.json").read_text())
    assert facts["geometry"]["crop"] == 32


def test_safetensors_is_a_start_and_has_the_class_names(
    resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "w.safetensors"
    options = ["--format=safetensors", f"--output={output}"]
    assert run(resnet, *options, "--verify") == 0
    printed = capsys.readouterr().out
    assert f"wrote step 2 of {resnet} to {output}\n" in printed
    assert "all 122 tensors are those of the run, bit by bit" in printed
    opened = open_run(Workdir.open(resnet))
    trained = restore(opened, None, data_mesh())
    variables = jax.device_get(trained.variables)
    other = jax.tree.map(np.zeros_like, variables)
    started = start_from(str(output), other, trained.network.table, opened.config.network)
    jax.tree.map(np.testing.assert_array_equal, started.variables, variables)
    with safetensors.safe_open(output, "np") as file:
        names = json.loads(file.metadata()["class_names"])
    assert names == opened.class_names
    mask = os.umask(0)
    os.umask(mask)
    assert output.stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_run_in_bfloat16_is_written_in_float32(
    resnet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(resnet, f"--output={tmp_path}/a.onnx", "--verify") == 0
    printed = capsys.readouterr().out
    assert "the run computes in bfloat16; the file computes in float32" in printed
    assert "all predictions are those of the run on 27 images" in printed


def test_a_checkpoint_can_be_chosen(workdir: Path, tmp_path: Path) -> None:
    digests = set()
    for step in (4, 7):
        assert run(workdir, f"--step={step}", f"--output={tmp_path}/{step}.onnx") == 0
        model = onnx.load(tmp_path / f"{step}.onnx")
        facts = {entry.key: entry.value for entry in model.metadata_props}
        assert facts["step"] == str(step)
        digests.add(facts["digest"])
        assert ("accuracy" in facts) == (step == STEPS)  # where the run was tested
    assert len(digests) == 2


def doubled_bias(x: Any, scale: Any, shift: Any) -> Any:
    """A fold of BatchNorm that is wrong."""
    found = simplification._into_convolution(x, scale, shift)
    assert found is not None
    return simplification._into_convolution(found, np.ones(()), 0.01 * np.ones(()))


@pytest.mark.parametrize("file", [None, "earlier"])
def test_a_wrong_fold_is_found_and_nothing_is_kept(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str | None
) -> None:
    output = tmp_path / "a.onnx"
    if file:
        output.write_text(file)
    monkeypatch.setitem(simplification._FOLDS, "Conv", doubled_bias)
    message = rf"^the file {output} has \d+ other predictions than the run on 27 images; prob"
    with pytest.raises(UserError, match=message) as caught:
        run(finished, f"--output={output}", "--verify")
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("it was not kept")
    assert names_in(tmp_path) == ({"a.onnx"} if file else set())
    if file:
        assert output.read_text() == file


def changed_outputs(change: Callable[[Any], Any]) -> Callable[[Path], formats.Run]:
    def opened(path: Path) -> formats.Run:
        file = formats._open_onnx(path)
        return lambda images: change(dict(file(images)))

    return opened


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: {**found, "probabilities": found["probabilities"] + 3e-5}, "0 other pred"),
        (lambda found: {**found, "maps": found["maps"] * 1.001}, r"0 other .*maps by 1.0e-03"),
        (lambda found: {**found, "maps": found["maps"] * np.nan}, "maps by inf"),
        (lambda found: {**found, "maps": found["maps"][:, ::-1]}, "0 other predictions"),
        (lambda found: {**found, "probabilities": -found["probabilities"]}, r"\d\d other pred"),
        (lambda found: {"probabilities": found["probabilities"]}, "has other outputs"),
    ],
)
def test_every_output_is_compared(
    resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    form = formats.FORMATS["onnx"]._replace(open=changed_outputs(change))
    monkeypatch.setattr(formats, "FORMATS", {"onnx": form})
    with pytest.raises(UserError, match=message):
        run(resnet, f"--output={tmp_path}/a.onnx", "--verify")
    assert names_in(tmp_path) == set()


def test_classes_that_are_equally_probable_are_the_same_prediction() -> None:
    differences = verification._Differences()
    ours, theirs = np.array([[0.500001, 0.499999]]), np.array([[0.499999, 0.500001]])
    differences.add({"probabilities": ours}, {"probabilities": theirs})
    assert differences.are_small
    differences.add({"probabilities": ours}, {"probabilities": ours[:, ::-1] + 1})
    assert not differences.are_small


def test_a_weight_that_differs_in_one_bit_is_found(
    resnet: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damaged(exported: Any, metadata: Any, path: Path) -> None:
        formats._write_safetensors(exported, metadata, path)
        path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]))

    form = formats.FORMATS["safetensors"]._replace(write=damaged)
    monkeypatch.setattr(formats, "FORMATS", {"safetensors": form})
    with pytest.raises(UserError, match=r"differs from the run in layer\S+; it was not kept"):
        run(resnet, "--format=safetensors", f"--output={tmp_path}/a.safetensors", "--verify")
    assert names_in(tmp_path) == set()


def test_a_head_of_ones_own_without_maps(
    data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = small_config(data_dir)
    config.network.head = POOLED_HEAD
    saved(config, tmp_path / "run")
    assert run(tmp_path / "run", "--verify") == 0
    assert "maps" not in capsys.readouterr().out
    model = onnx.load(tmp_path / "run" / "export" / "model.onnx")
    assert [output.name for output in model.graph.output] == ["probabilities"]
    with pytest.raises(
        UserError, match=r"^the parameter \S+ has no counterpart in .* another --format"
    ):
        run(tmp_path / "run", "--format=safetensors")


def test_a_primitive_that_is_not_translated_is_named(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def sorted_outputs(self: Any, images: Any) -> Any:
        scores = forward(self.trained.network, self.trained.variables, images).scores
        return {"probabilities": jax.numpy.sort(scores)}

    monkeypatch.setattr(exported_run.ExportedRun, "outputs", sorted_outputs)
    message = r"^--format=onnx: the network of \S+ uses sort, which .* --format=stablehlo takes"
    with pytest.raises(UserError, match=message):
        run(finished, f"--output={tmp_path}/a.onnx")
    assert names_in(tmp_path) == set()


@pytest.mark.parametrize(
    ("form", "package"), [("onnx", "onnx"), ("onnx", "onnxruntime"), ("stablehlo", "flatbuffers")]
)
def test_a_missing_package_is_named(
    finished: Path, monkeypatch: pytest.MonkeyPatch, form: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    message = rf"--format={form}: {package} is not installed; it needs pip install 'fgr-jax\["
    with pytest.raises(UserError, match=message):
        run(finished, f"--format={form}", "--verify")


@pytest.mark.parametrize("form", SUFFIXES)
@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.onnx.zip", "w", "w.json"])
def test_names_of_other_formats_are_refused(form: str, name: str) -> None:
    with pytest.raises(
        UserError, match=rf"--output={name}: must end in {re.escape(SUFFIXES[form])}, with"
    ):
        run("nowhere", f"--output={name}", f"--format={form}")


def test_the_formats_are_those_that_are_listed() -> None:
    assert formats.FORMATS.keys() == SUFFIXES.keys()
    with pytest.raises(UserError, match=r"format.*should be one of"):
        run("nowhere", "--format=tflite")


def change_json(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def apply(workdir: Path) -> None:
        found = json.loads((workdir / name).read_text())
        (workdir / name).write_text(json.dumps(change(found)))

    return apply


def with_text(name: str, text: str) -> Callable[[Path], None]:
    def apply(workdir: Path) -> None:
        (workdir / name).write_text(text)

    return apply


def without(name: str) -> Callable[[Path], None]:
    def apply(workdir: Path) -> None:
        path = workdir / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return apply


def with_field(name: str, value: Any) -> Callable[[Path], None]:
    return change_json("config.json", lambda found: {**found, name: value})


def damaged_arrays(workdir: Path) -> None:
    for path in (workdir / "checkpoints" / str(STEPS) / "default").rglob("*"):
        if path.is_file() and path.stat().st_size > 500:
            path.write_bytes(path.read_bytes()[:250])


def a_file(workdir: Path) -> None:
    shutil.rmtree(workdir)
    workdir.write_text("no folder")


def empty(workdir: Path) -> None:
    shutil.rmtree(workdir)
    workdir.mkdir()


def of_another_program(workdir: Path) -> None:
    empty(workdir)
    (workdir / "config.json").write_text('{"model": "resnet50", "epochs": 3}')
    (workdir / "checkpoints").mkdir()


def one_class_less(workdir: Path) -> None:
    change_json("classes.json", lambda names: names[:-1])(workdir)
    change_json("data.json", lambda data: {**data, "class_names": ""})(workdir)


BAD: dict[str, tuple[Callable[[Path], Any], list[str], str]] = {
    "no folder": (shutil.rmtree, [], r"no such folder; .* is empty; name the workdir of a run"),
    "a file": (a_file, [], r"no such folder"),
    "empty": (empty, [], r"is no workdir of a run: it has no config.json"),
    "of another program": (of_another_program, [], r"--workdir=\S+: \S+\.json"),
    "no config": (without("config.json"), [], r"it has no config.json"),
    "no names": (without("classes.json"), [], r"classes.json cannot be read"),
    "no data": (without("data.json"), [], r"data.json cannot be read"),
    "no checkpoints": (without("checkpoints"), [], r"holds no checkpoint yet: train"),
    "half a config": (with_text("config.json", '{"seed": 3,'), [], r"config.json cannot be read"),
    "a config that is a list": (with_text("config.json", "[]"), [], r"not the fields of a config"),
    "names that are numbers": (with_text("classes.json", "[1, 2]"), [], r"not the names of cl"),
    "other names": (with_text("classes.json", '["a", "b", "c", "d"]'), [], r"does not hold the"),
    "a class less": (one_class_less, [], r"is not of the network .*params/classifier/"),
    "a later version": (with_field("loss.shoes", 3), [], r"does not know, loss.shoes: use the v"),
    "a value that cannot be": (with_field("network.depth", 51), [], r"depth=51: must be one of"),
    "another backbone": (with_field("network.backbone", "resnet18"), [], r"is not of the network"),
    "no such backbone": (with_field("network.backbone", "resnet19"), [], r"backbone.*resnet19"),
    "no such file": (with_field("network.backbone", "/no.py:net"), [], r"/no.py"),
    "damaged arrays": (damaged_arrays, [], r"the checkpoint \S+/7 cannot be read \(\w+\)"),
    "no such step": (lambda _: None, ["--step=5"], r"holds the checkpoints of the steps 4, 7"),
    "damaged metrics": (with_text("metrics.jsonl", '{"step": 7}\n'), [], r"metrics.jsonl"),
    "no data set": (
        with_field("data.name", "cub"),
        ["--verify", "--config.data.data_dir=/nowhere"],
        r"data set 'cub' is not prepared in /nowhere: run python -m fgr_jax.prepare",
    ),
    "no output folder": (lambda _: None, ["--output=/nowhere/a.onnx"], r"folder /nowhere does not"),
    "another field": (lambda _: None, ["--config.seed=3"], r"--config.seed=3: the run in"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line_and_writes_nothing(workdir: Path, fault: str) -> None:
    change, options, message = BAD[fault]
    change(workdir)
    before = names_in(workdir.parent)
    with pytest.raises(UserError, match=message) as caught:
        run(workdir, *options)
    assert "\n" not in str(caught.value)
    assert names_in(workdir.parent) == before


def test_a_disk_that_is_full_leaves_nothing(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "a file")

    form = formats.FORMATS["stablehlo"]._replace(write=full)
    monkeypatch.setattr(formats, "FORMATS", {"stablehlo": form})
    before = names_in(workdir)
    with pytest.raises(OSError, match="No space"):
        run(workdir, "--format=stablehlo")
    assert names_in(workdir) == before
