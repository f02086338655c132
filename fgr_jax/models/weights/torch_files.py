"""Files written by `torch.save`, read without PyTorch and without executing what they hold.

Such a file is a pickle and the bytes of storages, of which tensors are views: since PyTorch 1.6 in an
uncompressed zip archive, before that one after the other. A pickle can name any function of any module
and have it called. Here only the few names that tensors and dictionaries need are resolved, to objects
of this module; any other name ends the reading.
"""

import collections
import functools
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from fgr_jax.errors import UserError

Tensors = dict[str, npt.NDArray[Any]]
BytesOf = Callable[[str], bytes]  # the bytes of a storage, by its key

_DTYPES: Mapping[str, npt.DTypeLike] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": jnp.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
# Of training programs' checkpoints, which hold more than weights. In place of these, nothing is built.
_IGNORED = {
    *(("argparse", "Namespace"), ("torch", "Size"), ("torch", "device"), ("_codecs", "encode")),
    *(
        ("numpy", "dtype"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy._core.multiarray", "scalar"),
    ),
    *(("torch", name) for name in ("float64", "float32", "float16", "bfloat16", "int64")),
}
# Where checkpoints have the weights, in this order: averaged over training first, as in timm, such as
# DINOv2's teacher.
_NESTED = ("state_dict_ema", "model_ema", "teacher", "state_dict", "model")
_PREFIX = "module."  # of torch.nn.DataParallel

# The first two pickles of the format before PyTorch 1.6.
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001


def read_torch_file(path: Path) -> Tensors:
    """Reads the tensors of a `state_dict`, which may be nested in the checkpoint of a training program.

    Raises:
      UserError: the file is damaged or holds something else.
    """
    with path.open("rb") as file:
        is_archive = file.read(4) == b"PK\3\4"
        file.seek(0)
        try:
            whole, bytes_of = (_read_archive if is_archive else _read_sequence)(file, path)
            state = _state_dict(whole, path)
            bytes_of = functools.cache(bytes_of)
            return {name: tensor.array(bytes_of) for name, tensor in state.items()}
        except UserError:
            raise
        except (
            Exception
        ) as error:  # The modules pickle and zipfile raise anything for damaged data.
            reason = str(error) or type(error).__name__
            raise UserError(f"{path} is damaged or cut off ({reason}): copy it again") from error


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[Any]


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self, bytes_of: BytesOf) -> npt.NDArray[Any]:
        """Returns a view of the storage, which cannot be written to."""
        numbers = (self.offset, *self.shape, *self.strides)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError(f"a tensor has the offset, shape and strides {numbers}")
        values = np.frombuffer(bytes_of(self.storage.key), self.storage.dtype)
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((count - 1) * stride for count, stride in steps)
        size = math.prod(self.shape)
        # The second condition keeps one value from being repeated until it fills the memory.
        if size and (last >= values.size or size > values.size):
            raise ValueError(f"a tensor of shape {self.shape} exceeds its storage")
        strides = [stride * values.itemsize for stride in self.strides]
        start = values[self.offset if size else 0 :]
        return np.lib.stride_tricks.as_strided(start, self.shape, strides, writeable=False)


class _RebuildTensor:
    """What `torch._utils._rebuild_tensor` and `_rebuild_tensor_v2` are in the file."""

    __slots__ = ()  # so that a pickle cannot change it

    def __call__(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
        if not isinstance(storage, _Storage):
            raise ValueError("a tensor has no storage")
        return _Tensor(storage, offset, tuple(shape), tuple(strides))


class _RebuildParameter:
    """What `torch._utils._rebuild_parameter` is in the file."""

    __slots__ = ()

    def __call__(self, tensor: Any, *_: Any) -> Any:
        return tensor


class _Ignored:
    """Stands for an object that is not built."""

    def __init__(self, *_: Any, **__: Any):
        """Takes and drops any arguments."""

    def __setstate__(self, state: Any) -> None:
        """Drops the attributes."""


class _Unpickler(pickle.Unpickler):
    """Reads one pickle; `storages` are those of its tensors, by key."""

    def __init__(self, file: BinaryIO, path: Path):
        _check_memo(file)
        super().__init__(file, encoding="utf-8")
        self._path = path
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Returns what a name in the file stands for here; nothing is imported."""
        if module in ("torch", "torch.cuda") and name in _DTYPES:
            return name
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if module == "torch._utils":
            if name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
                return _RebuildTensor()
            if name == "_rebuild_parameter":
                return _RebuildParameter()
        if (module, name) in _IGNORED:
            return _Ignored
        raise UserError(
            f"{self._path} holds more than tensors, {module}.{name}, which is not executed: save "
            "model.state_dict() alone, best as .safetensors"
        )

    def persistent_load(self, pid: Any) -> _Storage:
        """Returns the storage that a tensor is a view of."""
        kind, dtype, key, _, _, *view = pid
        if kind != "storage" or any(view):
            raise ValueError("a storage is a view of another one")
        return self.storages.setdefault(key, _Storage(key, np.dtype(_DTYPES[dtype])))


def _check_memo(file: BinaryIO) -> None:
    """Checks the numbers under which a pickle remembers objects: `pickle` allocates up to the highest.

    Leaves the file where it was.
    """
    start = file.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if "PUT" in opcode.name and int(argument or 0) > count:
            raise ValueError(f"an object has the number {argument}")
    file.seek(start)


def _read_archive(file: BinaryIO, path: Path) -> tuple[Any, BytesOf]:
    """Reads the format since PyTorch 1.6: an archive of a pickle and all storages."""
    archive = zipfile.ZipFile(file)
    compressed = [info.filename for info in archive.infolist() if info.compress_type]
    if compressed:
        raise ValueError(f"{compressed[0]} is compressed")
    (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
    folder = pickled.removesuffix("data.pkl")
    byte_order = f"{folder}byteorder"  # since PyTorch 2.1
    if byte_order in archive.namelist() and archive.read(byte_order) != b"little":
        raise ValueError("its numbers are big-endian")
    whole = _Unpickler(io.BytesIO(archive.read(pickled)), path).load()
    return whole, lambda key: archive.read(f"{folder}data/{key}")


def _read_sequence(file: BinaryIO, path: Path) -> tuple[Any, BytesOf]:
    """Reads the format before PyTorch 1.6: pickles, then the sizes and bytes of all storages."""
    magic, protocol, system = (_Unpickler(file, path).load() for _ in range(3))
    if (magic, protocol) != (_MAGIC, _PROTOCOL):
        raise ValueError("it does not begin as a file of torch.save")
    if not system["little_endian"]:
        raise ValueError("its numbers are big-endian")
    unpickler = _Unpickler(file, path)
    whole = unpickler.load()
    places = {}
    for key in _Unpickler(file, path).load():
        storage = unpickler.storages[key]
        count = int.from_bytes(file.read(8), "little")
        length = count * storage.dtype.itemsize
        places[key] = (file.tell(), length)
        file.seek(length, io.SEEK_CUR)

    def bytes_of(key: str) -> bytes:
        start, length = places[key]
        file.seek(start)
        data = file.read(length)
        if len(data) < length:
            raise ValueError(f"storage {key} has {len(data)} of {length} bytes")
        return data

    return whole, bytes_of


def _state_dict(whole: Any, path: Path) -> Mapping[str, _Tensor]:
    """Finds the tensors by name."""
    state = whole
    if isinstance(whole, Mapping) and not _is_state_dict(whole):
        state = next((whole[name] for name in _NESTED if _is_state_dict(whole.get(name))), whole)
    if not _is_state_dict(state):
        held = ", ".join(map(str, whole)) if isinstance(whole, Mapping) else "no dictionary"
        raise UserError(
            f"{path} is not a state_dict, tensors by name, but holds {held}: save "
            "model.state_dict() alone, best as .safetensors"
        )
    if all(name.startswith(_PREFIX) for name in state):
        state = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
    return state


def _is_state_dict(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) for name in value)
        and all(isinstance(tensor, _Tensor) for tensor in value.values())
    )
