"""The folder in which data sets are prepared may have any name that is UTF-8."""

from pathlib import Path

import pytest
from tiny_run import QUIET

from fgr_jax.config import Data
from fgr_jax.data.prepare.preparation import local_data_dir
from fgr_jax.data.sets.synthetic import Synthetic
from fgr_jax.data.source import open_splits
from fgr_jax.errors import UserError


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


def test_the_home_of_nobody_is_a_name() -> None:
    assert local_data_dir("~nobody-has-this-name/data") == Path("~nobody-has-this-name/data")
