"""Writes files as torch.save does, or an attacker, without PyTorch."""

import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np


def archive(path: Path, pickled: bytes, **storages: bytes) -> Path:
    """Writes a file in the format since PyTorch 1.6."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("w/data.pkl", pickled)
        for key, data in storages.items():
            file.writestr(f"w/data/{key}", data)
    return path


class Storage:
    """What PyTorch refers to by a persistent id."""

    def __init__(self, count: Any, dtype: str = "FloatStorage", key: str = "a", *view: Any):
        self.pid = ("storage", Name("torch", dtype), key, "cpu", count, *view)


class Name:
    """A module's attribute, which is written without the module."""

    def __init__(self, module: str, name: str):
        self.line = f"c{module}\n{name}\n".encode()


class Call:
    """The result of a function, as `__reduce__` returns it."""

    def __init__(self, function: Name, *arguments: Any):
        self.function, self.arguments = function, arguments


def pickled(value: Any) -> bytes:
    """Writes a pickle with the instructions of torch.save, or an attacker."""

    def write(value: Any) -> bytes:
        match value:
            case Name():
                return value.line
            case Call():
                return write(value.function) + write(value.arguments) + b"R"
            case Storage():
                return write(value.pid) + b"Q"
            case tuple():
                return b"(" + b"".join(map(write, value)) + b"t"
            case dict():
                items = b"".join(write(key) + write(each) for key, each in value.items())
                return b"}(" + items + b"u"
            case _:
                return pickle.dumps(value, 2)[2:-1]

    return b"\x80\x02" + write(value) + b"."


def tensor(storage: Any, offset: Any = 0, shape: Any = (4,), strides: Any = (1,)) -> Call:
    return Call(
        Name("torch._utils", "_rebuild_tensor_v2"), storage, offset, shape, strides, False, None
    )


def save(whole: Mapping[str, Any], path: Path) -> Path:
    """Writes nested dicts with float32 arrays."""
    storages: dict[str, bytes] = {}

    def written(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: written(each) for name, each in value.items()}
        if not isinstance(value, np.ndarray):
            return value
        array = np.ascontiguousarray(value, np.float32)
        key = str(len(storages))
        storages[key] = array.tobytes()
        strides = tuple(stride // array.itemsize for stride in array.strides)
        return tensor(Storage(array.size, key=key), 0, array.shape, strides)

    return archive(path, pickled(written(whole)), **storages)
