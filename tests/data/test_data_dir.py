"""The folder in which data sets are prepared may have any name that is UTF-8."""

from pathlib import Path

import pytest
from tiny_run import QUIET

from fgr_jax.config import Data
from fgr_jax.data.prepare.preparation import local_data_dir
from fgr_jax.data.sets.synthetic import Synthetic
from fgr_jax.data.source import open_splits
from fgr_jax.errors import UserError
from fgr_jax.files.local import local_path


@pytest.mark.parametrize(
    "name", ["Projects [2024]", "*", "a:b", "gs:", "%20#", "a\\b", "a\nb", "é"]
)
def test_a_data_set_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = str(tmp_path / name)
    Synthetic(config="tiny", data_dir=folder, file_format="array_record").download_and_prepare()
    train, test = open_splits(Data(name="synthetic/tiny", data_dir=folder), QUIET)
    assert (len(train), len(test)) == (52, 27)
    assert train[51].encoded_image


def test_a_folder_that_is_not_utf_8_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match=r"--config.data.data_dir=data\\xff: its path, .* is not UTF-8"
    ):
        local_data_dir("data\udcff")
    (tmp_path / "\udcff").mkdir()
    monkeypatch.chdir(tmp_path / "\udcff")
    with pytest.raises(UserError, match=r"\\xff/data, is not UTF-8; name another folder"):
        local_data_dir("data")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (
            "~nobody-has-this-name/data",
            "there is no user 'nobody-has-this-name'; a folder of that ",
        ),
        (
            "~nobody-has-this-name",
            "there is no user 'nobody-has-this-name'; a folder of that name is .",
        ),
        ("s3://bucket/data", "s3:// is not supported here; name a file or folder on this machine"),
        ("GS://bucket", "GS:// is not supported here"),
    ],
)
@pytest.mark.parametrize("field", ["data_dir", "folder"])
def test_paths_that_are_on_no_disk(tmp_path: Path, typed: str, told: str, field: str) -> None:
    data = Data(name="folder", folder="x", data_dir=str(tmp_path))
    setattr(data, field, typed)
    with pytest.raises(UserError) as raised:
        open_splits(data, QUIET)
    assert str(raised.value).startswith(f"--config.data.{field}={typed}: {told}")
    assert len(str(raised.value).splitlines()) == 1


def test_a_folder_that_begins_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert local_path("./~nobody-has-this-name/x", "") == tmp_path / "~nobody-has-this-name/x"
    assert local_path("~/x", "") == Path.home() / "x"
    assert local_path("a~/x", "") == Path("a~/x")
