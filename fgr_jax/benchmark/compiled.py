"""What a compiled program does: its instructions, and what it exchanges between devices."""

import collections
import dataclasses
import math
import re
from collections.abc import Mapping

_COMPUTATION = re.compile(r"^(ENTRY )?%([\w.\-]+) \(.*?\n(.*?)^}", re.MULTILINE | re.DOTALL)
_INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%(?P<name>[\w.\-]+) = (?P<result>\(.*?\)|\S+) (?P<kind>[\w\-]+)\((?P<rest>.*)$",
    re.MULTILINE,
)
_COLLECTIVE = re.compile(
    r"= (?P<result>\(.*?\)|\S+) "
    r"(?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute|collective-broadcast)"
    r"(?:-start)?\("
)
_ARRAY = re.compile(r"\b(?:pred|[a-z]+(\d+))\[([\d,]*)\]")  # bits of an element, and lengths
# Instructions that read and write nothing of their own.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}


@dataclasses.dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction, with all that is fused into it.

    Attributes:
      path: names of modules, such as "backbone/layer1_0/conv2"; empty for what is in no module.
      backward: whether it belongs to the gradient.
      flops: of its matrix products and convolutions.
      size: bytes that it reads and writes, if each operand is read once.
    """

    path: str
    backward: bool
    flops: float
    size: int

    @property
    def direction(self) -> str:
        """Returns "forward" or "backward"."""
        return "backward" if self.backward else "forward"


@dataclasses.dataclass(frozen=True, slots=True)
class Collective:
    """An exchange between the devices, of one array or of several combined."""

    kind: str  # "all-reduce", …
    shapes: tuple[tuple[int, ...], ...]
    size: int  # in bytes


def collectives(compiled_text: str) -> list[Collective]:
    """Returns the exchanges in a compiled program, `compiled.as_text()`, in the order of the text."""
    return [
        Collective(
            match["kind"],
            tuple(lengths for _, lengths in _arrays(match["result"])),
            _size(match["result"]),
        )
        for match in _COLLECTIVE.finditer(compiled_text)
    ]


def instructions(compiled_text: str) -> dict[str, Instruction]:
    """Returns the instructions of a compiled program, `compiled.as_text()`, by their names."""
    computations, entry = {}, {}
    for is_entry, name, text in _COMPUTATION.findall(compiled_text):
        computations[name] = list(_INSTRUCTION.finditer(text))
        if is_entry:
            entry = {each["name"]: each for each in computations[name]}
    results = {name: each["result"] for name, each in entry.items()}
    bodies = {}
    for name, each in entry.items():
        called = re.search(r"calls=%([\w.\-]+)", each["rest"])
        bodies[name] = computations[called[1]] if called else [each]
    found = {}
    for name, each in entry.items():
        if each["kind"] in _FREE:
            continue
        body = bodies[name]
        shapes = collections.ChainMap({inner["name"]: inner["result"] for inner in body}, results)
        own = _named([*reversed(body), each])
        # XLA drops the names of the gradients of kernels; what these are computed from has names.
        sources = [bodies[operand] for operand in _operands(each) if operand in entry]
        path, backward = own if own[0] else max(map(_named, sources), key=_is_gradient, default=own)
        found[name] = Instruction(
            path,
            backward,
            flops=sum(_flops(inner, shapes) for inner in body),
            size=_size(each["result"])
            + sum(_size(results[operand]) for operand in set(_operands(each)) & results.keys()),
        )
    return found


def _named(body: list[re.Match[str]]) -> tuple[str, bool]:
    """Returns the modules that an instruction is in, and whether it is a gradient, from its parts.

    What is computed again for a gradient belongs to the gradient.
    """
    names = re.findall(r'op_name="([^"]*)"', "\n".join(each["rest"] for each in body))
    gradients = [name for name in names if "transpose(" in name]
    for name in gradients or names:
        modules = [part for part in name.split("/")[:-1] if re.fullmatch(r"\w+", part)]
        if modules:
            return "/".join(modules), bool(gradients)
    return "", bool(gradients)


def _is_gradient(named: tuple[str, bool]) -> tuple[bool, bool]:
    path, backward = named
    return bool(path), backward


def _operands(instruction: re.Match[str]) -> list[str]:
    arguments, _, _ = instruction["rest"].partition(")")
    return re.findall(r"%([\w.\-]+)", arguments)


def _flops(instruction: re.Match[str], shapes: Mapping[str, str]) -> float:
    """Returns twice the number of multiplications of a matrix product or a convolution, otherwise 0."""
    kind, rest = instruction["kind"], instruction["rest"]
    if kind not in ("dot", "convolution"):
        return 0.0
    left, right = (_lengths(shapes[operand]) for operand in _operands(instruction)[:2])
    outputs = math.prod(_lengths(instruction["result"]))
    if kind == "dot":
        contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", rest)
        axes = [int(axis) for axis in contracted[1].split(",")] if contracted else []
        return 2.0 * outputs * math.prod(left[axis] for axis in axes)
    labels = re.search(r"dim_labels=\w+_(\w+)->", rest)
    dilation = re.search(r"lhs_dilate=([\dx]+)", rest)
    zeros = math.prod(int(each) for each in dilation[1].split("x")) if dilation else 1
    assert labels is not None
    return 2.0 * outputs * math.prod(right) / right[labels[1].index("o")] / zeros


def _arrays(result: str) -> list[tuple[int, tuple[int, ...]]]:
    """Returns the bytes of an element, and the lengths, of each array of a result."""
    return [
        (int(bits or 8) // 8, tuple(int(length) for length in lengths.split(",") if length))
        for bits, lengths in _ARRAY.findall(result)
    ]


def _lengths(result: str) -> tuple[int, ...]:
    ((_, lengths),) = _arrays(result)
    return lengths


def _size(result: str) -> int:
    return sum(each * math.prod(lengths) for each, lengths in _arrays(result))
