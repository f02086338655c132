"""Names of files that are derived from other names."""

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from fgr_jax.files.atomic import atomic_write
from fgr_jax.files.names import as_part, shortened, with_suffix

# As the file system may return them, up to its limit.
NAMES = (
    st.binary(min_size=1, max_size=255)
    .map(lambda name: name.translate(bytes(range(256)), b"\0/"))
    .filter(lambda name: name not in (b"", b".", b".."))
    .map(os.fsdecode)
) | st.text("aé中😀", min_size=200, max_size=400).map(lambda name: shortened(name))


@given(st.lists(NAMES, unique=True, max_size=5), st.text("._a", max_size=20))
def test_names_with_a_suffix_fit_and_differ(names: list[str], suffix: str) -> None:
    made = [with_suffix(name, suffix) for name in names]
    assert all(len(os.fsencode(each)) <= 255 and each.endswith(suffix) for each in made)
    assert len(set(made)) == len(names)
    short = [name for name in names if len(os.fsencode(name + suffix)) <= 255]
    assert {name + suffix for name in short} <= set(made)


def test_long_names_that_begin_alike_differ() -> None:
    names = ["x" * 254 + end for end in "abc"] + ["é" * 127 + end for end in "abc"]
    assert len({with_suffix(name, ".unfinished") for name in names}) == 6
    assert len({shortened(name, 100) for name in names}) == 6


def test_a_file_of_the_longest_name_is_written(tmp_path: Path) -> None:
    for name in ("x" * 255, "é" * 127, "\udcff" * 255):
        with atomic_write(tmp_path / name) as unfinished:
            unfinished.write_text("whole")
        assert (tmp_path / name).read_text() == "whole"
    assert len(list(tmp_path.iterdir())) == 3


@given(st.text())
def test_any_text_can_be_part_of_a_name(text: str) -> None:
    part = as_part(text)
    assert len(part) == len(text)
    assert not set(part) & set('/\\:*?"<>|\0\n\r\t\x7f')
