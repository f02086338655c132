"""What a user types, and the error lines for mistakes."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from absl import flags

from fgr_jax import cli
from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.errors import UserError

ROOT = Path(__file__).parent.parent

CONFIGS = ROOT / "configs"


def parse(*arguments: str, config: str = "cub.py") -> Config:
    argv = ["main.py", f"--config={CONFIGS / config}", *arguments]
    return cli.parse(argv, "usage", flags.FlagValues()).config


CONFIG_FILES = [
    path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.py") if path.parts[-2] != "sweeps"
]


@pytest.mark.parametrize("path", sorted(CONFIG_FILES), ids=str)
def test_every_config_is_valid(path: Path) -> None:
    assert isinstance(parse(config=str(path)), Config)


def test_the_paper_recipe_stands_in_the_cub_config() -> None:
    """The paper's §3.1, §3.2 and §4.2, and what they leave open, field by field."""
    fields = config_lib.flat(parse())
    for name, value in {
        "data.name": "cub",
        "pretrained": "timm/resnet50.tv_in1k",
        "data.resize": 512,
        "data.crop": 448,
        "data.augmentation": "flip",
        "network.depth": 50,
        "network.width": 1.0,
        "network.last_stride": 2,
        "batch_size": 16,
        "duration": "100 epochs",
        "optimizer.learning_rate": 0.001,
        "optimizer.momentum": 0.9,
        "optimizer.weight_decay": 1e-4,
        "optimizer.schedule": "step",
        "optimizer.decay_every": "50 epochs",
        "optimizer.decay_factor": 0.1,
        "optimizer.scale_with_batch": False,
        "diversification.alpha": 0.1,
        "diversification.p_peak": 0.5,
        "diversification.p_patch": 0.5,
        "diversification.patch_size": 3,
        "loss.k": 15,
        "loss.gce_start": "0 steps",
    }.items():
        assert fields[name] == value, name


def test_any_field_can_be_overridden() -> None:
    for name, value in config_lib.flat(Config()).items():
        changed: dict[type, Callable] = {
            bool: lambda old: not old,
            int: lambda old: old + 1,
            float: lambda old: old / 2,
            str: lambda old: old,
        }
        wanted = changed[type(value)](value)
        if name in ("network.depth", "network.last_stride", "data.name"):
            wanted = {"network.depth": 101, "network.last_stride": 1, "data.name": "cars"}[name]
        if name == "data.crop":
            wanted = 400
        needed = ["--config.network.frozen=layer3"] if name == "data.views" else []
        if name in ("data.test_share", "data.group"):
            needed = ["--config.data.split=hash", "--config.data.name=folder"]
        config = parse(f"--config.{name}={wanted}", *needed)
        assert config_lib.flat(config)[name] == wanted, name


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.batch_sise=3", "--config.batch_sise: there is no such field; did you mean "),
        ("--config.loss.kk=3", "--config.loss.kk: there is no such field; did you mean "),
        ("--config.xyzzy=3", "--config.xyzzy: there is no such field; --help lists the fields"),
        ("--config.loss.k.a=3", "--config.loss.k.a: there is no such field"),
        ("--config.batch_size=many", "--config.batch_size=many: .*'many'"),
        ("--config.optimizer.momentum=high", "--config.optimizer.momentum=high: .*'high'"),
        ("--config.loss.k=0", "--config.loss.k=0: must be at least 1"),
        ("--config.loss.k=-15", "--config.loss.k=-15: must be at least 1"),
        ("--config.batch_size=0", "--config.batch_size=0: must be between 1 and 1000000"),
        ("--config.diversification.p_peak=1.5", "p_peak=1.5: must be between 0 and 1"),
        ("--config.diversification.alpha=-1", "alpha=-1.0: must be between 0 and 1"),
        ("--config.network.depth=51", "depth=51: must be one of 18, 34, 50, 101, 152"),
        ("--config.data.crop=600", "crop=600: must be at most data.resize, which is 512"),
        ("--config.data.name=", "data.name='': must be the name of a tfds data set"),
        (
            "--config.duration=3 weeks",
            "duration='3 weeks': must be a duration such as \"500 steps\"",
        ),
        ("--config.duration=0 steps", "--config.duration='0 steps': must be .*, longer than 0$"),
        ("--config.duration=never", "--config.duration='never': must be .*, longer than 0$"),
        (
            "--config.loss.gce_start=later",
            "gce_start='later': must be a duration .*, or \"never\"$",
        ),
        ("--config.loss.gce_fade=never", "--config.loss.gce_fade='never': must be a duration"),
        ("--config.optimizer.weight_decay=inf", "decay=inf: must be at least 0, and finite"),
        ("--config.data.folder=x", "data.folder='x': must be empty where data.name is not "),
        ("--config.data.table=x", "data.table='x': must be empty where data.name is not "),
        ("--config.data.table_columns=path=1", "must be empty where data.table is empty"),
        ("--config.seed=4294967296", "--config.seed=4294967296: must be between 0 and"),
        ("--config.network.width=0", "--config.network.width=0.0: must be between "),
        ("--config.seed=-1", "--config.seed=-1: must be between 0 and"),
        ("--workdri=x", "Unknown command line flag 'workdri'"),
        ("train", "'train' is not a flag"),
    ],
)
def test_mistakes_are_named_in_one_line(argument: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        parse(argument)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_config(:", "does not work: line 1: SyntaxError: invalid syntax"),
        ("config = 1", r"does not define get_config\(\)"),
        ("def get_config(): return {}", r"must return a fgr_jax.config.Config, not dict"),
        (
            "from fgr_jax.config import Config\n"
            "def get_config():\n c = Config()\n c.loss.kk = 1\n return c",
            "does not work: line 4: AttributeError: 'Loss' object has no attribute 'kk'",
        ),
        (
            "from fgr_jax.config import Config\n"
            "def get_config():\n c = Config()\n c.data.name = 'x'\n c.loss.k = '3'\n return c",
            "config.loss.k='3': must be of type int, not str",
        ),
    ],
)
def test_a_config_file_that_does_not_work_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        cli.parse(["main.py", f"--config={path}"], "usage", flags.FlagValues())


def test_a_missing_config_file_shows_what_there_is() -> None:
    with pytest.raises(UserError, match=r"nothing.py: no such file; .*cub.py"):
        parse(config="nothing.py")
    with pytest.raises(UserError, match="no config: name one"):
        cli.parse(["main.py"], "usage", flags.FlagValues())


def test_an_objective_of_ones_own_takes_the_place_of_the_others() -> None:
    own = "--config.loss.objective=mine.py:loss"
    assert parse(own).loss.objective == "mine.py:loss"
    message = (
        "--config.loss.objective=mine.py:loss: takes the place of --config.loss.center=0.1: set"
    )
    with pytest.raises(UserError, match=message):
        parse(own, "--config.loss.center=0.1", "--config.loss.gce_start=never")


def test_the_defaults_pass_their_own_checks() -> None:
    for name, field, value in config_lib.fields(Config()):
        check = field.metadata["check"]
        assert check is None or check.holds(value) == (name != "data.name"), name


@pytest.mark.parametrize(
    "file", ["mine.py", "my config.py", "exp:1/a:b.py", "[2024]/*.py", "ex\udcff.py"]
)
@pytest.mark.parametrize(
    "arguments",
    [
        ["--config={}:7", "--config.seed=3", "--noconfig.deterministic"],
        ["--config.seed=3", "--noconfig.deterministic", "--config={}:7"],
        ["--config", "{}:7", "--config.seed", "3", "--config.deterministic=false"],
    ],
)
def test_the_config_is_made_again_of_its_arguments(
    tmp_path: Path, file: str, arguments: list[str]
) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "from fgr_jax.config import Config\n"
        "def get_config(argument):\n"
        " c = Config(batch_size=int(argument), seed=1)\n c.data.name = 'cub'\n return c"
    )
    argv = ["main.py", *(argument.format(path) for argument in arguments)]
    first = cli.parse(argv, "usage", flags.FlagValues())
    assert (first.config.batch_size, first.config.seed, first.config.deterministic) == (7, 3, False)
    assert first.config_path == path
    again = cli.parse(["main.py", *first.config_arguments], "usage", flags.FlagValues())
    assert again == first


def test_help_lists_every_field_of_the_config(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        parse("--help", "--config.seed=3", "--workdir=x")
    assert caught.value.code == 0
    printed = capsys.readouterr().out
    for name, field, _ in config_lib.fields(Config()):
        assert f"  {name} = " in printed
        assert field.metadata["documentation"] in " ".join(printed.split())
    assert "data.name = 'cub'" in printed
    assert "seed = 3" in printed


@pytest.mark.parametrize("file", ["--config={}", "-config={}", "--config {}"])
def test_overrides_may_precede_the_file(file: str) -> None:
    arguments = file.format(CONFIGS / "cub.py").split(" ")
    argv = ["main.py", "--config.seed=3", "--config.loss.k", "7", *arguments]
    config = cli.parse(argv, "usage", flags.FlagValues()).config
    assert (config.seed, config.loss.k, config.data.name) == (3, 7, "cub")


def test_a_second_config_is_refused() -> None:
    with pytest.raises(UserError, match=r"--config=other\.py: is a second config; name one file"):
        parse("--config", "other.py")


def test_help_with_a_mistake(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse("--help", "--config.nosuch=1")
    assert "  seed = 0 " in capsys.readouterr().out
    with pytest.raises(UserError, match=r"seed.*abc"):
        parse("--help", "--config.seed=abc")


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    arguments = [sys.executable, "-m", "fgr_jax.prepare", "--config=configs/cub.py", "--help"]
    with subprocess.Popen(
        arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()


@pytest.mark.parametrize(
    ("command", "arguments", "flag"),
    [
        ("main", [], "--config"),
        ("evaluate.__main__", [], "--workdir"),
        ("report.__main__", [], "--workdir"),
        ("predict.__main__", ["README.md"], "--workdir"),
        ("predict.__main__", ["README.md", "--workdir=runs/x"], "--output"),
        ("predict.__main__", ["README.md", "--workdir=runs/x"], "--heatmaps"),
        ("export.__main__", ["--format=safetensors"], "--workdir"),
        ("export.__main__", ["--workdir=runs/x"], "--output"),
        ("sweep.__main__", [], "--sweep"),
        ("sweep.__main__", ["--sweep=configs/sweeps/table4.py"], "--workdir"),
        ("prepare", ["--config=configs/cub.py"], "--source"),
        ("prepare", ["--config=configs/cub.py"], "--config.data.data_dir"),
        ("prepare", ["--config=configs/folder.py"], "--config.data.folder"),
    ],
)
def test_every_path_may_begin_with_the_home_folder(
    command: str,
    arguments: list[str],
    flag: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A shell does not replace the ~ in --output=~/predictions.csv."""
    monkeypatch.setenv("HOME", str(tmp_path))
    run = importlib.import_module(f"fgr_jax.{command}").main

    def message(path: str) -> str:
        with pytest.raises((UserError, OSError)) as caught:  # both are one line at the terminal
            run([command, *arguments, f"{flag}={path}"])
        return str(caught.value)

    assert "there is no user 'nobody-has-this-name'" in message("~nobody-has-this-name/no/file")
    (tmp_path / "file").touch()
    in_full = message(f"{tmp_path}/file/below")
    assert message("~/file/below").replace("~", str(tmp_path)) == in_full


@pytest.mark.parametrize(
    "field",
    [
        *("diversification.patch_size", "runtime.decode_threads", "runtime.decode_workers"),
        *("batch_size", "data.resize", "data.crop"),
    ],
)
def test_numbers_that_no_machine_can_use_are_refused(field: str) -> None:
    with pytest.raises(UserError, match=rf"--config\.{field}=99999999999: must be between"):
        parse(f"--config.{field}=99999999999")
