"""Signals in a small process: at any moment, twice, ignored, and from a broken pipe."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent

# Imports, runs, is deferred or cleans up for as long as it is left in peace; prints where it is.
SCRIPT = """
import contextlib, hashlib, os, sys, time
from fgr_jax import output, signals
where = sys.argv[1]
signals.install()
output.guard_output()

def stay(name):
    print(name, flush=True)
    with contextlib.suppress(ValueError):
        while True:
            time.sleep(0.01)
            if where.startswith("printing"):
                print("x" * 100, flush=True)

class Finalized:
    def __del__(self):
        stay(where)

def work():
    if where == "finalizing":
        Finalized()
        time.sleep(60)
    elif where == "deferred":
        with signals.deferred(announce=lambda n: print("noted", n.name, flush=True)) as deferral:
            print(where, flush=True)
            while deferral.requested is None:
                time.sleep(0.01)
            time.sleep(0.5)  # saves
        print("saved", flush=True)
        signals.end(128 + deferral.requested)
    elif where == "in C":
        print(where, flush=True)
        hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # minutes, without a look at the handlers
    elif where == "cleaning up":
        try:
            stay(where)
        finally:
            time.sleep(0.3)
            print("cleaned up", flush=True)
    else:
        stay(where)

if where == "importing":
    stay(where)
try:
    with signals.raised():
        work()
except signals.Stopped as stopped:
    print(stopped, file=sys.stderr, flush=True)
    signals.end(128 + stopped.number)
"""


def start(where: str, **options: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(  # type: ignore[call-overload]
        [sys.executable, "-c", SCRIPT, where],
        cwd=ROOT,
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )
    if process.stdout:
        assert process.stdout.readline() == f"{where}\n"
    return process


PLACES = ("importing", "running", "finalizing", "cleaning up", "deferred")
ONES = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.mark.parametrize("where", PLACES)
@pytest.mark.parametrize("number", ONES)
def test_a_signal_ends_the_process_with_one_line(where: str, number: signal.Signals) -> None:
    process = start(where)
    process.send_signal(number)
    output, errors = process.communicate(timeout=20)
    assert process.returncode == 128 + number, errors
    assert errors == ("" if where == "deferred" else f"stopped by {number.name}\n")
    expected = {"cleaning up": "cleaned up\n", "deferred": f"noted {number.name}\nsaved\n"}
    assert output == expected.get(where, "")


@settings(max_examples=12, deadline=None)
@given(st.sampled_from(["deferred", "cleaning up"]), st.lists(st.sampled_from(ONES), min_size=2))
def test_what_follows_a_signal(where: str, numbers: list[signal.Signals]) -> None:
    """A second Ctrl-C or SIGTERM ends the process at once; the others change nothing."""
    process = start(where)
    process.send_signal(signal.SIGSTOP)  # so that all are there at once
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    for number in numbers:
        process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    output, errors = process.communicate(timeout=20)
    insisting = set(numbers) & {signal.SIGINT, signal.SIGTERM}  # of each at most one is pending
    statuses = {128 + number for number in numbers}
    assert process.returncode in statuses
    if len(insisting) == 2:
        assert errors == "stopped without saving\n"
    else:
        assert "stopped without saving" not in errors
        assert "saved" in output or "cleaned up" in output
    assert "Traceback" not in errors


def test_a_second_signal_ends_a_process_that_runs_no_handlers() -> None:
    process = start("in C")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (130, "stopped without saving\n")


def test_the_same_signal_from_a_wrapper_and_the_terminal_counts_once() -> None:
    process = start("deferred")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 130
    assert output == "noted SIGINT\nsaved\n"


@pytest.mark.parametrize(("command", "number"), [("HUP", signal.SIGHUP), ("INT", signal.SIGINT)])
def test_what_is_ignored_at_the_start_stays_ignored(command: str, number: signal.Signals) -> None:
    """As under nohup, and in the background of a script."""
    shell = ["bash", "-c", f'trap "" {command}; exec "$@"', "-"]
    for where in ("running", "deferred"):
        with subprocess.Popen(
            [*shell, sys.executable, "-c", SCRIPT, where],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            assert process.stdout.readline() == f"{where}\n"
            process.send_signal(number)
            time.sleep(0.2)
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)
        assert process.returncode == 128 + signal.SIGTERM


def test_a_reader_that_is_gone_stops_the_process() -> None:
    process = start("printing")
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    assert process.stderr.read() == "stopped by SIGPIPE\n"
    assert process.wait(20) == 128 + signal.SIGPIPE


def test_both_readers_that_are_gone_stop_it_silently() -> None:
    process = start("printing", stderr=subprocess.STDOUT)
    assert process.stdout
    process.stdout.close()
    assert process.wait(20) == 128 + signal.SIGPIPE


def test_a_pipe_of_its_own_that_breaks_is_its_own_business() -> None:
    script = """
import os, socket
from fgr_jax import signals
signals.install()
with signals.raised():
    one, other = socket.socketpair()
    other.close()
    for _ in range(3):
        try:
            one.send(b"x")
        except BrokenPipeError:
            print("an error like any other")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout == "an error like any other\n" * 3


@pytest.mark.parametrize("hangup", [True, False])
def test_a_terminal_that_is_gone(hangup: bool) -> None:
    """SIGHUP stops the process, whose words nobody reads; under nohup it stays."""
    primary, secondary = pty.openpty()
    ignored = "" if hangup else 'trap "" HUP; '
    shell = ["bash", "-c", f'{ignored}exec "$@"', "-"]
    process = subprocess.Popen(
        [*shell, sys.executable, "-c", SCRIPT, "printing"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=secondary,
        stderr=secondary,
    )
    os.close(secondary)
    assert b"printing" in os.read(primary, 1000)
    os.close(primary)  # writing gives EIO from now on
    process.send_signal(signal.SIGHUP)  # the terminal is not its controlling one
    if hangup:
        assert process.wait(20) == 128 + signal.SIGHUP
    else:
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM
