"""The correspondence between a network's variables and the tensors of a weight file.

Each backbone has a table of it, which is used in both directions.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.traverse_util
import numpy as np
import numpy.typing as npt

from fgr_jax.errors import UserError
from fgr_jax.models.weights import positions

Array = npt.NDArray[Any]
Tensors = dict[str, Array]  # by the names of the file
Variables = dict[str, Any]  # {"params": ..., "batch_stats": ...}, as `Network.init` gives them


class Layout(NamedTuple):
    """Conversions of a tensor's axes between the two layouts.

    `fit` converts a tensor of a file to the shape that the network needs there, where that is possible.
    """

    to_ours: Callable[[Array], Array]
    to_torch: Callable[[Array], Array]
    fit: Callable[[Array, tuple[int, ...]], Array] = lambda tensor, _: tensor


_AS_IT_IS = Layout(lambda tensor: tensor, lambda array: array)
_OIHW = Layout(  # and HWIO
    lambda tensor: tensor.transpose(2, 3, 1, 0), lambda array: array.transpose(3, 2, 0, 1)
)
_TRANSPOSED = Layout(lambda tensor: tensor.T, lambda array: array.T)
_FULLY_CONNECTED = Layout(  # [C, D] and the equivalent kernel of a 1×1 convolution
    lambda tensor: tensor.T[None, None], lambda array: array[0, 0].T
)

# Of a kind of module: its variable -> the end of the tensor's name, and the layout.
Kind = Mapping[str, tuple[str, Layout]]

CONVOLUTION: Kind = {"kernel": (".weight", _OIHW), "bias": (".bias", _AS_IT_IS)}
DENSE: Kind = {"kernel": (".weight", _TRANSPOSED), "bias": (".bias", _AS_IT_IS)}
CLASSIFIER: Kind = {"kernel": (".weight", _FULLY_CONNECTED), "bias": (".bias", _AS_IT_IS)}
NORM: Kind = {
    "scale": (".weight", _AS_IT_IS),
    "bias": (".bias", _AS_IT_IS),
    "mean": (".running_mean", _AS_IT_IS),
    "var": (".running_var", _AS_IT_IS),
}


class Row(NamedTuple):
    """The modules whose paths match a regular expression, and the names of theirs in the file.

    A variable of no module but of the backbone itself has a row of its own, with `PARAMETER`.
    """

    path: str  # without the collection: "backbone/layer(\d)_(\d+)/(conv\d)"
    name: str  # with the groups of `path`
    kind: Kind


PARAMETER: Kind = {"": ("", _AS_IT_IS)}
POSITIONS: Kind = {"": ("", _AS_IT_IS._replace(fit=positions.resampled))}
Table = tuple[Row, ...]
OWN_PATHS: Table = (  # of the weights of a run
    Row(r"(backbone/pos_embed)", r"\1", POSITIONS),
    Row(r"(.+)", r"\1", PARAMETER),
)

_OF_CLASSIFIER = "classifier"  # the path of the head, and of the row of a table that is its
_NOT_STARTED = (
    "only listed backbones can be started from; --config.pretrained= starts from random weights"
)
_NOT_EXPORTED = (
    "they hold listed backbones with the head cam or gaussian alone; name another --format"
)
_NAMED = 3  # of the tensors that do not fit, in the error
COUNTER = "num_batches_tracked"  # of PyTorch's BatchNorm, which uses it only without a momentum


class OtherArchitectureError(UserError):
    """The tensors are not those of the network."""


def from_tensors(
    tensors: Mapping[str, Array], like: Variables, table: Table, where: str
) -> Variables:
    """Places every tensor of a weight file into variables shaped like `like`.

    A head may be another, or for another number of classes: then that of `like` is kept. Position
    embeddings for images of another size are interpolated.

    Args:
      tensors: the file's tensors by name.
      like: variables of the network; values are kept where no tensor is placed.
      table: of the network's backbone.
      where: the file, for the error message.

    Raises:
      OtherArchitectureError: tensors are missing, left over or of the wrong shape; the first of each are
        named.
      UserError: only the number of the images' channels differs.
    """
    ours = flax.traverse_util.flatten_dict(like, sep="/")
    takes_classifier = has_classifier(tensors, like, table)
    placed = dict(ours)
    left_over = dict.fromkeys(
        name
        for name in tensors
        if not (name.endswith(COUNTER) or _is_of_other_classifier(name, table))
    )
    missing: list[str] = []
    misshapen: dict[str, tuple[int, ...]] = {}  # and the shapes that are needed
    for path, value in ours.items():
        if _is_of_classifier(path) and not takes_classifier:
            continue
        name, layout = _name_in_file(path, table, _NOT_STARTED)
        left_over.pop(name, None)
        needed = layout.to_torch(np.empty(value.shape, np.bool_)).shape
        if name not in tensors:
            missing.append(name)
            continue
        tensor = layout.fit(tensors[name], needed)
        if tensor.shape != needed:
            misshapen[name] = needed
        else:
            placed[path] = layout.to_ours(tensor).astype(value.dtype)
    if len(misshapen) == 1 and not missing and not left_over:
        ((name, needed),) = misshapen.items()
        shape = tensors[name].shape
        if len(shape) == 4 and shape[0] == needed[0] and shape[2:] == needed[2:]:
            raise UserError(
                f"{where} is for images with {shape[1]} channels: {name} has the shape {list(shape)}, "
                f"and images are RGB here, with {needed[1]} channels"
            )
    shapes = [
        f"{name} {list(tensors[name].shape)}, not {list(misshapen[name])}" for name in misshapen
    ]
    problems = {"missing": missing, "left over": left_over, "of the wrong shape": shapes}
    found = [f"{what}: {_in_short([*names])}" for what, names in problems.items() if names]
    if found:
        raise OtherArchitectureError(
            f"{where} does not fit the network of the config; {'; '.join(found)}"
        )
    return flax.traverse_util.unflatten_dict(placed, sep="/")


def has_classifier(tensors: Mapping[str, Array], like: Variables, table: Table) -> bool:
    """Returns whether `tensors` contain a head like that of `like`, with as many classes."""
    ours = flax.traverse_util.flatten_dict(like, sep="/")
    paths = {path: value for path, value in ours.items() if _is_of_classifier(path)}
    named = [(_row_of(path, table), value) for path, value in paths.items()]
    return bool(named) and all(
        found is not None
        and found[0] in tensors
        and tensors[found[0]].shape == found[1].to_torch(np.empty(value.shape)).shape
        for found, value in named
    )


def to_tensors(variables: Variables, table: Table) -> Tensors:
    """Returns all variables with the names and layouts of weight files.

    Raises:
      UserError: a variable has no counterpart there.
    """
    tensors: Tensors = {}
    for path, value in flax.traverse_util.flatten_dict(variables, sep="/").items():
        name, layout = _name_in_file(path, table, _NOT_EXPORTED)
        tensors[name] = np.ascontiguousarray(layout.to_torch(np.asarray(value)))
        if name.endswith("running_var"):  # required by torch's strict loading
            tensors[name.replace("running_var", COUNTER)] = np.zeros((), np.int64)
    return tensors


def _in_short(names: Sequence[str]) -> str:
    """Returns the first few names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _is_of_classifier(path: str) -> bool:
    return path.partition("/")[2].startswith(f"{_OF_CLASSIFIER}/")


def _is_of_other_classifier(name: str, table: Table) -> bool:
    """Returns whether a tensor's name is that of a head's in the file, be it like ours or not."""
    if table is OWN_PATHS:
        return name.startswith(f"{_OF_CLASSIFIER}/")
    return any(
        name == row.name + end
        for row in table
        if row.path == _OF_CLASSIFIER
        for end, _ in row.kind.values()
    )


def _name_in_file(path: str, table: Table, otherwise: str) -> tuple[str, Layout]:
    """Returns the name of a variable's tensor, and the tensor's layout.

    Raises:
      UserError: it has none; `otherwise` says what can be done.
    """
    if (found := _row_of(path, table)) is None:
        raise UserError(f"the parameter {path} has no counterpart in weight files; {otherwise}")
    return found


def _row_of(path: str, table: Table) -> tuple[str, Layout] | None:
    _, whole = path.split("/", 1)  # without the collection
    module, _, variable = whole.rpartition("/")
    for pattern, name, kind in table:
        for of_row, leaf in ((module, variable), (whole, "")):
            match = re.fullmatch(pattern, of_row)
            if match and leaf in kind:
                end, layout = kind[leaf]
                return match.expand(name) + end, layout
    return None
