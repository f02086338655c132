"""Whose folder it is, and what describes the run in it."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fgr_jax.config import Config, flat
from fgr_jax.data.identity import DataIdentity
from fgr_jax.errors import UserError
from fgr_jax.inference.saved_run import open_run
from fgr_jax.runs.checkpoints import Checkpoints
from fgr_jax.runs.description import Description, differing_fields, missing_fields
from fgr_jax.runs.workdir import Workdir

CUB = DataIdentity("cub/1.0.0", "train[:80%] + test[: 3]", 5994)
RUN = Description(flat(Config()), CUB, ["a", "b"])


@pytest.fixture
def folder(tmp_path: Path) -> Workdir:
    """The folder of RUN, with a checkpoint."""
    folder = Workdir.open(tmp_path / "run")
    folder.claim(RUN)
    with Checkpoints(folder.checkpoints) as checkpoints:
        checkpoints.save(1, {"w": np.ones(3)}, top1=None)
    return folder


def rewrite(folder: Workdir, name: str, value: Any) -> None:
    (folder.local / name).write_text(json.dumps(value))


def with_fields(**fields: Any) -> Description:
    """RUN with other values; a double underscore stands for a dot."""
    named = {name.replace("__", "."): value for name, value in fields.items()}
    return dataclasses.replace(RUN, config={**RUN.config, **named})


def test_the_folder_describes_the_run_that_claimed_it(folder: Workdir) -> None:
    assert folder.read() == RUN
    digest = hashlib.sha256(json.dumps(RUN.class_names).encode()).hexdigest()[:16]
    assert json.loads((folder.local / "data.json").read_text()) == {
        "data_set": "cub/1.0.0",
        "split": "train[:80%] + test[: 3]",
        "examples": 5994,
        "content": "",
        "class_names": digest,
    }
    folder.check(RUN)


def test_a_run_of_an_older_version_is_resumed(folder: Workdir) -> None:
    """Its data set is in `data.json` as a text, and its config lacks a field."""
    older = {name: value for name, value in RUN.config.items() if name != "loss.gce_fade"}
    rewrite(folder, "config.json", older)
    rewrite(folder, "data.json", "cub/1.0.0 train[:80%] + test[: 3]: 5994 examples")
    assert folder.read().data == CUB
    folder.check(RUN)
    with pytest.raises(UserError, match=r"loss.gce_fade \(there '0 steps', now '2 steps'\)"):
        folder.check(with_fields(loss__gce_fade="2 steps"))


def test_what_changes_no_result_may_change(folder: Workdir) -> None:
    folder.check(with_fields(runtime__decode_threads=77, data__data_dir="/elsewhere"))


@pytest.mark.parametrize(
    ("run", "difference"),
    [
        (with_fields(seed=3, loss__k=4), r"loss.k \(there 15, now 4\); seed \(there 0, now 3\)"),
        (
            dataclasses.replace(RUN, data=dataclasses.replace(CUB, examples=7)),
            r"data set \(there cub/1.0.0 .*: 5994 examples, now cub/1.0.0 .*: 7 examples\)",
        ),
        (dataclasses.replace(RUN, class_names=["b", "a"]), "the class names"),
    ],
)
def test_another_run_is_refused(folder: Workdir, run: Description, difference: str) -> None:
    message = rf"--workdir=\S+ belongs to a run with another config.*Differing: {difference}\. Use"
    with pytest.raises(UserError, match=message):
        folder.check(run)


def test_a_field_of_a_later_version_is_a_difference(folder: Workdir) -> None:
    rewrite(folder, "config.json", {**RUN.config, "shoes": "red"})
    with pytest.raises(UserError, match=r"shoes \(there 'red', now None\)"):
        folder.check(RUN)


def test_without_a_checkpoint_it_is_free(tmp_path: Path) -> None:
    folder = Workdir.open(tmp_path / "run")
    folder.check(RUN)
    folder.claim(RUN)
    folder.check(with_fields(seed=3))


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UserError, match=r"--workdir=\S+run: is a file; name a folder"):
        Workdir.open(tmp_path / "run").check(RUN)


@pytest.mark.parametrize(
    "value", ["images", "", 3, None, {}, {"data_set": "cub"}, "cub: 3 examples"]
)
def test_data_that_cannot_be_read_is_named(folder: Workdir, value: Any) -> None:
    rewrite(folder, "data.json", value)
    with pytest.raises(
        UserError, match=r"data.json cannot be read \(.* names no data set"
    ) as raised:
        folder.read()
    assert len(str(raised.value).splitlines()) == 1


@given(
    st.from_regex(r"[a-z_]+(/[a-z0-9_.]+)*", fullmatch=True),
    st.from_regex(r"[a-z]+(\[[0-9]*:[ 0-9]*%?\])?( \+ [a-z]+)?", fullmatch=True),
    st.integers(0, 10**9),
)
def test_an_identity_survives_as_an_object_and_as_a_text(
    data_set: str, split: str, examples: int
) -> None:
    identity = DataIdentity(data_set, split, examples)
    assert DataIdentity.from_json(json.loads(json.dumps(identity.to_json()))) == identity
    assert DataIdentity.from_json(str(identity)) == identity


def test_a_missing_field_has_its_default() -> None:
    assert not differing_fields(RUN.config, {})
    assert differing_fields({"seed": 1}, {"loss.k": 3}) == {"loss.k": (15, 3), "seed": (1, 0)}
    lacks = {name: value for name, value in RUN.config.items() if name != "seed"}
    del lacks["runtime.devices"], lacks["data.data_dir"]
    assert missing_fields(lacks) == ["seed"]


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """`content` cut anywhere, with other bytes, or replaced by another JSON value."""
    places = st.integers(0, len(content))
    cut = places.map(lambda end: content[:end])
    changed = st.tuples(places, st.binary(max_size=4)).map(
        lambda pair: content[: pair[0]] + pair[1] + content[pair[0] + len(pair[1]) :]
    )
    values = st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=9) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3)
        ),
        max_leaves=5,
    )
    others = st.sampled_from([b"", b"\0" * 99, b"[" * 100_000, content.decode().encode("utf-16")])
    return st.one_of(cut, changed, values.map(lambda value: json.dumps(value).encode()), others)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_a_description_holds_it_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = Workdir.open(tmp_path_factory.mktemp("described") / "run")
    folder.claim(with_fields(data__name="cub"))
    name = data.draw(st.sampled_from(["config.json", "classes.json", "data.json"]))
    path = folder.local / name
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    try:
        open_run(folder)
    except UserError as error:
        message = str(error)
    else:
        return
    assert name in message
    assert len(message) < 1000
    assert len(message.splitlines()) == 1


def test_a_description_that_an_editor_saved_is_read(folder: Workdir) -> None:
    """With a byte-order mark, and the line ends of another system."""
    for name in ("config.json", "classes.json", "data.json"):
        path = folder.local / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert folder.read() == RUN


def test_paths_that_are_not_utf_8_are_described(tmp_path: Path) -> None:
    run = with_fields(data__data_dir="/data/\udcff", pretrained="w\udc80.pth")
    folder = Workdir.open(tmp_path / "run\udcff")
    folder.claim(run)
    assert folder.read() == run


@pytest.mark.parametrize("url", ["s3://bucket/run", "file:///run", "hf://a/b", "https://a.b/c"])
def test_other_urls_are_no_folders(url: str) -> None:
    with pytest.raises(UserError, match=rf"--workdir={url}: [a-z0-9]+:// is not supported; name a"):
        Workdir.open(url)


@pytest.mark.parametrize(
    "names", [RUN.class_names[::-1], [*RUN.class_names[1:], "c"], RUN.class_names[1:]]
)
def test_names_of_classes_that_are_not_the_runs_are_refused(
    folder: Workdir, names: list[str]
) -> None:
    (folder.local / "classes.json").write_text(json.dumps(names))
    with pytest.raises(
        UserError, match=r"classes\.json does not hold the names of the classes that"
    ):
        folder.read()


def test_a_run_of_an_older_version_has_no_digest_of_the_names(folder: Workdir) -> None:
    data = json.loads((folder.local / "data.json").read_text())
    del data["class_names"]
    (folder.local / "data.json").write_text(json.dumps(data))
    assert folder.read() == RUN
