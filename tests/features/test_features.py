"""Features: computed once, the same on any devices and after any kill, and refused when damaged."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from feature_runs import FeatureRun, compute, feature_config, files, values
from several_processes import run_in_processes
from tiny_run import ROOT

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.data import images
from fgr_jax.data.augmentation import turned
from fgr_jax.errors import UserError
from fgr_jax.features import __main__ as command
from fgr_jax.features import opening
from fgr_jax.features.description import describe
from fgr_jax.features.opening import features_dir
from fgr_jax.features.store import try_lock
from fgr_jax.features.views import fixed_views
from fgr_jax.models.backbones.interface import Backbone
from fgr_jax.models.heads.cam import CamHead
from fgr_jax.models.network import Network, frozen_output
from fgr_jax.terminal import Terminal


@pytest.fixture
def own_dir(data_dir: Path, tmp_path: Path) -> Path:
    """A folder with the prepared data, and no features."""
    shutil.copytree(data_dir / "synthetic", tmp_path / "data" / "synthetic")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def made(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureRun:
    """A run whose features are computed, in shards of a batch."""
    folder = tmp_path_factory.mktemp("features")
    shutil.copytree(data_dir / "synthetic", folder / "synthetic")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fgr_jax.features.description.SHARD_BYTES", 1)
        run = FeatureRun.of(feature_config(folder))
        run.open()
    return run


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgr_jax.features.description.SHARD_BYTES", 1)


@pytest.mark.usefixtures("small_shards")
def test_features_are_those_of_the_fixed_views(made: FeatureRun) -> None:
    """Read by another hand: decoded, cropped, turned and put through the network one by one."""
    train, test = made.open()
    assert (len(train), train.views, len(test), test.views) == (52, 3, 27, 1)
    assert len(list(made.folders["trai"].glob("*.npy"))) == 6  # of 10 images, since 3 · 10 ≤ 32
    data = made.config.data
    forward = jax.jit(lambda image: frozen_output(made.network, made.variables, image))
    for image, view in ((0, 0), (10, 2), (51, 1)):
        example = made.sources[0][image]
        fixed = fixed_views(data, 3, image)
        (cut,) = images.crops_at(images.decode(example.encoded_image), data, [fixed.places[view]])
        expected = forward(turned(jnp.asarray(cut)[None], jnp.array([fixed.symmetries[view]])))
        batch = train.batch([(image, view), (None, 0)])
        np.testing.assert_allclose(batch["features"][0], expected[0], rtol=1e-4, atol=1e-5)
        assert not batch["features"][1].any()
        assert batch["label"].tolist() == [example.label, 0]
        assert batch["mask"].tolist() == [True, False]
    center = images.test_crops(made.sources[1][26].encoded_image, data, 1, None)
    found = test.batch([(26, 0)])["features"]
    np.testing.assert_allclose(found, forward(center), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("small_shards")
def test_eight_devices_compute_the_same(made: FeatureRun, own_dir: Path) -> None:
    config = feature_config(own_dir)
    theirs = FeatureRun(config, made.network, made.variables, made.sources)
    for one, other in zip(made.open(), theirs.open(devices=8), strict=True):
        np.testing.assert_allclose(values(one), values(other), rtol=1e-4, atol=1e-5)
        rows = [(image, 0) for image in range(len(one))]
        assert one.batch(rows)["label"].tolist() == other.batch(rows)["label"].tolist()
    assert made.folders["trai"].name == theirs.folders["trai"].name


def in_processes(data_dir: str) -> None:
    """Computes features as one process of a job."""
    compute(data_dir)


def with_folders_of_their_own(data_dir: str) -> None:
    """Does the same where no process sees the files of the others."""
    try:
        compute(f"{data_dir}-{jax.process_index()}")
    except UserError as error:
        print(f"refused: {error}")


@pytest.mark.usefixtures("small_shards")
def test_two_processes_share_the_work(made: FeatureRun, own_dir: Path) -> None:
    run_in_processes(in_processes, str(own_dir), devices=2)
    theirs = FeatureRun(feature_config(own_dir), made.network, made.variables, made.sources)
    before = files(theirs.folders["trai"])
    assert set(before) == set(files(made.folders["trai"]))
    for one, other in zip(made.open(), theirs.open(), strict=True):
        np.testing.assert_allclose(values(one), values(other), rtol=1e-4, atol=1e-5)
    assert files(theirs.folders["trai"]) == before  # nothing was computed again


def test_processes_without_a_common_folder_are_told(own_dir: Path) -> None:
    for index in (0, 1):
        shutil.copytree(own_dir / "synthetic", Path(f"{own_dir}-{index}") / "synthetic")
    printed = run_in_processes(with_folders_of_their_own, str(own_dir))
    for text in printed:
        assert "3 of 6 files that other processes wrote are not there: all processes of" in text


def start(data_dir: Path, pause: float) -> subprocess.Popen[str]:
    script = [sys.executable, str(ROOT / "tests" / "support" / "feature_runs.py")]
    return subprocess.Popen(
        [*script, str(data_dir), str(pause)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.long)])
def test_killed_at_any_moment_and_started_again(own_dir: Path, tmp_path: Path, kills: int) -> None:
    """The files are the same, byte for byte, and what was complete is not written again."""
    chance = random.Random(kills)
    folder = features_dir(str(own_dir))
    shutil.copytree(own_dir, tmp_path / "undisturbed")
    undisturbed = start(tmp_path / "undisturbed", 0)
    output, _ = undisturbed.communicate(timeout=300)
    assert undisturbed.returncode == 0, output
    complete: dict[Path, int] = {}
    for kill in range(kills):
        process = start(own_dir, 0.6 / kills)
        before = len(list(folder.glob("*/*.json")))
        while process.poll() is None and len(list(folder.glob("*/*.json"))) <= before:
            time.sleep(0.001)
        time.sleep(chance.uniform(0, 1.5 / kills))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), kill
        for path, time_ns in complete.items():
            assert path.stat().st_mtime_ns == time_ns, f"{path} was written again"
        records = list(folder.glob("*/0*.json"))
        complete = {path: path.stat().st_mtime_ns for path in records}
    process = start(own_dir, 0)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    found = {path.name: path for path in folder.iterdir()}
    theirs = {path.name: path for path in features_dir(str(tmp_path / "undisturbed")).iterdir()}
    assert found.keys() == theirs.keys()
    assert len(found) == 2
    for name, path in found.items():
        assert files(path) == files(theirs[name])


@pytest.mark.usefixtures("small_shards")
def test_a_second_job_waits_and_reads(
    made: FeatureRun, own_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = FeatureRun(feature_config(own_dir), made.network, made.variables, made.sources)
    about = describe(ours.config, ours.network, ours.variables, ours.sources[0].identity, views=3)
    folder = features_dir(str(own_dir)) / about.name
    folder.mkdir(parents=True)
    lock = try_lock(folder)
    assert lock is not None
    waiting = threading.Thread(target=lambda: ours.open(terminal=Terminal()))
    waiting.start()
    printed = ""
    while "waiting" not in printed:
        time.sleep(0.01)
        printed += capsys.readouterr().out
    assert f"waiting for another process that computes features in {folder}" in printed
    shutil.copytree(made.folders["trai"], folder, dirs_exist_ok=True)
    times = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    os.close(lock)
    waiting.join(60)
    assert not waiting.is_alive()
    assert times == {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}


@pytest.mark.usefixtures("small_shards")
def test_a_damaged_file_is_refused_and_a_missing_one_computed(
    made: FeatureRun, own_dir: Path
) -> None:
    config = feature_config(own_dir)
    ours = FeatureRun(config, made.network, made.variables, made.sources)
    shutil.copytree(made.folders["trai"].parent, features_dir(str(own_dir)))
    path = ours.folders["trai"] / "00003-0.npy"
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[1000] ^= 4
    path.write_bytes(flipped)
    with pytest.raises(UserError, match=r"00003-0\.npy is damaged: remove that file, and the same"):
        ours.open()
    path.unlink()  # as the message says
    ours.open()
    assert path.read_bytes() == content


def names(config: Config, run: FeatureRun, **changes: Any) -> tuple[str, str]:
    """The folders of both splits."""
    variables = changes.get("variables", run.variables)
    network = changes.get("network", run.network)
    identities = changes.get("identities", [source.identity for source in run.sources])
    train, test = (
        describe(config, network, variables, identity, views=views).name
        for identity, views in zip(identities, (config.data.views, 0), strict=True)
    )
    return train, test


@pytest.fixture(scope="module")
def named(made: FeatureRun) -> tuple[str, str]:
    return names(feature_config(Path(made.config.data.data_dir)), made)


@pytest.mark.parametrize(
    ("field", "value", "changed"),
    [
        ("data.resize", 40, (True, True)),
        ("data.crop", 31, (True, True)),
        ("data.resize_method", "crop", (True, True)),
        ("data.resize_method", "pad", (True, True)),
        ("data.cut_bottom", 1, (True, True)),
        ("data.corrupt_images", "skip", (True, True)),
        ("data.augmentation", "dihedral", (True, False)),
        ("data.views", 2, (True, False)),
        ("data.features_dtype", "float16", (True, True)),
        ("network.compute_dtype", "bfloat16", (True, True)),
        ("network.frozen", "layer2", (True, True)),
        ("network.last_stride", 1, (True, True)),
        ("network.head", "other", (False, False)),
        ("seed", 1, (False, False)),
        ("batch_size", 4, (False, False)),
        ("loss.k", 3, (False, False)),
        ("runtime.decode_threads", 1, (False, False)),
    ],
)
def test_features_are_named_by_what_they_depend_on(
    made: FeatureRun, named: tuple[str, str], field: str, value: Any, changed: tuple[bool, bool]
) -> None:
    config = feature_config(Path(made.config.data.data_dir))
    section, _, name = field.rpartition(".")
    setattr(getattr(config, section) if section else config, name, value)
    after = names(config, made)
    assert tuple(one != other for one, other in zip(named, after, strict=True)) == changed


def test_fields_that_came_later_do_not_rename_the_features_of_before(made: FeatureRun) -> None:
    identity = made.sources[0].identity
    about = describe(made.config, made.network, made.variables, identity, views=3).to_json()
    of_images = ("cut_bottom", "resize", "crop", "max_pixels", "corrupt_images")
    assert about["images"] == {name: getattr(made.config.data, name) for name in of_images}
    assert about["crops"] == {"random": 3, "augmentation": "flip"}


def test_other_weights_data_code_and_normalization_are_other_features(
    made: FeatureRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = names(made.config, made)

    def moved(path: str) -> Any:
        leaves = jax.tree_util.tree_map_with_path(
            lambda at, leaf: (
                leaf.at[(0,) * leaf.ndim].set(jnp.nextafter(leaf[(0,) * leaf.ndim], 9))
                if path in jax.tree_util.keystr(at)
                else leaf
            ),
            made.variables,
        )
        return names(made.config, made, variables=leaves)

    assert moved("['batch_stats']['backbone']['bn1']['mean']") != before
    assert moved("['params']['backbone']['layer3_1']['conv2']") != before
    assert moved("['params']['backbone']['layer4_0']['conv2']") == before
    assert moved("['params']['classifier']") == before
    backbone = made.network.backbone
    network = Network(backbone.clone(mean=(0.5, 0.5, 0.5)), made.network.classifier, "layer3")
    assert names(made.config, made, network=network) != before
    monkeypatch.setattr(type(backbone), "version", 2)
    assert names(made.config, made) != before
    monkeypatch.undo()
    train, test = (source.identity for source in made.sources)
    changes: list[dict[str, Any]] = [{"content": "f" * 64}, {"split": "train[:50%]"}]
    for change in changes:
        identities = [dataclasses.replace(train, **change), test]
        renamed = names(made.config, made, identities=identities)
        assert renamed[0] != before[0]
        assert renamed[1] == before[1]
    # The same images under another name, as those of a folder that was moved.
    known = dataclasses.replace(train, content="f" * 64)
    moved_folder = dataclasses.replace(known, data_set="folder/elsewhere")
    one, other = (
        names(made.config, made, identities=[each, test]) for each in (known, moved_folder)
    )
    assert one == other


def test_a_file_of_the_users_own_is_part_of_the_name(made: FeatureRun, tmp_path: Path) -> None:
    config = feature_config(Path(made.config.data.data_dir))
    (tmp_path / "mine.py").write_text("a = 1\n")
    config.network.backbone = f"{tmp_path}/mine.py:net"
    before = names(config, made)
    (tmp_path / "mine.py").write_text("a = 2\n")
    assert names(config, made) != before


def test_a_disk_that_is_too_small_is_asked_first(
    made: FeatureRun, own_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = FeatureRun(feature_config(own_dir), made.network, made.variables, made.sources)
    needed = (52 * 3 + 27) * 2 * 2 * 16 * 4
    usage = shutil.disk_usage(own_dir)

    def has(free: int) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=free))

    has(needed + opening._OVERHEAD_BYTES - 1)
    with pytest.raises(
        UserError, match=r"the features need 46\.8 kB in .*, where 10\.0 MB are fre"
    ):
        ours.open()
    assert not ours.folders
    has(needed + opening._OVERHEAD_BYTES)
    ours.open()
    has(0)  # nothing is missing
    ours.open()


def test_features_beyond_float16_are_refused(made: FeatureRun, own_dir: Path) -> None:
    config = feature_config(own_dir)
    config.data.features_dtype = "float16"
    large = jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaf * 1e6 if "layer3_1" in jax.tree_util.keystr(path) else leaf,
        made.variables,
    )
    ours = FeatureRun(config, made.network, large, made.sources)
    with pytest.raises(UserError, match=r"too large for float16: --config\.data\.feat"):
        ours.open()
    config.data.features_dtype = "bfloat16"
    train, _ = ours.open()
    assert train.batch([(0, 0)])["features"].dtype == jnp.bfloat16
    assert np.isfinite(values(train)).all()


class _TwoKinds(Backbone):
    """Patch tokens and a token of their mean, as a ViT has them between its stages."""

    stages = ("embedding", "norm")
    stride = 8

    def stage(self, name: str, x: Any, *, train: bool) -> Any:
        del train
        if name == "embedding":
            patches = nn.Conv(8, (8, 8), 8, name="patches")(x)
            return {"patches": patches, "prefix": patches.mean((1, 2))[:, None]}
        return nn.LayerNorm(name="last")(x["patches"] + x["prefix"][:, None])


def test_the_output_of_a_stage_may_be_a_tree(made: FeatureRun, own_dir: Path) -> None:
    config = feature_config(own_dir)
    config.network.frozen, config.data.features_dtype = "embedding", "float16"
    network = Network(_TwoKinds(frozen="embedding"), CamHead(4), "embedding")
    pixels = jnp.zeros((1, 32, 32, 3))
    variables = network.init(jax.random.key(0), pixels, train=False)
    ours = FeatureRun(config, network, variables, made.sources)
    train, _ = ours.open()
    batch = train.batch([(image, 1) for image in range(4)])
    shapes = jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), batch["features"])
    assert shapes == {"patches": ((4, 4, 4, 8), "float16"), "prefix": ((4, 1, 8), "float16")}
    mean = batch["features"]["patches"].astype(np.float32).mean((1, 2))
    np.testing.assert_allclose(batch["features"]["prefix"][:, 0], mean, atol=2e-3)
    outputs: Any = network.apply(variables, batch["features"], train=False, start="embedding")
    assert outputs.scores.shape == (4, 4)


@pytest.mark.parametrize("corrupt", ["skip", "stop"])
def test_corrupt_images_are_skipped_or_named(
    made: FeatureRun, own_dir: Path, corrupt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = feature_config(own_dir)
    config.data.corrupt_images = corrupt
    decode = images.decode
    broken = made.sources[0][11]

    def failing(encoded: bytes, **options: Any) -> Any:
        if encoded == broken.encoded_image:
            raise images.ImageError("is truncated")
        return decode(encoded, **options)

    monkeypatch.setattr(images, "decode", failing)
    ours = FeatureRun(config, made.network, made.variables, made.sources)
    if corrupt == "stop":
        with pytest.raises(UserError, match=f"split train: {broken.name} is truncated"):
            ours.open()
        return
    train, _ = ours.open()
    batch = train.batch([(10, 0), (11, 2), (12, 0)])
    assert batch["mask"].tolist() == [True, False, True]
    assert batch["label"][1] == 0


def test_views_need_a_frozen_part(made: FeatureRun) -> None:
    config = feature_config(Path(made.config.data.data_dir))
    config_lib.validate(config)
    config.network.frozen = ""
    with pytest.raises(
        UserError, match=r"--config\.data\.views=3: must be 0 where network\.frozen"
    ):
        config_lib.validate(config)


def test_features_are_listed_and_removed(
    made: FeatureRun, own_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = features_dir(str(own_dir))
    flag = f"--config.data.data_dir={own_dir}"
    assert command.main(["features", "--list", flag]) == 0
    assert f"there are no features in {folder}" in capsys.readouterr().out
    shutil.copytree(made.folders["trai"].parent, folder)
    (folder / "mine").mkdir()
    command.main(["features", "--list", flag])
    printed = capsys.readouterr().out
    for split, cells in {"trai": ("52", "3"), "test": ("27", "center")}.items():
        (line,) = (line for line in printed.splitlines() if made.folders[split].name in line)
        assert all(cell in line for cell in ("synthetic/tiny/1.0.0", "resnet", "layer3", *cells))
    name = made.folders["test"].name
    command.main(["features", f"--remove={name}", flag])
    assert f"removed {name}" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} == {made.folders["trai"].name, "mine"}
    for other in ("../features", "mine", name, ""):
        with pytest.raises(UserError, match="there are no features of this name"):
            command.main(["features", f"--remove={other}", flag])
    command.main(["features", "--remove=all", flag])
    assert {path.name for path in folder.iterdir()} == {"mine"}
    for arguments in ([], ["--list", "--remove=all"]):
        with pytest.raises(UserError, match="needs either --list or --remove"):
            command.main(["features", *arguments, flag])
    with pytest.raises(UserError, match=r"--config\.seed: only data\.data_dir is of use"):
        command.main(["features", "--list", "--config.seed=3"])
