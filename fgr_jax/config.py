"""What a run is: every field, its default (the paper's recipe, SEMANTICS) and its meaning.

A config file in `configs/` defines `get_config() -> Config`. Any field can be overridden on the
command line, `--config.optimizer.learning_rate=0.01`.

Two runs with equal configs, but for the section `runtime`, are the same run.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from fgr_jax import durations
from fgr_jax.errors import UserError

NEVER = "never"

# No `from __future__ import annotations` here: the command line reads the fields' types.


@dataclasses.dataclass(slots=True)
class Data:
    """Which pictures, and what becomes of them before the network."""

    name: str = ""  # a tfds data set with `image` and `label`: "cub", "elpv/eight"
    folder: str = ""  # with the name "folder": your own pictures, a folder for each class
    data_dir: str = ""  # where data sets are prepared; empty: tfds's own default folder
    train_split: str = "train"  # in tfds's notation: "train[:80%]" leaves a fifth for validation
    test_split: str = "test"
    cut_bottom: int = 0  # rows of pixels taken off the bottom first: 20 for FGVC-Aircraft's banner
    resize: int = 512  # the whole picture is resized to this square, in pixels
    crop: int = 448  # training: a random crop; test: the center
    augmentation: str = "flip"  # "flip": left-right; "dihedral": all eight flips and rotations
    # "skip": a corrupt picture is counted and left out of the loss (a black one takes its place in the
    # batch, and in BatchNorm's statistics).
    corrupt_images: str = "stop"


@dataclasses.dataclass(slots=True)
class Network:
    """The backbone and the head: listed ones, or FILE.py:FUNCTION of your own."""

    backbone: str = "resnet"
    head: str = "cam"
    depth: int = 50  # ResNet-18, 34, 50, 101 or 152
    width: float = 1.0  # factor on all channel counts
    last_stride: int = 2  # 1: twice as many rows and columns of map cells
    compute_dtype: str = "float32"  # or "bfloat16"; parameters, statistics and loss stay float32


@dataclasses.dataclass(slots=True)
class Diversification:
    """The diversification block (paper §3.1)."""

    p_peak: float = 0.5  # probability that the peaks of a map are suppressed
    p_patch: float = 0.5  # probability that a patch of a map is suppressed
    patch_size: int = 3  # G, in map cells
    alpha: float = 0.1  # factor on suppressed cells; 1 is the network without the block


@dataclasses.dataclass(slots=True)
class Loss:
    """Gradient-boosting cross-entropy (paper §3.2), and what it is compared with.

    The fields from `label_smoothing` on are weights, and 0 switches each off. They change cross-entropy,
    so they want gce_start="never"; they go with the block and without.
    """

    # Empty: the loss that the fields below describe. FILE.py:FUNCTION: an objective of your own.
    objective: str = ""
    k: int = 15  # hardest negatives; with k ≥ classes − 1 it is cross-entropy
    gce_start: str = "0 steps"  # cross-entropy before; "never": cross-entropy throughout
    # An addition to the paper: from gce_start on, the weight of the negatives beyond the k hardest falls
    # linearly from 1, which is cross-entropy, to 0, which is GCE. "0 steps": at once, as in the paper.
    gce_fade: str = "0 steps"
    label_smoothing: float = 0.0  # ε; 0.1 is usual
    max_entropy: float = 0.0  # γ of MaxEnt
    pairwise_confusion: float = 0.0  # λ; its authors' range is 0.05 to 0.1 × classes
    center: float = 0.0  # λ of center loss; 0.003
    # λ of L-GM; 0.1. The classifier's weights become the classes' means, and its bias follows from them:
    # it goes with none of the four above.
    lgm: float = 0.0
    lgm_margin: float = 0.1  # m of L-GM


@dataclasses.dataclass(slots=True)
class Optimizer:
    """Momentum SGD in PyTorch's form: weight decay is added to the gradient, on all parameters."""

    learning_rate: float = 0.001
    # Off: the learning rate is used as it is. On: it is stated for batches of 16 and multiplied by
    # batch_size / 16.
    scale_with_batch: bool = False
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: str = "0 steps"  # the learning rate rises linearly from 0
    schedule: str = "step"  # or "cosine": falls to 0 at the end of the run
    decay_every: str = "50 epochs"  # "step": the learning rate is multiplied by decay_factor
    decay_factor: float = 0.1


@dataclasses.dataclass(slots=True)
class Runtime:
    """How the machine does it. Nothing here changes a result; it may differ on every restart."""

    decode_threads: int = 4  # in each process that decodes; about one for each of its cores
    decode_workers: int = 0  # processes that decode; 0: threads of the training process
    devices: int = 0  # how many to use; 0: all
    fingerprint_every: str = "100 steps"  # digests into fingerprints.jsonl; or "never"
    report: bool = True  # whether the run ends with report.html


@dataclasses.dataclass(slots=True)
class Config:
    """A run."""

    seed: int = 0
    batch_size: int = 16  # over all devices
    duration: str = "100 epochs"
    evaluate_every: str = "1 epoch"
    checkpoint_every: str = "1 epoch"
    # What the network starts from: a hub name ("timm/resnet50.tv_in1k"), a .safetensors or .pth file
    # with torchvision's names, the workdir of another run, or empty: random weights.
    pretrained: str = ""
    # On GPUs: kernels that repeat to the bit, some of them slower; the benchmark says by how much.
    deterministic: bool = True
    data: Data = dataclasses.field(default_factory=Data)
    network: Network = dataclasses.field(default_factory=Network)
    diversification: Diversification = dataclasses.field(default_factory=Diversification)
    loss: Loss = dataclasses.field(default_factory=Loss)
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    runtime: Runtime = dataclasses.field(default_factory=Runtime)


def flat(config: Config) -> dict[str, Any]:
    """The fields by their command-line names: `{"data.crop": 448, ...}`."""
    return dict(_flatten(dataclasses.asdict(config), ""))


def _flatten(tree: dict[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def validate(config: Config) -> None:
    """Checks every field that can be checked without data or devices.

    Raises:
      UserError: naming the first field that is off, its value and what it may be.
    """
    fields = flat(config)
    _check_types(fields)

    def require(name: str, holds: bool, wanted: str) -> None:
        if not holds:
            raise UserError(f"--config.{name}={fields[name]!r}: must be {wanted}")

    def require_one_of(name: str, *values: Any) -> None:
        require(name, fields[name] in values, "one of " + ", ".join(map(str, values)))

    for name in (
        "batch_size",
        "data.resize",
        "data.crop",
        "diversification.patch_size",
        "loss.k",
        "runtime.decode_threads",
    ):
        require(name, fields[name] >= 1, "at least 1")
    for name in (
        "data.cut_bottom",
        "optimizer.learning_rate",
        "optimizer.weight_decay",
        "optimizer.decay_factor",
        "runtime.decode_workers",
        "runtime.devices",
    ):
        require(name, fields[name] >= 0, "at least 0")
    for name in (
        "loss.max_entropy",
        "loss.pairwise_confusion",
        "loss.center",
        "loss.lgm",
        "loss.lgm_margin",
    ):
        require(name, 0 <= fields[name] < math.inf, "at least 0, and finite")
    require("loss.label_smoothing", 0 <= config.loss.label_smoothing < 1, "at least 0, less than 1")
    for name in ("diversification.p_peak", "diversification.p_patch", "diversification.alpha"):
        require(name, 0 <= fields[name] <= 1, "between 0 and 1")
    require("seed", 0 <= config.seed < 2**32, "between 0 and 2**32 - 1")
    require("optimizer.momentum", 0 <= config.optimizer.momentum < 1, "at least 0 and less than 1")
    require("network.width", 1 / 64 <= config.network.width <= 16, "between 1/64 and 16")
    require("optimizer.learning_rate", math.isfinite(fields["optimizer.learning_rate"]), "finite")
    require("data.name", bool(config.data.name), "the name of a tfds data set")
    require(
        "data.folder",
        config.data.name == "folder" or not config.data.folder,
        'empty where data.name is not "folder"',
    )
    require(
        "data.crop",
        config.data.crop <= config.data.resize,
        f"at most data.resize, which is {config.data.resize}",
    )
    require_one_of("network.depth", 18, 34, 50, 101, 152)
    require_one_of("network.last_stride", 1, 2)
    require_one_of("network.compute_dtype", "float32", "bfloat16")
    require_one_of("data.augmentation", "flip", "dihedral")
    require_one_of("data.corrupt_images", "stop", "skip")
    require_one_of("optimizer.schedule", "step", "cosine")
    for name in (
        "duration",
        "evaluate_every",
        "checkpoint_every",
        "loss.gce_start",
        "loss.gce_fade",
        "optimizer.warmup",
        "optimizer.decay_every",
        "runtime.fingerprint_every",
    ):
        if name in ("loss.gce_start", "runtime.fingerprint_every") and fields[name] == NEVER:
            continue
        try:
            number, _ = durations.parse(fields[name])
        except ValueError as error:
            raise UserError(f"--config.{name}: {error}") from None
        if name not in ("loss.gce_start", "loss.gce_fade", "optimizer.warmup"):
            require(name, number > 0, "longer than nothing")
    _check_combination(config.loss)


def _check_combination(loss: Loss) -> None:
    """What GCE is compared with stands against it, not beside it; L-GM has scores of its own."""
    names = ("label_smoothing", "max_entropy", "pairwise_confusion", "center", "lgm")
    on = [f"{name}={getattr(loss, name)}" for name in names if getattr(loss, name)]
    if on and loss.gce_start != NEVER:
        raise UserError(
            f"--config.loss.{on[0]}: goes with cross-entropy, not with GCE: add "
            f"--config.loss.gce_start={NEVER}, or set it to 0"
        )
    if loss.lgm and len(on) > 1:
        raise UserError(
            f"--config.loss.{on[0]}: does not go with --config.loss.{on[-1]}: set one of them to 0"
        )


def _check_types(fields: dict[str, Any]) -> None:
    """A config file may assign anything; the command line has been checked already."""
    for name, default in flat(Config()).items():
        value = fields[name]
        accepted = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, accepted) or isinstance(value, bool) != isinstance(default, bool):
            raise UserError(
                f"config.{name}={value!r}: must be of type {type(default).__name__}, "
                f"not {type(value).__name__}"
            )
