"""Sweeps: the runs of a table, what becomes of them, and the table and the figure."""

import csv
import dataclasses
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.stats
from absl import flags as absl_flags
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from tiny_run import ROOT, config_flags, small_config

from fgr_jax import cli
from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.data.identity import DataIdentity
from fgr_jax.errors import UserError
from fgr_jax.files import json_lines
from fgr_jax.runs.description import Description
from fgr_jax.runs.logs import write_predictions
from fgr_jax.runs.workdir import Workdir
from fgr_jax.sweep import __main__ as command_line
from fgr_jax.sweep import command, figures, tables
from fgr_jax.sweep.plan import Row, Search, Sweep, load
from fgr_jax.sweep.results import Choice, Line, Result, result

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.py"))

TINY = """
from fgr_jax.sweep.plan import Row, Sweep

def get_sweep():
    return Sweep(
        title="a tiny sweep",
        config={config!r},
        rows=[
            Row("k = 1", {{"loss.k": 1}}, paper=80.0, x=1),
            Row("no such split", {{"data.test_split": "nothing"}}, x=2),
        ],
        seeds=1,
        figure="line",
    )
"""


def sweep_command(data_dir: Path, folder: Path, duration: str) -> list[str]:
    config = small_config(data_dir)
    config.duration = duration
    base, *overrides = config_flags(config)
    overrides = [flag for flag in overrides if not flag.startswith("--config.loss.k=")]
    (folder / "tiny.py").write_text(TINY.format(config=base.removeprefix("--config=")))
    return [
        *[sys.executable, "-m", "fgr_jax.sweep", f"--sweep={folder / 'tiny.py'}"],
        *[f"--workdir={folder / 'out'}", *overrides],
    ]


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_row_of_every_sweep_is_a_run(path: Path) -> None:
    sweep = load(path)
    assert len(sweep.rows) >= 2
    for row in sweep.rows:
        overrides = [f"--config.{name}={value}" for name, value in row.overrides.items()]
        for config in (sweep.config, "configs/quickstart.py"):
            flags = [f"--config={ROOT / config}", *overrides]
            cli.parse(["main", *flags], "", absl_flags.FlagValues())


def test_a_failing_run_does_not_lose_the_others(data_dir: Path, tmp_path: Path) -> None:
    command = sweep_command(data_dir, tmp_path, "7 steps")
    for attempt in range(2):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1, done.stdout + done.stderr
        assert "error: 1 of 2 runs failed" in done.stderr
        assert "Traceback" not in done.stderr
        assert re.search(r"^k = 1, seed 0: \d+\.\d%$", done.stdout, re.MULTILINE)
        output = (tmp_path / "out" / "k-1" / "seed-0" / "output.txt").read_text()
        # Found finished, not made again.
        assert output.count("this run is finished") == attempt
    page = (tmp_path / "out" / "results.md").read_text()
    accuracy = json.loads(
        (tmp_path / "out" / "k-1" / "seed-0" / "metrics.jsonl").read_text().splitlines()[-1]
    )["top1"]
    assert f"| k = 1 | {100 * accuracy:.1f} | {100 * accuracy:.1f} | 80.0 |" in page
    assert "no split 'nothing'" in page
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "results.csv").read_text())))
    assert float(rows[0]["top1"]) == accuracy
    assert "no split 'nothing'" in rows[1]["failure"]
    assert cv2.imread(str(tmp_path / "out" / "figure.png")) is not None


def test_that_a_rate_diverges_is_a_result_of_the_search(data_dir: Path, tmp_path: Path) -> None:
    command = sweep_command(data_dir, tmp_path, "7 steps")
    sweep = (tmp_path / "tiny.py").read_text().replace("import Row", "import Row, Search")
    search = 'search=Search("optimizer.learning_rate", (0.01, 1e30)), figure="line"'
    rows = 'Row("no such split", {"data.test_split": "nothing"}, x=2),'
    sweep = sweep.replace('figure="line"', search).replace(rows, "")
    (tmp_path / "tiny.py").write_text(sweep)
    rate = "--config.optimizer.learning_rate="
    command = [flag for flag in command if not flag.startswith(rate)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search("learning_rate 1e[+]30: the loss became .* at step", done.stdout)
    page = (tmp_path / "out" / "results.md").read_text()
    assert re.search(r"[|] k = 1 [|] \d+\.\d [|] diverged [|]", page)
    assert "Failed" not in page


def test_a_stopped_sweep_goes_on(data_dir: Path, tmp_path: Path) -> None:
    command = sweep_command(data_dir, tmp_path, "400 epochs")
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    fingerprints = tmp_path / "out" / "k-1" / "seed-0" / "fingerprints.jsonl"
    deadline = time.monotonic() + 120
    while not (fingerprints.exists() and fingerprints.stat().st_size):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGTERM)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped in k = 1, seed 0; the same command resumes it" in output
    assert any(path.name.isdigit() for path in (fingerprints.parent / "checkpoints").iterdir()), (
        os.listdir(fingerprints.parent)
    )


def lines() -> list[Line]:
    def finished(seed: int, top1: float) -> Result:
        return Result(seed, Path(f"run-{seed}"), top1=top1, curve=((1.0, 0.5), (2.0, 1 - top1)))

    return [
        Line(
            Row("first | of all", {"loss.k": 3}, paper=85.5, x=1),
            (finished(0, 0.5), finished(1, 0.6)),
        ),
        Line(
            Row("second", {}, x=2), (finished(0, 0.7), Result(1, Path("run-1"), failure="no disk"))
        ),
        Line(Row("third", {}), ()),
    ]


def test_mean_and_sample_deviation() -> None:
    first, second, third = lines()
    assert first.in_words == "55.0 ± 7.1"  # √50
    assert second.in_words == "70.0"
    assert third.in_words == "–"
    sweep = Sweep("title", "configs/cub.py", [first.row, second.row])
    with_paper, without = (tables.columns(sweep, with_paper) for with_paper in (True, False))
    assert tables.cells(first, lines(), with_paper) == (
        *("first | of all", "55.0 ± 7.1", "50.0, 60.0", "85.5"),
    )
    assert tables.cells(second, lines(), without) == ("second", "70.0", "70.0, failed")


def test_a_page_says_what_failed_and_escapes_its_table() -> None:
    sweep = Sweep("title", "configs/cub.py", [line.row for line in lines()])
    page = tables.as_markdown(
        sweep, lines(), command="the command", with_paper=True, figure="f.png"
    )
    assert r"| first \| of all | 55.0 ± 7.1 | 50.0, 60.0 | 85.5 |" in page
    assert "- second, seed 1: no disk" in page
    assert "![title](f.png)" in page
    assert "`the command`" in page


def test_what_other_papers_published_stands_in_a_column_and_below() -> None:
    first, second, _ = lines()
    rows = [
        dataclasses.replace(first.row, paper=None, published="88.1 (ResNet-50)"),
        dataclasses.replace(second.row, name="b"),
    ]
    results = [dataclasses.replace(first, row=rows[0]), dataclasses.replace(second, row=rows[1])]
    sweep = Sweep("title", "configs/cub.py", rows, not_run={"RAM": "86.0: recurrent"})
    page, without = (
        tables.as_markdown(sweep, results, command="c", with_paper=with_paper, figure="")
        for with_paper in (True, False)
    )
    assert "|  | top-1, % | each seed | published |" in page
    assert "| 50.0, 60.0 | 88.1 (ResNet-50) |" in page
    assert "| b | 70.0 | 70.0, failed | – |" in page
    assert "Not run:\n\n- RAM: 86.0: recurrent" in page
    assert "published" not in without
    assert "RAM" not in without


SEARCH = Search("optimizer.learning_rate", (0.001, 0.003, 0.01))


def trained(monkeypatch: pytest.MonkeyPatch, hits: Callable[[Config], Any]) -> list[Config]:
    """Makes a sweep write results of its own, the `hits` on 100 images of class 1, and no training."""
    runs: list[Config] = []

    def run(arguments: list[str], workdir: Path) -> tuple[int, None]:
        config = cli.parse(["main", *arguments], "", absl_flags.FlagValues()).config
        runs.append(config)
        identity = DataIdentity("cub/1.0.0", config.data.train_split, 5994)
        opened = Workdir.open(workdir)
        opened.claim(Description(config_lib.flat(config), identity, ["a", "b"]))
        right = np.asarray(hits(config), np.int32)
        write_predictions(workdir, np.stack([np.ones_like(right), right], axis=1))
        record = {"step": 1, "split": "test", "loss": 1.0, "top1": right.mean(), "top5": 1.0}
        json_lines.append(workdir / "metrics.jsonl", record | {"examples": 100, "skipped": 0})
        return 0, None

    monkeypatch.setattr(command, "_run", run)
    return runs


def test_each_row_chooses_its_value_on_images_kept_out_of_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    best = {"k = 1": 0.003, "k = 2": 0.01}  # on the validation split; on the test split it is 0.001
    by_run: dict[tuple[int, int], Any] = {}

    def hits(config: Config) -> Any:
        k, rate = config.loss.k, config.optimizer.learning_rate
        if config.data.fold == "1/5":
            return np.arange(100) < (60 if rate == best[f"k = {k}"] else 50)
        assert not config.data.fold
        assert rate == best[f"k = {k}"]
        by_run[k, config.seed] = generator.random(100) < 0.5 + 0.1 * k
        return by_run[k, config.seed]

    runs = trained(monkeypatch, hits)
    (tmp_path / "sweep.py").write_text(f"""
from fgr_jax.sweep.plan import Row, Search, Sweep

def get_sweep():
    rows = [Row(f"k = {{k}}", {{"loss.k": k}}) for k in (1, 2)]
    return Sweep("a search", "{ROOT}/configs/cub.py", rows, search={SEARCH}, baseline="k = 1")
""")
    out = tmp_path / "out"
    flags = [f"--sweep={tmp_path / 'sweep.py'}", f"--workdir={out}"]
    assert command_line.main(["sweep", *flags]) == 0
    assert [config.seed for config in runs] == [0] * 6 + [0, 0, 1, 1, 2, 2]
    assert (out / "k-2" / "learning_rate-0.003").is_dir()
    page = (out / "results.md").read_text()
    difference = np.mean([by_run[2, seed] for seed in range(3)], axis=0) - np.mean(
        [by_run[1, seed] for seed in range(3)], axis=0
    )
    error = 100 * scipy.stats.sem(difference)
    header, first, second = (
        next(line for line in page.splitlines() if line.startswith(f"| {start}"))
        for start in (" |", "k = 1", "k = 2")
    )
    assert header == "|  | learning rate (validation, %) | top-1, % | each seed | − k = 1 |"
    assert "| 0.003 (60.0) |" in first
    assert first.endswith("| – |")
    assert "| 0.01 (60.0, at the end of the grid) |" in second
    assert second.endswith(f"| {100 * difference.mean():+.1f} ± {error:.1f} |")
    assert "| k = 1 | 50.0 | 60.0 | 50.0 |" in page
    assert "a search" in capsys.readouterr().out


def test_each_row_is_tested_on_every_fold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = np.random.default_rng(0)
    by_run: dict[tuple[int, str], Any] = {}

    def hits(config: Config) -> Any:
        number = int(config.data.fold[0])
        found = generator.random(90 + number) < 0.3 + 0.2 * config.loss.k  # folds of several sizes
        by_run[config.loss.k, config.data.fold] = found
        return found

    runs = trained(monkeypatch, hits)
    (tmp_path / "sweep.py").write_text(f"""
from fgr_jax.sweep.plan import Row, Sweep

def get_sweep():
    rows = [Row(f"k = {{k}}", {{"loss.k": k}}, paper=80.0) for k in (1, 2)]
    return Sweep("folds", "{ROOT}/configs/cub.py", rows, baseline="k = 1", figure="curves")
""")
    out = tmp_path / "out"
    flags = [f"--sweep={tmp_path / 'sweep.py'}", f"--workdir={out}"]
    assert command_line.main(["sweep", *flags, "--folds=3"]) == 0
    assert [(config.loss.k, config.data.fold, config.seed) for config in runs] == [
        (k, f"{fold}/3", 0) for fold in (1, 2, 3) for k in (1, 2)
    ]
    assert (out / "k-2" / "fold-3-of-3").is_dir()
    page = (out / "results.md").read_text()
    each = [100 * by_run[2, f"{fold}/3"].mean() for fold in (1, 2, 3)]
    one, two = (np.concatenate([by_run[k, f"{f}/3"] for f in (1, 2, 3)]) for k in (1, 2))
    difference = two.astype(float) - one
    assert len(difference) == 91 + 92 + 93
    assert (
        "|  | top-1, % | each fold | − k = 1 |\n" in page
    )  # without the paper's, of the test split
    assert (
        f"| k = 2 | {np.mean(each):.1f} ± {np.std(each, ddof=1):.1f} | "
        f"{', '.join(f'{value:.1f}' for value in each)} | "
        f"{100 * difference.mean():+.1f} ± {100 * scipy.stats.sem(difference):.1f} |"
    ) in page
    assert "Top-1 accuracy on each of 3 folds of the training images after the last step" in page
    rows = list(csv.DictReader(io.StringIO((out / "results.csv").read_text())))
    assert [(row["row"], row["seed"], row["fold"]) for row in rows[:3]] == [
        ("k = 1", "0", f"{fold}/3") for fold in (1, 2, 3)
    ]
    assert "k = 1, fold 1 of 3: " in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--folds=3: each fold .* leave out --seeds=2"):
        command_line.main(["sweep", *flags, "--folds=3", "--seeds=2"])
    text = (tmp_path / "sweep.py").read_text().replace("import Row", "import Search, Row")
    (tmp_path / "sweep.py").write_text(text.replace("baseline=", f"search={SEARCH}, baseline="))
    with pytest.raises(UserError, match=r"--folds=3: this sweep chooses optimizer.learning_rate"):
        command_line.main(["sweep", *flags, "--folds=3"])


def test_a_search_without_a_finished_run_decides_nothing() -> None:
    failed = Result(0, Path("learning_rate-0.001"), failure="no disk")
    line = Line(Row("row", {}), (), Choice(SEARCH, (failed,)))
    assert line.chosen == {}
    sweep = Sweep("title", "configs/cub.py", [line.row], search=SEARCH, baseline="row")
    page = tables.as_markdown(sweep, [line], command="c", with_paper=False, figure="")
    assert "| row | – | – | – | – |" in page
    assert "- row, learning\\_rate-0.001: no disk" in page


def test_a_search_whose_runs_all_diverge_has_failed() -> None:
    diverged = Result(0, Path("learning_rate-0.001"), failure="the loss became nan", diverged=True)
    choice = Choice(SEARCH, (diverged, diverged))
    assert choice.failures == [diverged, diverged]
    finished = Result(0, Path("learning_rate-0.01"), top1=0.5)
    no_disk = Result(0, Path("learning_rate-0.003"), failure="no disk")
    choice = Choice(SEARCH, (diverged, no_disk, finished))
    assert choice.failures == [no_disk]


# Of what Markdown, HTML, CSV, matplotlib and file systems give a meaning to.
_NAMES = st.lists(
    st.sampled_from([*"abc $_*`|<>[]()!#&~\\^{}=+-.,;:'\"%@1", "\n", "é", "&amp;", "**", "$x$"]),
    min_size=1,
    max_size=12,
).map("".join)


def _rows(names: list[str]) -> list[Line]:
    done = lines()[0].results
    return [
        Line(Row(name, {"loss.gce_start": name}, x=None), done)
        for name in names
        if name.strip() and Row(name, {}).folder.strip(".")
    ]


@settings(max_examples=100, deadline=None)
@given(st.lists(_NAMES, min_size=1, max_size=4), _NAMES, _NAMES)
def test_names_are_text_in_every_table(names: list[str], title: str, command: str) -> None:
    rows = _rows(names)
    sweep = Sweep(title, "configs/cub.py", [line.row for line in rows])
    page = tables.as_markdown(sweep, rows, command=command, with_paper=False, figure="")
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    inline = [token for token in tokens if token.type == "inline" and token.level == 4]
    cells = ["".join(child.content for child in token.children or []) for token in inline]
    firsts = cells[0::3][1:]
    assert firsts == [" ".join(line.row.name.split()) for line in rows]
    if not rows:
        return
    read = list(csv.DictReader(io.StringIO(tables.as_csv(rows), newline="")))
    assert [row["row"] for row in read] == [line.row.name for line in rows for _ in line.results]
    flags = [shlex.split(row["overrides"]) for row in read]
    assert flags[:: len(rows[0].results)] == [
        [f"--config.loss.gce_start={line.row.name}"] for line in rows
    ]
    folder = rows[0].row.folder
    assert "/" not in folder
    assert len(os.fsencode(folder)) <= 255


@settings(max_examples=5, deadline=None)
@given(_NAMES.filter(lambda name: not name.isspace()))
@example("$x_{$ & _y")
@example("_hidden")
def test_names_are_text_in_figures(name: str) -> None:
    drawn: list[str] = []
    line = Line(Row(name, {}), lines()[0].results)
    sweep = Sweep(name, "configs/cub.py", [line.row], figure="curves")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.extend(_texts(figure)))
        figures.draw(sweep, [line], with_paper=False)
    assert drawn == [name, name]


def _texts(figure: Figure) -> list[str]:
    """The title and the legend's label as they are drawn, without formulas."""
    [axes] = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    texts: list[Any] = [axes.title, *legend.get_texts()]
    drawn = [text._preprocess_math(text.get_text()) for text in texts]
    assert all(is_math is not True for _, is_math in drawn)
    return [text.removeprefix(" ") if text.startswith(" _") else text for text, _ in drawn]


def test_a_run_without_results_has_failed(tmp_path: Path) -> None:
    assert "has no config.json" in result(0, tmp_path, 0).failure
    config = Config()
    config.data.name = "cub"
    Workdir.open(tmp_path).claim(
        Description(config_lib.flat(config), DataIdentity("cub/1.0.0", "train", 5994), ["a", "b"])
    )
    assert result(0, tmp_path, 0).failure == "metrics.jsonl has no test results"
    (tmp_path / "metrics.jsonl").write_text("damaged\n")
    assert "line 1, is damaged" in result(0, tmp_path, 0).failure


@pytest.mark.parametrize("figure", ["points", "line", "curves"])
@pytest.mark.parametrize("with_paper", [True, False])
def test_figures_are_drawn_of_what_finished(figure: str, with_paper: bool) -> None:
    sweep = Sweep("title", "configs/cub.py", [line.row for line in lines()], figure=figure)
    image = cv2.imdecode(
        np.frombuffer(figures.draw(sweep, lines(), with_paper=with_paper), np.uint8),
        cv2.IMREAD_COLOR,
    )
    assert image is not None
    assert image.shape == (630, 1050, 3)
    assert np.std(image) > 10  # something is drawn
    assert figures.draw(sweep, lines()[2:], with_paper=with_paper) == b""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def get_sweep(:", "does not work: line 1: SyntaxError"),
        ("def get_sweep(): return 3", "must return a fgr_jax.sweep.plan.Sweep, not int"),
        (
            "from fgr_jax.sweep.plan import Row, Sweep\n"
            "def get_sweep(): return Sweep('t', 'c', [Row('a b', {}), Row('a-b', {})])",
            "two rows have the same name, 'a b' and 'a-b'",
        ),
        (
            "from fgr_jax.sweep.plan import Row, Sweep\n"
            "def get_sweep(): return Sweep('t', 'c', [Row('k = 1', {}), Row('K = 1', {})])",
            "two rows have the same name, 'k = 1' and 'K = 1'",
        ),
        (
            "from fgr_jax.sweep.plan import Row, Sweep\n"
            "def get_sweep(): return Sweep('t', 'c', [Row('..', {})])",
            r"the row '\.\.' needs a name with a letter or digit",
        ),
    ],
)
def test_a_sweep_file_that_does_not_work_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "sweep.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load(path)


def test_mistakes_are_told_before_the_first_run(tmp_path: Path) -> None:
    (tmp_path / "sweep.py").write_text(
        "from fgr_jax.sweep.plan import Row, Sweep\n"
        "def get_sweep():\n"
        "    return Sweep('t', 'configs/quickstart.py', [Row('a', {}), Row('b', {'loss.kk': 1})])\n"
    )
    for more, message in (
        ([], r"^--config\.loss\.kk: there is no such field; did you mean --config\.loss\.k\?"),
        (["--sweep=nowhere.py"], "--sweep=nowhere.py: no such file"),
        (["--seeds=0"], "--seeds"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            command_line.main(
                [
                    *["sweep", f"--sweep={tmp_path / 'sweep.py'}"],
                    *[f"--workdir={tmp_path / 'out'}", *more],
                ]
            )
        assert "\n" not in str(raised.value)
    for search, message in (
        ("Search('loss.kk', (1,))", r"^--config\.loss\.kk: there is no such field"),
        ("Search('loss.k', (3, 0))", r"^--config\.loss\.k=0: must be at least 1"),
    ):
        (tmp_path / "sweep.py").write_text(f"""
from fgr_jax.sweep.plan import Row, Search, Sweep

def get_sweep():
    return Sweep("t", "{ROOT}/configs/quickstart.py", [Row("a", {{}})], search={search})
""")
        with pytest.raises(UserError, match=message):
            command_line.main(
                ["sweep", f"--sweep={tmp_path / 'sweep.py'}", f"--workdir={tmp_path / 'out'}"]
            )
    assert not (tmp_path / "out").exists()


def test_a_field_that_is_given_for_all_runs_is_that_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the rows set it, and what would make them the same is refused."""
    runs = trained(monkeypatch, lambda _: np.arange(100) < 50)
    (tmp_path / "sweep.py").write_text(f"""
from fgr_jax.sweep.plan import Row, Search, Sweep

def get_sweep():
    rows = [Row(f"k = {{k}}", {{"loss.k": k, "duration": "9 epochs"}}) for k in (1, 2)]
    return Sweep("of one duration", "{ROOT}/configs/cub.py", rows, search={SEARCH})
""")
    flags = ["sweep", f"--sweep={tmp_path / 'sweep.py'}", f"--workdir={tmp_path / 'out'}"]
    for flag, message in {
        "loss.k=3": "the rows of this sweep differ in it",
        "optimizer.learning_rate=0.1": "this sweep has values of its own for it",
        "data.fold=1/3": "this sweep has values of its own for it",
        "seed=3": "this sweep has values of its own for it",
    }.items():
        with pytest.raises(UserError, match=rf"^--config\.{re.escape(flag)}: {message}; leave"):
            command_line.main([*flags, f"--config.{flag}"])
    assert not runs
    assert command_line.main([*flags, "--config.duration=4 steps", "--config.batch_size=8"]) == 0
    assert {(config.duration, config.batch_size) for config in runs} == {("4 steps", 8)}
    assert {config.loss.k for config in runs} == {1, 2}
