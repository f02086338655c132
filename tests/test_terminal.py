"""What is printed: names as data, on outputs that are narrow, ASCII, full or closed."""

import contextlib
import io
import os
import re
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pyte
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from fgr_jax.errors import shown
from fgr_jax.terminal import Terminal

ROOT = Path(__file__).parent.parent

# Meant by rich, by terminals and by codecs.
SPECIAL = (
    *("[x]", "[/]", "[bold]", "[/bold]", ":cat:", "[link=x]", r"\[", "{task.total}", "{", "%s"),
    *("a\nb", "a\rb", "\x1b[2J", "\x1b]8;;x\x1b\\", "\t", "\x85", "\u2028", "\u202etxt", "\x00"),
    *("\udcff", "\ud800", "é", "e\u0301", "猫", "🐈", "👩‍👧", "قط", "\x7f", "\x9b31m"),
)
NAMES = st.lists(st.one_of(st.sampled_from(SPECIAL), st.text(max_size=3)), max_size=4).map("".join)
ANY_NUMBER = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@contextlib.contextmanager
def printed_at(columns: int | None) -> Iterator[io.StringIO]:
    """What is printed meanwhile, on an output that is no terminal."""
    with pytest.MonkeyPatch.context() as patched, contextlib.redirect_stdout(io.StringIO()) as out:
        if columns is None:
            patched.delenv("COLUMNS", raising=False)
        else:
            patched.setenv("COLUMNS", str(columns))
        yield out


def assert_is_safe(text: str) -> None:
    text.encode("utf-8")
    for character in text:
        assert character == "\n" or unicodedata.category(character) not in ("Cc", "Zl", "Zp")
    assert "\u202e" not in text


@ANY_NUMBER
@given(NAMES)
def test_a_text_is_one_line_and_nothing_in_it_is_markup(name: str) -> None:
    with printed_at(None) as out:
        Terminal().line(f"{name}: 3")
        Terminal().warn(name)
    assert out.getvalue() == f"{shown(name)}: 3\nwarning: {shown(name)}\n"
    assert_is_safe(out.getvalue())


@ANY_NUMBER
@given(NAMES)
def test_what_is_shown_can_be_told_apart(name: str) -> None:
    assert_is_safe(shown(name))
    plain = all(unicodedata.category(c)[0] != "C" for c in name)
    if plain and "\u2028" not in name and "\u2029" not in name:
        assert shown(name) == name
    assert shown(os.fsdecode(b"a\xff\n")) == r"a\xff\n"
    assert shown("👩‍👧") == "👩‍👧"  # joined by a format character


@ANY_NUMBER
@given(
    title=NAMES,
    names=st.lists(NAMES, min_size=1, max_size=4),
    columns=st.one_of(st.none(), st.integers(min_value=20, max_value=120)),
    numbers=st.integers(min_value=1, max_value=6),
)
def test_a_table_never_loses_a_number(
    title: str, names: list[str], columns: int | None, numbers: int
) -> None:
    cells = [[f"{row}{column}.12%" for column in range(numbers)] for row in range(len(names))]
    rows = [(name, *row) for name, row in zip(names, cells, strict=True)]
    header = ("name", *(f"column {index}" for index in range(numbers)))
    with printed_at(columns) as out:
        Terminal().table(title, rows, header)
    text = out.getvalue()
    assert_is_safe(text)
    words = re.findall(r"(?<=[ │])\d+\.12%(?=[ │\n])", text)
    assert words == [cell for row in cells for cell in row]
    for index in range(numbers):
        assert f"column {index}" in text
    if columns is None:
        for name in names:
            assert f" {shown(name)} " in text
    elif "┃" in text:
        assert all(cell_len(line) <= columns for line in text.splitlines())


def test_a_narrow_table_is_a_list() -> None:
    with printed_at(20) as out:
        Terminal().table(
            "results", [("cat", "50.0%", "1.23"), ("dog", "5.0%", "4.5")], ("", "top-1", "loss")
        )
    assert out.getvalue().splitlines() == [
        *("results", "cat", "  top-1 50.0%", "  loss 1.23", "dog", "  top-1 5.0%", "  loss 4.5")
    ]


SCRIPT = """
import sys
from fgr_jax import cli, output, signals
from fgr_jax.errors import UserError
from fgr_jax.terminal import Terminal

def main(argv):
    name = "cat\\n[x]:cat:\\udcff \\u732b"
    to = Terminal()
    with to.bar(name, 3, unit="images", per=1) as bar:
        bar.update(1, name)
        to.line(name)
    to.table(name, [(name, "12.5%")], ("class", "top-1"))
    print(name)
    to.warn(name)
    if "fail" in argv:
        raise UserError(f"--config={name}")
    return 0

signals.install()
output.guard_output()
cli.run(main)
"""
SHOWN = r"cat\n[x]:cat:\xff 猫"
ASCII = r"cat\n[x]:cat:\xff \u732b"


def run(
    *arguments: str, redirected: str = "", **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f'"$@" {redirected}', "-", sys.executable, "-c", SCRIPT, *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        encoding="utf-8",
    )


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "ascii:strict"},
        {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "utf-8:strict", "PYTHONUNBUFFERED": "1"},
    ],
    ids=str,
)
def test_an_output_shows_what_its_encoding_can(environment: dict[str, str]) -> None:
    done = run("fail", **environment)
    assert done.returncode == 1
    name = ASCII if "ascii" in str(environment) or "UTF8" in str(environment) else SHOWN
    lines = done.stdout.splitlines()
    assert lines[0] == lines[1].strip() == name
    assert any(name in line and "12.5%" in line for line in lines)
    assert f"warning: {name}" in lines
    assert done.stderr == f"error: --config={name}\n"


@pytest.mark.parametrize(
    ("redirected", "status", "told"),
    [
        (">&-", 0, ""),
        (">/dev/full", 1, "error: standard output: No space left on device; some of it is lost\n"),
        (">&- 2>&-", 0, ""),
        (">/dev/full 2>/dev/full", 1, ""),
        ("<&-", 0, ""),
    ],
)
def test_an_output_that_is_closed_or_full(redirected: str, status: int, told: str) -> None:
    done = run(redirected=redirected)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.endswith(told)
    failed = run("fail", redirected=redirected)
    assert failed.returncode == 1
    if "2>" not in redirected:
        assert f"error: --config={SHOWN}\n" in failed.stderr


def test_who_kept_the_old_output_can_write_there() -> None:
    script = """
import sys
from fgr_jax.output import guard_output
kept = sys.stderr
guard_output()
print("new", file=sys.stderr)
print("old", file=kept)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr == "new\nold\n"


def test_what_is_opened_does_not_take_the_place_of_a_closed_output(tmp_path: Path) -> None:
    script = f"""
import os
from fgr_jax.output import guard_output
guard_output()
with open({str(tmp_path / "precious")!r}, "w") as file:
    os.write(1, b"printed by a library")
    os.write(2, b"printed by a library")
    file.write("precious")
"""
    subprocess.run(["bash", "-c", '"$@" >&- 2>&-', "-", sys.executable, "-c", script], cwd=ROOT)
    assert (tmp_path / "precious").read_text() == "precious"


@pytest.mark.parametrize("columns", [20, 35, 200])
def test_on_a_terminal(columns: int) -> None:
    """Through a terminal emulator: no name moves the cursor, and the bar leaves nothing."""
    primary, secondary = os.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        cwd=ROOT,
        stdin=secondary,
        stdout=secondary,
        stderr=secondary,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "60"},
    ) as process:
        os.close(secondary)
        screen = pyte.Screen(200, 60)
        stream, written = pyte.ByteStream(screen), b""
        with contextlib.suppress(OSError):  # the other end is closed
            while data := os.read(primary, 65536):
                stream.feed(data)
                written += data
    os.close(primary)
    assert process.returncode == 0
    lines = [line.rstrip() for line in screen.display if line.strip()]
    assert lines[0].startswith(r"cat\n[x]:cat:\xff")
    assert any("12.5%" in line for line in lines)
    assert lines[-1].startswith(r"warning: cat\n[x]:cat:\xff")
    if columns == 200:  # before the bar and after it
        assert re.search(r"\[x\]:cat:\\xff 猫[^\n\r]*━[^\n\r]*\[x\]:cat:\\xff 猫", written.decode())
