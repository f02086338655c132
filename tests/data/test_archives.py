"""Archives made by somebody else, and downloads that break off."""

import gzip
import hashlib
import http.server
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from fgr_jax.data.prepare import archives
from fgr_jax.data.prepare.archives import unpack
from fgr_jax.data.prepare.downloads import Archive, fetch
from fgr_jax.errors import UserError

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
    with pytest.raises(UserError, match=r"its member '.*evil' climbs out of its folder"):
        unpack(path, out, ignore)
    assert not [found for found in tmp_path.rglob("*") if found.name.endswith("evil")]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as opened:
        info = tarfile.TarInfo("passwords")
        info.type, info.linkname = kind, "/etc/passwd"
        opened.addfile(info)
    with pytest.raises(UserError, match="its member 'passwords' is a link or a device"):
        unpack(tmp_path / "x.tar", tmp_path / "out", ignore)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as zipped:
        entry = zipfile.ZipInfo("passwords")
        entry.external_attr = 0o120777 << 16
        zipped.writestr(entry, "/etc/passwd")
    with pytest.raises(UserError, match="its member 'passwords' is a link"):
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
            UserError, match=r"is damaged or cut off .*delete it and bring it again"
        ):
            unpack(path, tmp_path / "out", ignore)
    path.write_bytes(b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match="is damaged or cut off"):
        unpack(path, tmp_path / "out", ignore)
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 255
    if name != "x.tar":  # a plain tar has no checksum over its content
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="is damaged or cut off"):
            unpack(path, tmp_path / "out", ignore)


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
def test_a_broken_download_goes_on(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, ranges: bool
) -> None:
    monkeypatch.setattr(Server, "ranges", ranges)
    monkeypatch.setattr(Server, "stop_after", 1_500_000)
    with pytest.raises(
        UserError, match=r"cannot be fetched .*; 1 MiB are kept, and the same command"
    ):
        fetch(published(url), tmp_path, ignore)
    assert not (tmp_path / "x.tgz").exists()
    monkeypatch.setattr(Server, "stop_after", None)
    told: list[int] = []
    path = fetch(published(url), tmp_path, told.append)
    assert path.read_bytes() == PAYLOAD
    first, second = Server.requests
    assert first is None
    assert 1_400_000 < int(str(second).removeprefix("bytes=").removesuffix("-")) <= 1_500_000
    assert told[-1] == len(PAYLOAD)
    assert [found.name for found in tmp_path.iterdir()] == ["x.tgz"]


def test_a_download_that_was_complete_but_not_renamed(tmp_path: Path, url: str) -> None:
    (tmp_path / "x.tgz.unfinished").write_bytes(PAYLOAD)
    assert fetch(published(url), tmp_path, ignore).read_bytes() == PAYLOAD


def test_another_file_is_not_taken(tmp_path: Path, url: str) -> None:
    (tmp_path / "x.tgz.unfinished").write_bytes(b"z" * 1000)  # of something else
    with pytest.raises(UserError, match="its checksum is another"):
        fetch(published(url), tmp_path, ignore)
    assert not list(tmp_path.iterdir())
    assert fetch(published(url), tmp_path, ignore).read_bytes() == PAYLOAD


def test_a_server_that_is_not_there_or_has_no_such_file(tmp_path: Path, url: str) -> None:
    for address, reason in (("http://localhost:9", "ConnectionError"), (url + "/gone", "404")):
        with pytest.raises(UserError, match=rf"{reason}.*--source=x.tgz"):
            fetch(Archive("x.tgz", url=address), tmp_path, ignore)
    assert not list(tmp_path.iterdir())
