"""Archives that are not ours, and downloads that break off."""

import bz2
import gzip
import hashlib
import http.server
import io
import lzma
import os
import struct
import tarfile
import tempfile
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.data.prepare import archives
from fgr_jax.data.prepare.archives import unpack
from fgr_jax.data.prepare.downloads import Archive, download
from fgr_jax.data.prepare.preparation import prepare
from fgr_jax.data.sets.cub import Cub
from fgr_jax.errors import UserError
from fgr_jax.terminal import Terminal

FILES = {"data/a.txt": b"first", "data/deep/b.bin": bytes(range(256)) * 50}


def tar(path: Path, members: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as opened:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
    return path


def content(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def ignore(_: int) -> None: ...


@pytest.mark.parametrize("name", ["x.tar", "x.tgz", "x.tar.gz", "x.tar.bz2", "x.tar.xz", "x.zip"])
def test_what_was_packed_comes_out(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for member, data in FILES.items():
                opened.writestr(member, data)
    else:
        compression = {"x.tar": "", "x.tar.bz2": "bz2", "x.tar.xz": "xz"}.get(name, "gz")
        tar(path, FILES, f"w:{compression}")
    told: list[int] = []
    assert archives.is_archive(path)
    unpack(path, tmp_path / "out", told.append)
    assert content(tmp_path / "out") == FILES
    assert told[-1] == sum(map(len, FILES.values()))


def test_a_tar_of_the_folder_itself(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.jpg").write_bytes(b"first")
    with tarfile.open(tmp_path / "x.tar", "w") as opened:
        opened.add(tmp_path / "data", ".")
    unpack(tmp_path / "x.tar", tmp_path / "out", ignore)
    assert content(tmp_path / "out") == {"a.jpg": b"first"}


def test_a_tar_in_a_tar_goes_into_a_folder_of_its_name(tmp_path: Path) -> None:
    inner = tar(tmp_path / "inner", {"n01_1.JPEG": b"fish"}, "w").read_bytes()
    unpack(tar(tmp_path / "x.tar", {"n01.tar": inner}, "w"), tmp_path / "out", ignore)
    assert content(tmp_path / "out") == {"n01/n01_1.JPEG": b"fish"}


@pytest.mark.parametrize("name", ["../evil", "/evil", "data/../../evil", "..\\evil", "C:\\evil"])
@pytest.mark.parametrize("kind", ["x.tgz", "x.zip", "nested.tar"])
def test_members_that_climb_out(tmp_path: Path, name: str, kind: str) -> None:
    path, out = tmp_path / kind, tmp_path / "in" / "out"
    if kind == "x.zip":
        with zipfile.ZipFile(path, "w") as opened:
            opened.writestr(name, "x")
    elif kind == "nested.tar":
        tar(path, {"n01.tar": tar(tmp_path / "inner", {name: b"x"}, "w").read_bytes()}, "w")
    else:
        tar(path, {name: b"x"})
    with pytest.raises(UserError, match=r"its member '.*evil' lies outside the folder"):
        unpack(path, out, ignore)
    assert not [found for found in tmp_path.rglob("*") if found.name.endswith("evil")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as opened:
        info = tarfile.TarInfo("passwords")
        info.type, info.linkname = kind, "/etc/passwd"
        opened.addfile(info)
    with pytest.raises(
        UserError, match=r"'passwords' is a link or a device; nothing .* unpack it with"
    ):
        unpack(tmp_path / "x.tar", tmp_path / "out", ignore)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        entry = zipfile.ZipInfo("passwords")
        entry.external_attr = 0o120777 << 16
        zipped.writestr(entry, "/etc/passwd")
    with pytest.raises(
        UserError, match="'passwords' is a link; nothing of it is used: unpack it with"
    ):
        unpack(tmp_path / "x.zip", tmp_path / "out", ignore)
    assert not (tmp_path / "out" / "passwords").exists()


@pytest.mark.parametrize("name", ["bomb.tgz", "bomb.zip"])
def test_an_archive_that_unpacks_to_absurd_size(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_HARMLESS_BYTES", 4 << 20)
    path, size = tmp_path / name, 30 << 20
    if name.endswith("zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            opened.writestr("zeros", bytes(size))
    else:
        tar(path, {"zeros": bytes(size)})
    with pytest.raises(UserError, match="unpacks to more than 4 MiB, 20 times its own size"):
        unpack(path, tmp_path / "out", ignore)
    assert sum(len(data) for data in content(tmp_path / "out").values()) <= 4 << 20


@pytest.mark.parametrize("name", ["x.tgz", "x.zip", "x.tar", "x.tar.xz"])
def test_archives_cut_off_anywhere(tmp_path: Path, name: str) -> None:
    noise = {f"{index}.bin": os.urandom(3000) for index in range(5)}
    path = tmp_path / name
    if name.endswith("zip"):
        with zipfile.ZipFile(path, "w") as opened:
            for member, data in noise.items():
                opened.writestr(member, data)
    else:
        tar(path, noise, "w:" + {"x.tgz": "gz", "x.tar": "", "x.tar.xz": "xz"}[name])
    whole = path.read_bytes()
    for length in (0, 1, 100, 4000, len(whole) // 2, 12000):
        path.write_bytes(whole[:length])
        with pytest.raises(
            UserError, match=r"is damaged or truncated .*move it away and download it again"
        ):
            unpack(path, tmp_path / "out", ignore)
    path.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match=r"is damaged or truncated \(it is an HTML page\)"):
        unpack(path, tmp_path / "out", ignore)
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 255
    if name != "x.tar":  # a plain tar has no checksum over its content
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged or truncated"):
            unpack(path, tmp_path / "out", ignore)


def test_a_zip_of_windows(tmp_path: Path) -> None:
    """Backslashes between folders, folders as members, and UTF-8 that is not marked as such."""
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        opened.writestr("data\\", "")
        opened.writestr("data\\caf\u00e9\\", "")
        opened.writestr("data\\caf\u00e9\\a.jpg", "first")
    unmarked = bytearray((tmp_path / "x.zip").read_bytes())
    for start, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        position = unmarked.find(start)
        while position >= 0:
            unmarked[position + flags + 1] &= ~8  # the flag 0x800
            position = unmarked.find(start, position + 1)
    (tmp_path / "x.zip").write_bytes(unmarked)
    unpack(tmp_path / "x.zip", tmp_path / "out", ignore)
    assert content(tmp_path / "out") == {"data/caf\u00e9/a.jpg": b"first"}


def test_names_of_the_first_pcs_stay_those_of_the_format(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        opened.writestr("caf??.jpg", "first")
    data = (tmp_path / "x.zip").read_bytes().replace(b"caf??", b"caf\x82\x84")
    (tmp_path / "x.zip").write_bytes(data)
    # The format says so, but it may as well be Japanese.
    assert unpack(tmp_path / "x.zip", tmp_path / "out", ignore) == ["caf\u00e9\u00e4.jpg"]
    assert content(tmp_path / "out") == {"caf\u00e9\u00e4.jpg": b"first"}


def test_names_in_an_unknown_encoding_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        opened.writestr("????.txt", "first")
        opened.writestr("plain.txt", "second")
    data = (tmp_path / "x.zip").read_bytes().replace(b"????", "犬猫".encode("shift-jis"))
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.zip: holds no "):
        prepare(Cub, [tmp_path / "x.zip"], tmp_path / "tfds", Terminal())
    told = capsys.readouterr().out + capsys.readouterr().err
    assert "x.zip: 1 name in an encoding that it does not tell, such as " in " ".join(told.split())


@pytest.mark.parametrize("kind", ["x.zip", "x.tar"])
@pytest.mark.parametrize("names", [["a/b.txt", "a/b.txt"], ["a/b.txt", "a/./b.txt"]])
def test_two_files_of_one_name(tmp_path: Path, kind: str, names: list[str]) -> None:
    path = tmp_path / kind
    if kind == "x.zip":
        with zipfile.ZipFile(path, "w") as opened, warnings.catch_warnings(action="ignore"):
            for index, name in enumerate(names):
                opened.writestr(name, str(index))
    else:
        with tarfile.open(path, "w") as written:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 1
                written.addfile(info, io.BytesIO(b"x"))
    with pytest.raises(UserError, match=r"its member 'a/.*b.txt' would be the second file a/b.txt"):
        unpack(path, tmp_path / "out", ignore)


def test_two_archives_of_one_stem_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner", "w") as opened:
        opened.writestr("a.jpg", "other")
    inner = tar(tmp_path / "tar", {"a.jpg": b"first"}).read_bytes()
    members = {"y/pics.tgz": inner, "y/pics.zip": (tmp_path / "inner").read_bytes()}
    with pytest.raises(
        UserError, match=r"x.tar, y/pics.zip: its member 'a.jpg' would be the second"
    ):
        unpack(tar(tmp_path / "x.tar", members, "w"), tmp_path / "out", ignore)


def test_a_colon_is_no_drive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        opened.writestr("a:b.txt", "first")
    unpack(tmp_path / "x.zip", tmp_path / "out", ignore)
    assert content(tmp_path / "out") == {"a:b.txt": b"first"}


@pytest.mark.parametrize("change", [lambda data: data[:-30], lambda data: data + b"x" * 70000])
def test_a_zip_without_its_end(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        opened.writestr("a.txt", "first")
    (tmp_path / "x.zip").write_bytes(change((tmp_path / "x.zip").read_bytes()))
    with pytest.raises(
        UserError, match=r"damaged or truncated \(the list of its files, which is at"
    ):
        unpack(tmp_path / "x.zip", tmp_path / "out", ignore)


def test_a_zip_of_more_than_four_gigabytes_has_other_headers(tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(tmp_path / "x.zip", "w") as opened,
        opened.open("a.jpg", "w", force_zip64=True) as member,
    ):
        member.write(b"first")
    unpack(tmp_path / "x.zip", tmp_path / "out", ignore)
    assert content(tmp_path / "out") == {"a.jpg": b"first"}


def patched_zip(path: Path, local: int, central: int, value: int) -> Path:
    """Writes a zip whose only member has `value` at these places of its two headers."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("data/a.jpg", b"first" * 100)
    data = bytearray(path.read_bytes())
    data[local] = value
    data[data.find(b"PK\1\2") + central] = value
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("method", "name"), [(9, "Deflate64"), (99, "AES"), (98, "PPMd"), (1, "method 1")]
)
def test_other_compression_is_named(tmp_path: Path, method: int, name: str) -> None:
    path = patched_zip(tmp_path / "x.zip", 8, 10, method)
    with pytest.raises(
        UserError, match=rf"x.zip is a zip .*a.jpg is compressed with {name}.*unpack it"
    ):
        unpack(path, tmp_path / "out", ignore)


def test_a_password_is_named(tmp_path: Path) -> None:
    path = patched_zip(tmp_path / "x.zip", 6, 8, 1)
    with pytest.raises(
        UserError, match=r"x.zip is protected with a password: unpack it with another"
    ):
        unpack(path, tmp_path / "out", ignore)


@pytest.mark.parametrize("name", ["x.z01", "x.zip.001", "x.7z.001", "x.zip"])
def test_parts_of_an_archive_are_named(tmp_path: Path, name: str) -> None:
    patched_zip(tmp_path / name, 6, 8, 0)
    (tmp_path / "x.z01").touch()
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes() or b"PK\3\4")
    with pytest.raises(UserError, match=rf"{name} is a part of a split archive: unpack it"):
        unpack(tmp_path / name, tmp_path / "out", ignore)


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"7z\xbc\xaf\x27\x1c\0\4", "7-Zip"),
        (b"Rar!\x1a\7\1\0", "RAR"),
        (b"\x28\xb5\x2f\xfd", "Zstandard"),
        (b"\x1f\x9d\x90", "Unix compress"),
        (b"\x04\x22M\x18", "LZ4"),
        (b"LZIP\1", "lzip"),
    ],
)
@pytest.mark.parametrize("name", ["x.7z", "x.zip", "no suffix"])
def test_other_archives_are_named(tmp_path: Path, start: bytes, kind: str, name: str) -> None:
    (tmp_path / name).write_bytes(start + bytes(999))
    assert archives.is_archive(tmp_path / name)
    with pytest.raises(
        UserError, match=f"{name} is an? {kind} archive, which is not read: unpack it"
    ):
        unpack(tmp_path / name, tmp_path / "out", ignore)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_files_that_are_no_tars_are_named(tmp_path: Path, kind: str) -> None:
    compress = COMPRESSORS[kind]
    contents = {
        "a JPEG": b"\xff\xd8\xff" + os.urandom(3000),
        "a gzip archive": tar(tmp_path / "inner", FILES).read_bytes(),
        "a file of an unknown kind": b"\x80" + os.urandom(3000),
    }
    for name, data in contents.items():
        path = tmp_path / "x.gz"
        path.write_bytes(compress(data))
        told = f"x.gz is an? {kind} archive of {name}, not of a tar archive: unpack it with another"
        with pytest.raises(UserError, match=told):
            unpack(path, tmp_path / "out", ignore)
        path.write_bytes(compress(data)[:-1])  # a damaged file may hold anything
        with pytest.raises(UserError, match=r"x.gz is damaged or truncated"):
            unpack(path, tmp_path / "out", ignore)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 20000), st.integers(0, 300)), max_size=3),
    st.booleans(),
    st.sampled_from([100, 1 << 20]),
)
def test_an_xz_file_may_have_streams_and_padding(
    cuts: list[tuple[int, int]], cut: bool, chunk: int
) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as changed:
        folder = Path(name)
        whole = tar(folder / "x", FILES, "w").read_bytes()
        cuts = sorted(cuts)
        ends = [*(end for end, _ in cuts), len(whole)]
        starts = [0, *ends[:-1]]
        packed = b""
        for start, end, words in zip(starts, ends, [*(n for _, n in cuts), 2], strict=True):
            packed += lzma.compress(whole[start:end]) + bytes(4 * words)
        path = folder / "x.tar.xz"
        path.write_bytes(packed[: len(packed) - 12] if cut else packed)
        changed.setattr(archives, "_CHUNK", chunk)
        if cut:
            with pytest.raises(UserError, match=r"is damaged or truncated"):
                unpack(path, folder / "out", ignore)
        else:
            unpack(path, folder / "out", ignore)
            assert content(folder / "out") == FILES


@pytest.mark.parametrize("attributes", [0x10, 0o40755 << 16, 0x10 | 0o40755 << 16])
def test_a_folder_in_a_zip_that_only_its_attributes_tell(tmp_path: Path, attributes: int) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        entry = zipfile.ZipInfo("data")
        entry.external_attr = attributes
        opened.writestr(entry, b"")
        opened.writestr("data/a.jpg", b"first")
        entry = zipfile.ZipInfo("b.jpg")  # what has content is a file
        entry.external_attr = attributes
        opened.writestr(entry, b"second")
    unpack(tmp_path / "x.zip", tmp_path / "out", ignore)
    assert content(tmp_path / "out") == {"data/a.jpg": b"first", "b.jpg": b"second"}


@settings(deadline=None, max_examples=15)
@given(st.text(st.characters(codec="utf-8", categories=["L", "N"]), min_size=1, max_size=20))
def test_names_in_the_field_for_unicode_are_used(name: str) -> None:
    for short, is_current in ((b"????", True), (b"\x82\x84\xe9", True), (b"old", False)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.zip"
            checksum = zlib.crc32(short if is_current else b"renamed")
            field = struct.pack("<BI", 1, checksum) + f"{name}.jpg".encode()
            other = struct.pack("<HHI", 0x5455, 4, 7)
            with zipfile.ZipFile(path, "w") as opened:
                entry = zipfile.ZipInfo("x" * len(short))
                entry.extra = other + struct.pack("<HH", 0x7075, len(field)) + field
                opened.writestr(entry, b"first")
            path.write_bytes(path.read_bytes().replace(b"x" * len(short), short))
            assert unpack(path, Path(folder) / "out", ignore) == []
            expected = f"{name}.jpg" if is_current else "old"
            assert content(Path(folder) / "out") == {expected: b"first"}


@pytest.mark.parametrize("kind", ["x.zip", "x.tar", "x.tgz", "of folders.zip", "of folders.tar"])
def test_an_empty_archive(tmp_path: Path, kind: str) -> None:
    if kind.endswith("zip"):
        with zipfile.ZipFile(tmp_path / kind, "w") as opened:
            if "folders" in kind:
                opened.writestr("data/", "")
    else:
        with tarfile.open(tmp_path / kind, "w:gz" if kind == "x.tgz" else "w") as written:
            if "folders" in kind:
                folder = tarfile.TarInfo("data")
                folder.type = tarfile.DIRTYPE
                written.addfile(folder)
    with pytest.raises(UserError, match=rf"{kind} holds no files: download it again"):
        unpack(tmp_path / kind, tmp_path / "out", ignore)


def test_archives_in_archives(tmp_path: Path) -> None:
    """They are unpacked beside themselves, three deep; what only has their name is left alone."""

    def zipped(members: dict[str, bytes]) -> bytes:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as opened:
            for name, data in members.items():
                opened.writestr(name, data)
        return packed.getvalue()

    deepest = zipped({"d.zip": zipped({"e.jpg": b"5"})})
    tgz = tar(tmp_path / "y", {"n/c.jpg": b"3", "deep.ZIP": deepest}).read_bytes()
    whole = zipped(
        {
            "a.jpg": b"1",
            "data/cars.zip": zipped({"b.jpg": b"2"}),
            "images.tar.gz": tgz,
            "__MACOSX/._cars.zip": b"\0\5\x16\7",
            "page.zip": b"<html>",
        }
    )
    (tmp_path / "x.zip").write_bytes(whole)
    unpack(tmp_path / "x.zip", tmp_path / "out", ignore)
    assert content(tmp_path / "out") == {
        "a.jpg": b"1",
        "data/cars/b.jpg": b"2",
        "images/n/c.jpg": b"3",
        "images/deep/d.zip": zipped({"e.jpg": b"5"}),
        "__MACOSX/._cars.zip": b"\0\5\x16\7",
        "page.zip": b"<html>",
    }
    (tmp_path / "y.zip").write_bytes(zipped({"data/cars.zip": zipped({"b.jpg": b"2"})[:-9] + b"x"}))
    with pytest.raises(UserError, match=r"y.zip, data/cars.zip is damaged or truncated"):
        unpack(tmp_path / "y.zip", tmp_path / "y out", ignore)


def test_an_archive_in_an_archive_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_HARMLESS_BYTES", 4 << 20)
    inner = tmp_path / "inner.zip"
    with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("zeros", bytes(5 << 20))
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as opened:
        opened.write(inner, "inner.zip")
    with pytest.raises(UserError, match=r"x.zip unpacks to more than 4 MiB"):
        unpack(tmp_path / "x.zip", tmp_path / "out", ignore)


@pytest.mark.parametrize(
    "names", [["a/b", "a"], ["a", "a/b"], ["."], ["n" * 300], ["a/" * 3000 + "b"]]
)
@pytest.mark.parametrize("kind", ["x.zip", "x.tar"])
def test_names_that_no_folder_can_hold(tmp_path: Path, names: list[str], kind: str) -> None:
    if kind == "x.zip":
        with zipfile.ZipFile(tmp_path / kind, "w") as opened:
            for name in names:
                opened.writestr(name, "x")
    else:
        tar(tmp_path / kind, dict.fromkeys(names, b"x"), "w")
    told = "( is damaged| has names that are too long|: its member '.' is a file without a name)"
    with pytest.raises(UserError, match=kind + told):
        unpack(tmp_path / kind, tmp_path / "out", ignore)


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(["zip", "w:", "w:gz", "w:bz2", "w:xz"]),
    st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=3),
    st.floats(0, 2),
)
def test_a_damaged_archive_is_unpacked_or_refused_in_one_line(
    kind: str, damages: list[tuple[float, bytes]], length: float
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "x"
        if kind == "zip":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
                for member, data in FILES.items():
                    opened.writestr(member, data[:900])
        else:
            tar(path, {member: data[:900] for member, data in FILES.items()}, kind)
        whole = bytearray(path.read_bytes())
        for place, damage in damages:
            start = round(place * len(whole))
            whole[start : start + len(damage)] = damage
        path.write_bytes(whole[: round(length * len(whole))])
        refusal = str(path)
        try:
            unpack(path, folder / "out", ignore)
        except UserError as error:
            refusal = str(error)
        assert len(refusal.splitlines()) == 1
        assert str(path) in refusal


PAYLOAD = gzip.compress(os.urandom(3 << 20))


class Server(http.server.BaseHTTPRequestHandler):
    """Serves PAYLOAD, with ranges; breaks off after `stop_after` bytes of an answer."""

    stop_after: ClassVar[int | None] = None
    ranges: ClassVar[bool] = True
    requests: ClassVar[list[str | None]] = []

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        type(self).requests.append(wanted)
        if self.path == "/gone":
            self.send_error(404)
            return
        start = (
            int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.ranges else 0
        )
        if start >= len(PAYLOAD):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(PAYLOAD) - start))
        self.end_headers()
        body = PAYLOAD[start:]
        self.wfile.write(body if self.stop_after is None else body[: self.stop_after])

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(Server, "stop_after", None)
    monkeypatch.setattr(Server, "ranges", True)
    monkeypatch.setattr(Server, "requests", [])
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("localhost", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()


def published(url: str) -> Archive:
    checksum = "sha256:" + hashlib.sha256(PAYLOAD).hexdigest()
    return Archive("x.tgz", url=url + "/x.tgz", size=len(PAYLOAD), checksum=checksum)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_is_resumed(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    monkeypatch.setattr(Server, "ranges", ranges)
    monkeypatch.setattr(Server, "stop_after", 1_500_000)
    with pytest.raises(
        UserError, match=r"cannot be downloaded .*; 1 MiB are kept, and the same command"
    ):
        download(published(url), tmp_path, ignore)
    assert not (tmp_path / "x.tgz").exists()
    monkeypatch.setattr(Server, "stop_after", None)
    told: list[int] = []
    path = download(published(url), tmp_path, told.append)
    assert path.read_bytes() == PAYLOAD
    first, second = Server.requests
    assert first is None
    assert 1_400_000 < int(str(second).removeprefix("bytes=").removesuffix("-")) <= 1_500_000
    assert told[-1] == len(PAYLOAD)
    assert [found.name for found in tmp_path.iterdir()] == ["x.tgz"]


def test_a_download_that_was_complete_but_not_renamed(tmp_path: Path, url: str) -> None:
    (tmp_path / "x.tgz.unfinished").write_bytes(PAYLOAD)
    assert download(published(url), tmp_path, ignore).read_bytes() == PAYLOAD


def test_another_file_is_not_taken(tmp_path: Path, url: str) -> None:
    (tmp_path / "x.tgz.unfinished").write_bytes(b"z" * 1000)  # of something else
    with pytest.raises(UserError, match="the checksum differs"):
        download(published(url), tmp_path, ignore)
    assert not list(tmp_path.iterdir())
    assert download(published(url), tmp_path, ignore).read_bytes() == PAYLOAD


def test_a_server_that_is_not_there_or_has_no_such_file(tmp_path: Path, url: str) -> None:
    for address, reason in (("http://localhost:9", "ConnectionError"), (url + "/gone", "404")):
        with pytest.raises(UserError, match=rf"{reason}.*--source=x.tgz"):
            download(Archive("x.tgz", url=address), tmp_path, ignore)
    assert not list(tmp_path.iterdir())
