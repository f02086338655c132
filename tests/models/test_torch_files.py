"""Files of torch.save are read without PyTorch, and nothing in them is executed."""

import contextlib
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from goldens import recipe
from torch_pickles import Call, Name, Storage, archive, pickled, tensor

from fgr_jax.errors import UserError
from fgr_jax.models.weights.torch_files import Tensors, read_torch_file

FOLDER = Path(__file__).parent.parent / "goldens" / "torch_files"
STATES = ("archive", "sequence", "nested_archive", "nested_sequence")


@pytest.mark.parametrize("name", STATES)
def test_every_tensor_has_its_values_shape_and_dtype(name: str) -> None:
    assert_expected(read_torch_file(FOLDER / f"{name}.pth"))


def assert_expected(tensors: Tensors) -> None:
    expected = recipe.torch_file_tensors()
    assert tensors.keys() == expected.keys()
    for key, array in expected.items():
        dtype = jnp.bfloat16 if key == "bfloat16" else array.dtype
        assert tensors[key].dtype == dtype, key
        np.testing.assert_array_equal(tensors[key].astype(array.dtype), array, err_msg=key)


@pytest.mark.parametrize("name", STATES)
def test_a_file_cut_off_anywhere_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    data = (FOLDER / f"{name}.pth").read_bytes()
    path = tmp_path / "w.pth"
    for tenth in range(10):
        path.write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(
            UserError, match=r"w.pth is damaged or cut off .*: copy it again"
        ) as caught:
            read_torch_file(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(data[:-1])
    with pytest.raises(UserError, match="damaged or cut off"):
        read_torch_file(path)


@pytest.mark.parametrize("name", ["archive", "sequence"])
def test_flipped_bits_never_end_in_another_error(name: str, tmp_path: Path) -> None:
    data = (FOLDER / f"{name}.pth").read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / "w.pth"
    refused = 0
    for _ in range(300):
        flipped = bytearray(data)
        flipped[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        with contextlib.suppress(UserError):
            tensors = read_torch_file(path)
            refused -= 1
            if name == "archive":  # It has checksums, and bytes that nobody reads.
                assert_expected(tensors)
        refused += 1
    assert refused > 50


class Creates:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("is_archive", [True, False])
@pytest.mark.parametrize("is_nested", [True, False])
def test_nothing_is_executed(
    protocol: int, is_archive: bool, is_nested: bool, tmp_path: Path
) -> None:
    trap, path = tmp_path / "executed", tmp_path / "w.pth"
    value: Any = {"state_dict": {}, "hook": Creates(trap)} if is_nested else Creates(trap)
    data = pickle.dumps(value, protocol)
    if is_archive:
        archive(path, data)
    else:
        first = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
        path.write_bytes(b"".join(pickle.dumps(each, 2) for each in first) + data)
    with pytest.raises(UserError, match=r"more than tensors, posix.system, which is not executed"):
        read_torch_file(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *(("builtins", "eval"), ("builtins", "getattr"), ("__builtin__", "exec")),
        *(("torch", "load"), ("torch._utils", "__builtins__"), ("torch.cuda", "os")),
        *(("collections", "abc"), ("collections", "OrderedDict.fromkeys"), ("numpy", "load")),
        *(("torch._utils", "_rebuild_tensor_v2.__call__"), ("a\x1b[2J", "b\x07")),
    ],
)
def test_any_other_name_is_refused(module: str, name: str, tmp_path: Path) -> None:
    # By the two instructions for it: a line of text, and two strings.
    for instruction in (Name(module, name), None):
        data = (
            b"\x80\x04" + pickle.dumps(module, 4)[11:-1] + pickle.dumps(name, 4)[11:-1] + b"\x93."
        )
        if instruction:
            data = pickled(Call(instruction, "1 + 1"))
        with pytest.raises(UserError, match=r"more than tensors") as caught:
            read_torch_file(archive(tmp_path / "w.pth", data))
        assert str(caught.value).isprintable()


def test_a_whole_module_is_refused_by_its_name() -> None:
    with pytest.raises(
        UserError, match=r"torch.nn.modules.container.Sequential, which is not exec"
    ):
        read_torch_file(FOLDER / "module.pth")


def test_the_pickle_cannot_change_what_reads_it(tmp_path: Path) -> None:
    """The instruction BUILD sets attributes."""
    for name in (
        Name("torch._utils", "_rebuild_tensor_v2"),
        Name("torch._utils", "_rebuild_parameter"),
        Name("torch", "FloatStorage"),
        Name("collections", "OrderedDict"),
        Name("argparse", "Namespace"),
    ):
        for state in ({"x": 1}, (None, {"__call__": 1}), (None, {"__init__": 1, "__class__": 1})):
            data = pickled(name)[:-1] + pickled(state)[2:-1] + b"b."
            with pytest.raises(UserError, match=r"damaged or cut off"):
                read_torch_file(archive(tmp_path / "w.pth", data))


@pytest.mark.parametrize(
    "value",
    [
        tensor(Storage(4), shape=(5,)),
        tensor(Storage(4), offset=1),
        tensor(Storage(4), offset=-1, shape=(2,)),
        tensor(Storage(4), shape=(-1,)),
        tensor(Storage(4), strides=(-1,)),
        tensor(Storage(4), strides=(2,)),
        tensor(Storage(4), shape=(2**40,), strides=(0,)),
        tensor(Storage(4), shape=(2**62, 4), strides=(2**62, 1)),
        tensor(Storage(4), shape=(2,), strides=()),
        tensor(Storage(4), offset=1.0, shape=(2,)),
        tensor(Storage(4), shape=("2",)),
        tensor("storage"),
        tensor(Storage(4, "FloatStorage", "b")),
        tensor(Storage(4, "FloatStorage", "a", ("b", 0, 2))),
        tensor(Storage(4, "FloatStorage", "../data.pkl")),
        tensor(Storage(8), shape=(8,)),
    ],
)
def test_tensors_stay_within_their_storages(value: Any, tmp_path: Path) -> None:
    data = np.arange(4, dtype=np.float32).tobytes()
    good = read_torch_file(archive(tmp_path / "w.pth", pickled({"x": tensor(Storage(4))}), a=data))
    np.testing.assert_array_equal(good["x"], range(4))
    with pytest.raises(UserError, match=r"damaged or cut off"):
        read_torch_file(archive(tmp_path / "w.pth", pickled({"x": value}), a=data))


def test_a_number_of_an_object_cannot_fill_the_memory(tmp_path: Path) -> None:
    data = b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b"."
    with pytest.raises(UserError, match=r"an object has the number 4294967295"):
        read_torch_file(archive(tmp_path / "w.pth", data))


def test_compressed_and_big_endian_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("w/data.pkl", pickled({"x": tensor(Storage(4))}))
    with pytest.raises(UserError, match=r"w/data.pkl is compressed"):
        read_torch_file(path)
    archive(path, pickled({"x": tensor(Storage(4))}), a=bytes(16))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("w/byteorder", "big")
    with pytest.raises(UserError, match=r"its numbers are big-endian"):
        read_torch_file(path)


@pytest.mark.parametrize(
    ("value", "held"),
    [
        ({"epoch": 3, "weights": 1}, "but holds epoch, weights"),
        ([1], "but holds no dictionary"),
        ({}, "but holds"),
        ({"x": tensor(Storage(4)), "y": 3}, "but holds x, y"),
    ],
)
def test_what_is_no_state_dict_is_described(value: Any, held: str, tmp_path: Path) -> None:
    path = archive(tmp_path / "w.pth", pickled(value), a=bytes(16))
    with pytest.raises(UserError, match=rf"w.pth is not a state_dict, tensors by name, {held}"):
        read_torch_file(path)
