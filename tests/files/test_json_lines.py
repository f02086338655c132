"""The logs of a run after a kill, a power failure, an editor, or a fault of the disk."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.errors import UserError
from fgr_jax.files import json_lines

RECORDS: list[dict[str, Any]] = [
    {"step": 3, "split": "train", "top1": 0.1},
    {"step": 3, "split": "test", "top1": 0.25},
    {"step": 6, "split": "train", "top1": 1e-7},
    {"step": 9, "split": "test", "top1": 0.5},
]
LINES = [(json.dumps(record) + "\n").encode() for record in RECORDS]
WHOLE = b"".join(LINES)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_records_are_read_as_they_were_appended(log: Path) -> None:
    assert json_lines.read(log) == []
    for record in RECORDS:
        json_lines.append(log, record)
    assert log.read_bytes() == WHOLE
    assert json_lines.read(log) == RECORDS
    json_lines.cut_off_after(log, 9)
    assert log.read_bytes() == WHOLE
    json_lines.cut_off_after(log, 5)
    assert log.read_bytes() == b"".join(LINES[:2])


def test_cut_at_every_byte(log: Path) -> None:
    """What a killed process leaves: whole records are used, and the next one follows them."""
    for end in range(len(WHOLE) + 1):
        # The last line may lack its newline alone.
        whole = sum(end >= len(b"".join(LINES[: count + 1])) - 1 for count in range(len(LINES)))
        assert json_lines.read(write(log, WHOLE[:end])) == RECORDS[:whole]
        json_lines.append(log, RECORDS[0])
        assert json_lines.read(log) == [*RECORDS[:whole], RECORDS[0]]
        json_lines.cut_off_after(write(log, WHOLE[:end]), 5)
        assert log.read_bytes() == b"".join(LINES[: min(whole, 2)])


@pytest.mark.parametrize(
    "content",
    [
        WHOLE + b"\0" * 40,
        WHOLE + b"\0" * 40 + b"\n",
        b"".join([*LINES[:2], b"\0" * 40 + b"\n", *LINES[2:]]),
        b"".join([*LINES[:2], b"\0" * 40, *LINES[2:]]),
        b"\xef\xbb\xbf" + WHOLE,
        WHOLE.replace(b"\n", b"\r\n"),
        WHOLE.replace(b"\n", b"\n\n"),
        WHOLE.rstrip(b"\n"),
        WHOLE + b"   \n",
        WHOLE + b'{"step": 12, "split": "tra',
        WHOLE + b'{"step": 12, "split": "\xff',
    ],
)
def test_what_lost_nothing_is_used(log: Path, content: bytes) -> None:
    assert json_lines.read(write(log, content)) == RECORDS
    json_lines.append(log, {"step": 15})
    assert json_lines.read(log) == [*RECORDS, {"step": 15}]
    json_lines.cut_off_after(log, 9)
    assert log.read_bytes() == WHOLE


@pytest.mark.parametrize(
    "line",
    [
        LINES[2][:9] + b"\n",
        b'{"step": 6} {"step": 6}\n',
        b"[6]\n",
        b'"step"\n',
        b"null\n",
        b'{"split": "train"}\n',
        b'{"step": "6"}\n',
        b'{"step": true}\n',
        b'{"step": 6.0}\n',
        b'{"step": 6, "split": "\xff"}\n',
        b"[" * 100_000 + b"\n",
        WHOLE.decode().encode("utf-16"),
    ],
)
def test_a_damaged_line_is_named_unless_it_is_removed(log: Path, line: bytes) -> None:
    damaged = b"".join([*LINES[:2], line, LINES[3]])
    words = r"metrics.jsonl, line 3, is damaged \(.*\): put back a copy of the file, or remove that line"
    with pytest.raises(UserError, match=words) as raised:
        json_lines.read(write(log, damaged))
    assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(UserError, match="line 3, is damaged"):
        json_lines.cut_off_after(log, 5)  # it may be of step 5
    assert log.read_bytes() == damaged
    json_lines.cut_off_after(log, 2)  # the record before is of a later step
    assert log.read_bytes() == b""


def test_a_record_that_lacks_a_field_is_damaged(log: Path) -> None:
    fields: json_lines.Fields = {"split": str, "top1": (int, float)}
    assert json_lines.read(write(log, WHOLE), fields) == RECORDS
    with pytest.raises(UserError, match=r'line 1, is damaged \(it has no "split"'):
        json_lines.read(write(log, b'{"step": 3, "top1": 0.5}\n'), fields)
    with pytest.raises(UserError, match='it has no "top1", or another value'):
        json_lines.read(write(log, b'{"step": 3, "split": "test", "top1": null}\n'), fields)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_nothing_in_a_file_ends_in_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Bytes change, disappear, or are put in."""
    content = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 30))
        content[place : place + length] = data.draw(
            st.one_of(
                st.binary(max_size=3),
                st.sampled_from([b"\n", b"\0" * 9, b"{", b"\xef\xbb\xbf", b"\r"]),
            )
        )
    log = write(tmp_path_factory.getbasetemp() / "random.jsonl", bytes(content))
    try:
        read = json_lines.read(log)
    except UserError:
        with contextlib.suppress(UserError):
            json_lines.cut_off_after(log, 5)
        return
    assert all(isinstance(record["step"], int) for record in read)
    json_lines.cut_off_after(log, 5)
    assert json_lines.read(log) == [record for record in read if record["step"] <= 5]
