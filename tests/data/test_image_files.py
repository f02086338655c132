"""Which files below a folder are images, and what is said about the others."""

import os
import shutil
import socket
import tempfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.data import image_files
from fgr_jax.data.image_files import as_text, find_images, is_fault
from fgr_jax.data.images import SUFFIXES

PNG = cv2.imencode(".png", np.zeros((8, 8, 3), np.uint8))[1].tobytes()


def touch(*paths: Path, data: bytes = PNG) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def found(folder: Path) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in find_images(folder).files]


def left_out(folder: Path) -> dict[str, list[str]]:
    return {
        reason: [path.relative_to(folder).as_posix() for path in paths]
        for reason, paths in find_images(folder).left_out.items()
    }


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_suffix_of_an_image_is_enough(tmp_path: Path, suffix: str) -> None:
    """Whether such a file can be read is another question: it is not left out silently."""
    touch(tmp_path / f"a{suffix}", tmp_path / f"b{suffix.upper()}", data=b"")
    assert found(tmp_path) == [f"a{suffix}", f"b{suffix.upper()}"]
    assert not left_out(tmp_path)


@pytest.mark.parametrize("name", ["a", "a.", "a.jpg_large", "a.jpg?w=10", "12.5", "a.txt", "日本"])
def test_other_names_are_judged_by_the_first_bytes(tmp_path: Path, name: str) -> None:
    for suffix in (".png", ".jpg", ".bmp", ".webp", ".tif"):
        image = np.zeros((8, 8, 3), np.uint8)
        touch(tmp_path / name, data=cv2.imencode(suffix, image)[1].tobytes())
        assert found(tmp_path) == [name]
    touch(
        tmp_path / name, data=b"\0\0\0\x0cJXL \r\n\x87\n"
    )  # named when it cannot be read, not left out
    assert found(tmp_path) == [name]
    for other in (b"", b"BMW and Audi, two makes of cars", b"RIFF....WAVE", b"\xff\xfe<\0h\0"):
        touch(tmp_path / name, data=other)
        assert left_out(tmp_path) == {image_files.NO_IMAGE: [name]}
        assert not found(tmp_path)


@pytest.mark.parametrize("inside", ["", "deep/er"])
def test_litter_is_left_out_at_any_depth(tmp_path: Path, inside: str) -> None:
    folder = tmp_path / inside
    hidden = [".ipynb_checkpoints", ".git", ".Trash-1000", ".thumbs"]
    litter = ["@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found", "__pycache__"]
    for name in (*hidden, *litter):
        touch(folder / name / "copy.png")
    touch(folder / "._a.png", folder / ".DS_Store")
    touch(folder / "Thumbs.db", data=b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")
    touch(folder / "desktop.ini", data=b"[.ShellClassInfo]")
    kept = ["__background__/a.png", "_negative/a.png", "a.png", "maldito/a.png"]
    touch(*(folder / name for name in kept))
    assert find_images(tmp_path).files == [folder / name for name in kept]
    assert find_images(tmp_path).left_out == {
        image_files.HIDDEN: sorted(folder / name for name in (*hidden, "._a.png", ".DS_Store")),
        image_files.LITTER: sorted(folder / name for name in litter),
        image_files.NO_IMAGE: [folder / "Thumbs.db", folder / "desktop.ini"],
    }


def test_a_folder_in_a_hidden_folder_may_be_searched(tmp_path: Path) -> None:
    touch(tmp_path / ".cache" / "@eaDir" / "a.png")
    assert found(tmp_path / ".cache" / "@eaDir") == ["a.png"]


def test_a_run_is_left_out_and_a_folder_with_a_config_is_not(tmp_path: Path) -> None:
    for name in ("run", "no run"):
        touch(tmp_path / name / "evaluation" / "confused.png", tmp_path / name / "loss.png")
        touch(tmp_path / name / "config.json", data=b"{}")
    (tmp_path / "run" / "checkpoints").mkdir()
    assert found(tmp_path) == ["no run/evaluation/confused.png", "no run/loss.png"]
    assert left_out(tmp_path)[image_files.RUN] == ["run"]


def test_every_broken_link_is_told_as_a_fault(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    for name in ("1.jpg", "2", "folder"):
        (tmp_path / name).symlink_to(f"/nowhere/{name}")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "one").symlink_to("other")
    (tmp_path / "other").symlink_to("one")
    (tmp_path / ".#lock").symlink_to("user@host.1234")
    assert found(tmp_path) == ["a.png"]
    broken = ["1.jpg", "2", "folder", "one", "other", "self"]
    expected = {image_files.BROKEN: broken, image_files.HIDDEN: [".#lock"]}
    assert left_out(tmp_path) == expected
    assert [is_fault(reason) for reason in sorted(expected)] == [True, False]


def test_pipes_and_sockets_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "a.png")
    os.mkfifo(tmp_path / "no suffix")
    (tmp_path / "link").symlink_to("no suffix")
    monkeypatch.chdir(tmp_path)  # the path of a socket is short
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind("socket")
        assert left_out(tmp_path) == {image_files.NO_FILE: ["a.png", "link", "no suffix", "socket"]}


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"\xff.png", b"n" * 251 + b".png", b"a\nb.png"])
def test_any_name_of_a_file_or_folder(tmp_path: Path, name: bytes) -> None:
    touch(tmp_path / os.fsdecode(name), tmp_path / os.fsdecode(name[:-1]) / "a.png")
    inside = find_images(tmp_path).files
    assert sorted(map(os.fsencode, inside)) == sorted(
        os.fsencode(tmp_path) + b"/" + end for end in (name, name[:-1] + b"/a.png")
    )
    for path in inside:
        as_text(path).encode()
    assert as_text(os.fsdecode(b"caf\xe9")) == "caf\\xe9"
    assert as_text("café") == "café"


def test_a_path_too_long_for_the_system_is_named(tmp_path: Path) -> None:
    touch(tmp_path / "a.png")
    here = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=here)
        there = os.open("n" * 250, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = there
    os.close(here)
    assert found(tmp_path) == ["a.png"]
    (reason,) = find_images(tmp_path).left_out
    assert reason == "cannot be read (File name too long)"
    assert is_fault(reason)
    shutil.rmtree(tmp_path)


def test_folders_and_files_without_permission_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "a.png", tmp_path / "locked" / "b.png", tmp_path / "closed")
    scandir, opened = os.scandir, open

    # The tests may run as root, who may read everything.
    def checked(path: str | Path) -> str | Path:
        if Path(path).name in ("locked", "closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return path

    monkeypatch.setattr("os.scandir", lambda path: scandir(checked(path)))
    monkeypatch.setattr("builtins.open", lambda path, mode: opened(checked(path), mode))
    assert found(tmp_path) == ["a.png"]
    assert left_out(tmp_path) == {"cannot be read (Permission denied)": ["closed", "locked"]}
    assert find_images(tmp_path / "locked").left_out == {
        "cannot be read (Permission denied)": [tmp_path / "locked"]
    }
    (reason,) = find_images(tmp_path / "gone").left_out
    assert reason == "cannot be read (No such file or directory)"


def test_links_to_folders_above(tmp_path: Path) -> None:
    """They would add the images of other classes, over and over."""
    cat, pool = tmp_path / "train" / "cat", tmp_path / "pool"
    touch(cat / "a.png", tmp_path / "train" / "dog" / "b.png", pool / "more" / "c.png")
    touch(pool / "d.png", tmp_path / "linked" / "e.png")
    for name, target in (("all", ".."), ("latest", ".."), ("root", "/"), ("here", ".")):
        (cat / name).symlink_to(target)
    (cat / "more").symlink_to(pool / "more")
    (pool / "more" / "up").symlink_to("..")
    assert found(cat) == ["a.png", "more/c.png"]
    assert left_out(cat) == {image_files.ABOVE: ["all", "here", "latest", "more/up", "root"]}
    # A class that is a link itself has two folders above.
    (tmp_path / "train" / "bird").symlink_to(tmp_path / "linked")
    (tmp_path / "linked" / "all").symlink_to(tmp_path / "train")
    (tmp_path / "linked" / "top").symlink_to("..")
    assert found(tmp_path / "train" / "bird") == ["e.png"]
    # One folder behind two links, or beside a link to it, is read once.
    (cat / "again").symlink_to(pool / "more")
    (cat / "real").mkdir()
    (cat / "before").symlink_to("real")
    assert found(cat) == ["a.png", "again/c.png"]
    assert left_out(cat)[image_files.REPEATED] == ["before", "more"]


@settings(deadline=None)
@given(st.data())
def test_any_graph_of_folders_and_links(data: st.DataObject) -> None:
    """Every image that can be reached is found once, and under its own name if it is in the folder."""
    parents = data.draw(st.lists(st.integers(0, 5), max_size=5))
    nodes = range(len(parents) + 2)
    pairs = st.tuples(st.sampled_from(nodes), st.sampled_from(nodes))
    links = data.draw(st.lists(pairs, max_size=8))
    with tempfile.TemporaryDirectory() as name:
        outside, root = Path(name) / "outside", Path(name) / "top" / "root"
        folders = [root, outside]
        for index, parent in enumerate(parents):
            folders.append(folders[parent % len(folders)] / f"{index}")
        for folder in folders:
            touch(folder / "x.png")
        allowed: dict[Path, set[Path]] = {folder: set(folder.iterdir()) for folder in folders}
        for index, (start, end) in enumerate(links):
            source, target = folders[start], folders[end]
            (source / f"link{index}").symlink_to(target)
            if target not in (source, *source.parents):
                allowed[source].add(target)
        reached, waiting = set[Path](), [root]
        while waiting:
            folder = waiting.pop()
            if folder not in reached:
                reached.add(folder)
                waiting += [path for path in allowed[folder] if path.is_dir()]
        files = find_images(root).files
        assert files == sorted(files)
        assert sorted(path.resolve() for path in files) == sorted(
            (folder / "x.png").resolve() for folder in reached
        )
        own = {folder / "x.png" for folder in folders if root in (folder, *folder.parents)}
        assert own <= set(files)
