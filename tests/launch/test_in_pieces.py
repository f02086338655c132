"""launch/in_pieces.sh: a folder, packed, carried and unpacked."""

import os
import random
import subprocess
from pathlib import Path

import pytest
from tiny_run import ROOT

SCRIPT = ROOT / "launch" / "in_pieces.sh"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of which one is larger than a piece, in a folder with a space in its name."""
    made = tmp_path / "a data set"
    (made / "cub" / "1.0.0").mkdir(parents=True)
    (made / "cub" / "1.0.0" / "it's.array_record").write_bytes(random.Random(0).randbytes(250_000))
    (made / "empty").mkdir()
    (made / "features.json").write_text("{}")
    return made


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_what_is_unpacked_is_what_was_packed(folder: Path, tmp_path: Path) -> None:
    pieces, again = tmp_path / "to carry", tmp_path / "there" / "a data set"
    packed = run("pack", folder, pieces, "100K")
    assert packed.returncode == 0, packed.stderr
    files = sorted(pieces.glob("piece.*"))
    assert packed.stdout == f"{len(files)} pieces of at most 100K in {pieces}\n"
    assert len(files) == 3
    assert max(file.stat().st_size for file in files) == 100 * 1024
    unpacked = run("unpack", pieces, again)
    assert (unpacked.returncode, unpacked.stdout) == (0, f"{again}: written\n"), unpacked.stderr
    assert contents(again) == contents(folder)


@pytest.mark.parametrize("fault", ["missing", "cut", "changed"])
def test_a_piece_that_did_not_arrive_whole_is_an_error(
    folder: Path, tmp_path: Path, fault: str
) -> None:
    pieces, again = tmp_path / "pieces", tmp_path / "again"
    assert run("pack", folder, pieces, "100K").returncode == 0
    piece = pieces / "piece.001"
    content = piece.read_bytes()
    if fault == "missing":
        piece.unlink()
    else:
        piece.write_bytes(content[:-1] if fault == "cut" else content[:-1] + b"x")
    failed = run("unpack", pieces, again)
    assert failed.returncode == 2
    assert failed.stderr.splitlines()[-1] == f"error: {pieces}: pieces are missing or damaged"
    assert not list(tmp_path.glob("again*"))


def test_a_disk_that_is_full_leaves_nothing_behind(folder: Path, tmp_path: Path) -> None:
    """The limit of a file's size stands in for it."""
    command = f"ulimit -f 150; exec '{SCRIPT}' pack '{folder}' '{tmp_path / 'pieces'}' 1M"
    failed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert failed.returncode != 0
    assert sorted(os.listdir(tmp_path)) == [folder.name]


def test_what_is_there_is_not_overwritten(folder: Path, tmp_path: Path) -> None:
    pieces = tmp_path / "pieces"
    assert run("pack", folder, pieces).returncode == 0
    for arguments, message in {
        ("pack", folder, pieces): f"{pieces}: exists; name another folder",
        ("unpack", pieces, folder): f"{folder}: exists; name another folder",
        ("pack", tmp_path / "none", tmp_path / "p"): f"{tmp_path / 'none'}: is no folder",
        ("unpack", folder, tmp_path / "p"): f"{folder}/SHA256SUMS: is missing",
        (
            "unpack",
            pieces,
        ): "usage: launch/in_pieces.sh pack FOLDER PIECES [SIZE], or unpack PIECES FOLDER",
    }.items():
        refused = run(*arguments)
        assert (refused.returncode, refused.stderr) == (2, f"error: {message}\n")
