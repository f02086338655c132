"""A command starts again with huge pages, where the system leaves them to each process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fgr_jax import huge_pages


@pytest.mark.parametrize(
    ("modes", "given", "restarts"),
    [
        ("always [madvise] never\n", None, True),
        ("always [madvise] never\n", "", False),
        ("always [madvise] never\n", "glibc.malloc.check=0", False),
        ("[always] madvise never\n", None, False),
        ("always madvise [never]\n", None, False),
        (None, None, False),  # another system
    ],
)
def test_process_is_replaced_where_huge_pages_are_on_request(
    modes: str | None,
    given: str | None,
    restarts: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if modes is not None:
        (tmp_path / "enabled").write_text(modes)
    monkeypatch.setattr(huge_pages, "_MODES", tmp_path / "enabled")
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if given is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", given)
    started = []
    monkeypatch.setattr(os, "execv", lambda *arguments: started.append(arguments))
    huge_pages.request()
    assert started == ([(sys.executable, [sys.executable, *sys.orig_argv[1:]])] if restarts else [])
    expected = "glibc.malloc.hugetlb=1" if restarts else given
    assert os.environ.get("GLIBC_TUNABLES") == expected


def test_command_runs_once_with_its_arguments(tmp_path: Path) -> None:
    """Every interpreter that starts writes what it sees; the second one runs the command."""
    log = tmp_path / "starts"
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        f"with open({str(log)!r}, 'a') as log:\n"
        "    print(os.getpid(), os.environ.get('GLIBC_TUNABLES'), sys.orig_argv[1:], file=log)\n"
    )
    command = ["-W", "ignore", "-m", "fgr_jax.features", "--workdir=a b"]
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    path = os.pathsep.join([str(tmp_path), *filter(None, [environment.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *command],
        env={**environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("error: ") == 1
    starts = [line.split(" ", 2) for line in log.read_text().splitlines()]
    assert {arguments for *_, arguments in starts} == {str(command)}
    assert len({process for process, *_ in starts}) == 1
    modes = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    on_request = modes.exists() and "[madvise]" in modes.read_text()
    settings = [setting for _, setting, _ in starts]
    assert settings == ["None", *["glibc.malloc.hugetlb=1"] * on_request]
