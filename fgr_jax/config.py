"""The config of a run: every field with its default (the paper's recipe), documentation and check.

A config file in `configs/` defines `get_config() -> Config`. Any field can be overridden on the command
line, `--config.optimizer.learning_rate=0.01`; `--help` lists them all.

Two runs on the same images whose configs differ only in the section `runtime`, in `data.data_dir`,
`data.folder`, `data.table` or `data.table_columns` are the same run.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from fgr_jax import durations
from fgr_jax.errors import UserError

# Where data sets are on this machine, by command-line names.
LOCATIONS = ("data.data_dir", "data.folder", "data.table", "data.table_columns")
NEVER = "never"
AUTOMATIC = "auto"

# No `from __future__ import annotations` here: the command line reads the types of the fields.


@dataclasses.dataclass(frozen=True, slots=True)
class Check:
    """A condition on the value of a field."""

    holds: Callable[[Any], bool]
    wanted: str  # completes "must be ..."


def at_least(least: float, *, below: float | None = None) -> Check:
    """Checks that a number is at least `least` and, if `below` is given, less than that."""
    if below is None:
        return Check(lambda value: value >= least, f"at least {least}")
    upper = "and finite" if below == math.inf else f"less than {below}"
    return Check(lambda value: least <= value < below, f"at least {least}, {upper}")


def between(low: float, high: float) -> Check:
    """Checks that a number is between `low` and `high`, both included."""
    return Check(lambda value: low <= value <= high, f"between {low} and {high}")


def one_of(*values: Any) -> Check:
    """Checks that a value is one of `values`."""
    return Check(lambda value: value in values, "one of " + ", ".join(map(str, values)))


def valid_duration(*, allow_zero: bool = False, allowed_word: str = "") -> Check:
    """Checks that a string is a duration such as "3 epochs" or, if given, the allowed word."""

    def holds(value: str) -> bool:
        if allowed_word and value == allowed_word:
            return True
        try:
            number, _ = durations.parse(value)
        except ValueError:
            return False
        return allow_zero or number > 0

    wanted = 'a duration such as "500 steps" (a whole number) or "2.5 epochs"'
    wanted += "" if allow_zero else ", longer than 0"
    return Check(holds, wanted + (f', or "{allowed_word}"' if allowed_word else ""))


def parsed_fold(fold: str) -> tuple[int, int] | None:
    """Returns I and N of the fold "I/N"; None if it is not a fold."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", fold)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    return (index, count) if 1 <= index <= count >= 2 else None


# What a column of a table of images can hold.
TABLE_COLUMNS = ("path", "label", "split", "group")


def parsed_columns(columns: str) -> dict[str, str] | None:
    """Returns the columns "path=file,label=species" by what they hold; None if they are invalid.

    A column is given by its name or, from 1, by its number; the one of splits or groups may be empty.
    """
    if not columns:
        return {}
    pairs = [pair.partition("=") for pair in columns.split(",")]
    found = {key.strip(): column.strip() for key, _, column in pairs}
    is_valid = (
        len(found) == len(pairs)
        and all(key.strip() in TABLE_COLUMNS and sign for key, sign, _ in pairs)
        and all(found.get(key, key) for key in ("path", "label"))
    )
    return found if is_valid else None


def field(default: Any, documentation: str, check: Check | None = None) -> Any:
    """Defines a dataclass field with its documentation and its check."""
    metadata = {"documentation": documentation, "check": check}
    return dataclasses.field(default=default, metadata=metadata)


_PROBABILITY = between(0, 1)
_FINITE = at_least(0, below=math.inf)


@dataclasses.dataclass(slots=True)
class Data:
    """The data set, and how its images are prepared for the network."""

    name: str = field(
        "",
        'A tfds data set with `image` and `label`: "cub", "elpv/eight"; or "folder".',
        Check(bool, "the name of a tfds data set"),
    )
    folder: str = field(
        "",
        'With the name "folder": your own images, a folder for each class; with data.table, what its '
        "paths are relative to.",
    )
    table: str = field(
        "",
        'With the name "folder": a table with the path and the label of each image, in place of folders '
        'for the classes. CSV, Parquet or JSON Lines; or one for each split, "train.csv,test.csv".',
    )
    table_columns: str = field(
        "",
        "Columns of the table, by name or by number, where their names do not tell: "
        '"path=file,label=species", or "path=1,label=2" without a header line. Likewise '
        '"split=COLUMN" and "group=COLUMN"; "split=" leaves out a column that looks like one of splits.',
        Check(
            lambda value: parsed_columns(value) is not None,
            "empty or a list of path=COLUMN, label=COLUMN, split=COLUMN and group=COLUMN, such as "
            '"path=1,label=2"',
        ),
    )
    data_dir: str = field("", "Where data sets are prepared; empty: the default folder of tfds.")
    split: str = field(
        "given",
        '"given": train_split and test_split; "hash": all images of the data set together, divided by '
        "hashes of their names. Each class with two images has one for testing, and images that are "
        "added move almost no others.",
        one_of("given", "hash"),
    )
    test_share: float = field(
        0.2, 'With the split "hash": share of the test split.', at_least(0, below=1)
    )
    validation_share: float = field(
        0.0, "Likewise, of the validation split; see validation_split.", at_least(0, below=1)
    )
    group: int = field(
        0,
        'With the split "hash": number of levels of folders below that of the class that name a group: '
        "1 for <class>/<group>/*. All images of a group are on one side. A table has a column for it.",
        at_least(0),
    )
    train_split: str = field(
        "train",
        "In tfds notation. Images are in the order of their files, often class by class: slices such as "
        '"train[:80%]" may leave out whole classes.',
    )
    test_split: str = field("test", "In tfds notation.")
    validation_split: str = field(
        "",
        "In tfds notation: what the run is evaluated on while it trains, to choose settings by; it is "
        "then tested once, at the end. Empty: there is none, and these evaluations are tests.",
    )
    fold: str = field(
        "",
        '"1/5": every fifth image of train_split, from the first on, is not trained on, and the '
        'run is tested on these instead of test_split. "2/5": from the second on. To choose settings. '
        'With the split "hash", or groups, by hashes of names rather than every fifth.',
        Check(
            lambda value: not value or parsed_fold(value) is not None,
            'empty or I/N, such as "2/5", with I from 1 to N and N at least 2',
        ),
    )
    balance: float = field(
        0.0,
        "Images are sampled so that a class of n training images has a probability proportional to "
        "n^(1 − balance). 0: every image once in an epoch; 1: all classes are equally frequent. In any "
        "case, an epoch has as many images as the training split.",
        _PROBABILITY,
    )
    pairs: bool = field(
        False,
        "Whether images 2i and 2i + 1 of a batch are of the same class, for MAMC. In each round all "
        "images are in a pair; in a class with an odd number of images, one of them is in two.",
    )
    cut_bottom: int = field(
        0, "Rows of pixels to cut off at the bottom: 20 for FGVC-Aircraft.", at_least(0)
    )
    resize: int = field(
        512,
        "Side of the square that images are resized to, in pixels; see resize_method.",
        between(1, 65_500),
    )
    resize_method: str = field(
        "squash",
        '"squash": the whole image becomes the square, whatever its aspect ratio; "crop": the short '
        'side becomes data.resize, and the crop is cut from all of the long one; "pad": the long side '
        "becomes data.resize, and margins fill the square.",
        one_of("squash", "crop", "pad"),
    )
    crop: int = field(
        448, "Side of the crop: random in training, central in tests.", between(1, 65_500)
    )
    max_pixels: int = field(
        100_000_000,
        "Of an image. Larger JPEGs are decoded at half, a quarter or an eighth of their size; other "
        "images and progressive JPEGs are refused.",
        at_least(1),
    )
    views: int = field(
        0,
        "With a frozen part of the network: its outputs for so many fixed views (crops and symmetries) "
        "of each training image are computed once, written to files, and trained on from there; 0: "
        "they are computed in every step, for a new view.",
        at_least(0),
    )
    features_dtype: str = field(
        "float16", "Of these files.", one_of("float16", "bfloat16", "float32")
    )
    augmentation: str = field(
        "flip",
        '"flip": left and right; "dihedral": all 8 symmetries of a square.',
        one_of("flip", "dihedral"),
    )
    trivial_augment: bool = field(
        False,
        "TrivialAugment: each crop in training is distorted by one of 14 operations, of one of 31 "
        "strengths, both drawn with equal probability.",
    )
    mixup: float = field(
        0.0,
        "α of mixup: images 2i and 2i + 1 of a batch are mixed, and so are their losses, with a share "
        "that is drawn from Beta(α, α) in every step. 0: off.",
        _FINITE,
    )
    cutmix: float = field(
        0.0,
        "α of CutMix, likewise; with both, one of them is drawn in every step. GCE needs a larger "
        "loss.k with it (docs/modern.md).",
        _FINITE,
    )
    corrupt_images: str = field(
        "stop",
        '"skip": a corrupt image is counted and left out of the loss (a black one takes its place in '
        "the batch, and in BatchNorm's statistics).",
        one_of("stop", "skip"),
    )


@dataclasses.dataclass(slots=True)
class Network:
    """The backbone and the head."""

    backbone: str = field("resnet", "A listed backbone, or FILE.py:FUNCTION of your own.")
    head: str = field("cam", "A listed head, or FILE.py:FUNCTION of your own.")
    depth: int = field(50, "ResNet-18, 34, 50, 101 or 152.", one_of(18, 34, 50, 101, 152))
    width: float = field(1.0, "Factor on all numbers of channels.", between(1 / 64, 16))
    last_stride: int = field(2, "1: maps with twice as many rows and columns.", one_of(1, 2))
    pool: int = field(
        1,
        "Side of the squares of cells that features are averaged over before the head. That of all "
        "features leaves one cell: without the block the same network, and the fastest to train where "
        "features are cached.",
        between(1, 10_000),
    )
    frozen: str = field(
        "",
        'What is not trained: "backbone", or a stage of it, such as layer3: all up to and including it. '
        "Its BatchNorm uses its running statistics.",
    )
    head_from_features: bool = field(
        False,
        "Whether weights of the head are first computed from features of the training images, by a "
        "pretrained backbone, such as filters by clustering. With data.views, one view of each "
        "is used.",
    )
    drop_path: float = field(
        0.0,
        "Stochastic depth: probability that the last block's residual branch is left out for an image; "
        "it grows linearly from 0 for the first block. 0: off.",
        at_least(0, below=1),
    )
    norm_group: int = field(
        0,
        "BatchNorm's statistics are those of so many consecutive images, which need no exchange where "
        "each device's share of the batch is a multiple; 0: of the global batch.",
        at_least(0),
    )
    remat: bool = field(
        False, "Whether the backbone's stages are computed again for the gradient, to save memory."
    )
    compute_dtype: str = field(
        "float32",
        "Loss, statistics and parameters are float32 in any case.",
        one_of("float32", "bfloat16"),
    )


@dataclasses.dataclass(slots=True)
class Diversification:
    """The diversification block (paper §3.1)."""

    p_peak: float = field(0.5, "Probability that the peaks of a map are suppressed.", _PROBABILITY)
    p_patch: float = field(0.5, "Probability that a patch of a map is suppressed.", _PROBABILITY)
    patch_size: int = field(3, "G, the side of a patch in map cells.", between(1, 10_000))
    alpha: float = field(0.1, "Factor on suppressed cells; 1 turns the block off.", between(0, 1))
    fit_to_maps: bool = field(
        False,
        "Whether the block is gentler on small maps: with fewer than 10 rows or columns of cells, "
        "patch_size is at most 2 and p_patch at most 0.1; with fewer than 4, the block is off.",
    )

    def in_words(self) -> str:
        """Describes the block, as in "suppresses peaks with probability 0.5, …"."""
        return (
            f"suppresses peaks with probability {self.p_peak:g}, patches of {self.patch_size}×"
            f"{self.patch_size} cells with {self.p_patch:g}, by a factor of {self.alpha:g}"
        )

    def on_maps(self, rows: int, columns: int) -> "Diversification":
        """Returns the block as it is applied to maps of this size."""
        side = min(rows, columns)
        if not self.fit_to_maps or side >= 10:
            return self
        if side < 4:
            return dataclasses.replace(self, alpha=1.0)
        size, p_patch = min(self.patch_size, 2), min(self.p_patch, 0.1)
        return dataclasses.replace(self, patch_size=size, p_patch=p_patch)


@dataclasses.dataclass(slots=True)
class Loss:
    """Gradient-boosting cross-entropy (paper §3.2), and the losses that it is compared with.

    The fields from `max_entropy` to `lgm` are weights, and 0 turns a loss off. They modify cross-entropy
    and therefore require gce_start="never"; they work with and without the block.
    """

    objective: str = field("", "FILE.py:FUNCTION of your own; empty: the loss of the fields below.")
    k: int = field(
        15,
        "Number of hardest negatives in GCE; with all (classes − 1) it is cross-entropy.",
        at_least(1),
    )
    gce_start: str = field(
        "0 steps",
        'When GCE replaces cross-entropy; "never": cross-entropy throughout.',
        valid_duration(allow_zero=True, allowed_word=NEVER),
    )
    gce_fade: str = field(
        "0 steps",
        "From gce_start on, the weight of the negatives beyond the k hardest falls linearly from 1, "
        'which is cross-entropy, to 0, which is GCE. "0 steps": at once, as in the paper; "auto": at '
        "once with pretrained weights, and in half of the training without.",
        valid_duration(allow_zero=True, allowed_word=AUTOMATIC),
    )
    label_smoothing: float = field(
        0.0, "ε, of cross-entropy and of GCE; 0.1 is usual.", at_least(0, below=1)
    )
    logit_adjustment: float = field(
        0.0,
        "τ: in training, τ · ln of each class's share of the training images is added to its score in "
        "cross-entropy and GCE, for rare classes to be predicted as readily as frequent ones. 1 is "
        "usual, 0: off.",
        _FINITE,
    )
    class_weights: float = field(
        0.0,
        "p: cross-entropy and GCE of an image are multiplied by a weight proportional to n^(−p) for n "
        "training images of its class; the mean over all training images is 1. 1: all classes weigh the "
        "same, 0: off.",
        between(0, 1),
    )
    max_entropy: float = field(0.0, "γ of MaxEnt.", _FINITE)
    pairwise_confusion: float = field(0.0, "λ; 0.05 to 0.1 × classes is usual.", _FINITE)
    center: float = field(0.0, "λ of center loss; 0.003 is usual.", _FINITE)
    lgm: float = field(
        0.0,
        "λ of L-GM, which excludes the four above; 0.1 is usual. The classifier's weights become the "
        "means of the classes, and its bias follows from them.",
        _FINITE,
    )
    lgm_margin: float = field(0.1, "m of L-GM.", _FINITE)


@dataclasses.dataclass(slots=True)
class Optimizer:
    """Momentum SGD or AdamW, in PyTorch's form: SGD adds the weight decay to the gradient."""

    name: str = field(
        "sgd", '"sgd", or "adamw" with betas of 0.9 and 0.999.', one_of("sgd", "adamw")
    )
    learning_rate: float = field(0.001, "After the warm-up and before any decay.", _FINITE)
    scale_with_batch: bool = field(False, "Whether to multiply it by batch_size / 16.")
    head_factor: float = field(
        1.0, "Factor on the learning rate of the head's parameters; 10 is usual.", _FINITE
    )
    layer_decay: float = field(
        1.0,
        "Factor on the learning rate for each stage of the backbone, from the last one to the input: "
        "that of the last stage is multiplied by it once, that of the one before twice, and so on. A "
        "backbone of your own without stages counts as one. 1: off.",
        between(0, 1),
    )
    momentum: float = field(0.9, "Of SGD.", at_least(0, below=1))
    nesterov: bool = field(False, "Whether SGD's momentum is Nesterov's.")
    weight_decay: float = field(
        1e-4, "On all parameters that decay_norms_and_biases does not leave out.", _FINITE
    )
    decay_norms_and_biases: bool = field(
        True,
        "False: no weight decay on vectors (scales and biases), position embeddings and tokens.",
    )
    clip_norm: float = field(
        0.0,
        "Largest norm of the gradient of all parameters together; a larger gradient is scaled down to "
        "it. 0: off.",
        _FINITE,
    )
    average: float = field(
        0.0,
        "Decay of the exponential moving average of parameters and BatchNorm's statistics, such as "
        "0.999; step t, from 0, uses min(decay, (1 + t) / (10 + t)). The average is what is evaluated, "
        "used for predictions and exported. 0: off.",
        at_least(0, below=1),
    )
    warmup: str = field(
        "0 steps", "Time in which the learning rate rises from 0.", valid_duration(allow_zero=True)
    )
    schedule: str = field(
        "step", '"step", or "cosine", which falls to 0 at the end.', one_of("step", "cosine")
    )
    decay_every: str = field("50 epochs", "For the step schedule.", valid_duration())
    decay_factor: float = field(0.1, "For the step schedule: factor on the learning rate.", _FINITE)
    accumulate: int = field(
        1,
        "Number of parts in which a step is computed, to save memory. The gradient is that of the whole "
        "batch, but BatchNorm's statistics are those of each part.",
        at_least(1),
    )


@dataclasses.dataclass(slots=True)
class Runtime:
    """How the machine is used; can change on restart. Only `devices` affects results, by rounding."""

    decode_threads: int = field(
        4, "Threads in each decoding process; about one per core.", between(1, 1024)
    )
    decode_workers: int = field(
        0, "Number of decoding processes; 0: the training process.", between(0, 1024)
    )
    devices: int = field(0, "Number of devices to use; 0: all.", at_least(0))
    fingerprint_every: str = field(
        "100 steps",
        "Interval between digests in fingerprints.jsonl.",
        valid_duration(allowed_word=NEVER),
    )
    report: bool = field(True, "Whether the run ends with report.html.")
    compilation_cache: str = field(
        AUTOMATIC,
        "Folder of compiled programs, which are read when a command starts again instead of being "
        'compiled; "auto": fgr_jax in the cache folder of the user; empty: none. Name only folders that '
        "nobody else can write: the programs that are found there are run.",
    )


@dataclasses.dataclass(slots=True)
class Config:
    """A run."""

    seed: int = field(0, "Seed of all random numbers.", between(0, 2**32 - 1))
    batch_size: int = field(
        16, "Number of images in a step, over all devices.", between(1, 1_000_000)
    )
    duration: str = field("100 epochs", "Length of the training.", valid_duration())
    evaluate_every: str = field("1 epoch", "And after the last step.", valid_duration())
    checkpoint_every: str = field("1 epoch", "And after the last step.", valid_duration())
    early_stopping: str = field(
        NEVER,
        "The training ends with the evaluation before which the accuracy on the validation split has "
        'not risen for this long, such as "5 epochs".',
        valid_duration(allowed_word=NEVER),
    )
    pretrained: str = field(
        "",
        'What training starts from: a hub name ("timm/resnet50.tv_in1k"), a .safetensors or .pth '
        "file with torchvision's or timm's names, the workdir of another run; empty: random weights.",
    )
    deterministic: bool = field(
        True,
        "On GPUs: bitwise reproducible kernels, some of them slower; the benchmark shows by how much.",
    )
    data: Data = dataclasses.field(default_factory=Data)
    network: Network = dataclasses.field(default_factory=Network)
    diversification: Diversification = dataclasses.field(default_factory=Diversification)
    loss: Loss = dataclasses.field(default_factory=Loss)
    optimizer: Optimizer = dataclasses.field(default_factory=Optimizer)
    runtime: Runtime = dataclasses.field(default_factory=Runtime)


def fields(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields name ("data.crop"), `dataclasses.Field` and value of every field, including sections."""
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(each.type):
            yield from fields(value, f"{prefix}{each.name}.")
        else:
            yield f"{prefix}{each.name}", each, value


def has_validation(data: Data) -> bool:
    """Returns whether a run has a validation split, on which it is evaluated while it trains."""
    return bool(data.validation_split or data.validation_share)


def flat(config: Config) -> dict[str, Any]:
    """Returns the values of all fields by command-line name: `{"data.crop": 448, ...}`."""
    return {name: value for name, _, value in fields(config)}


def validate(config: Config) -> None:
    """Checks everything that can be checked without data or devices.

    Raises:
      UserError: a field is invalid; the message gives the first one, its value and what it must be.
    """
    for name, each, value in fields(config):
        kind, check = each.type, each.metadata["check"]
        # The command line knows the types; a config file may assign anything.
        accepted = (int, float) if kind is float else kind
        if not isinstance(value, accepted) or isinstance(value, bool) != (kind is bool):
            refuse(name, value, f"of type {kind.__name__}, not {type(value).__name__}")
        if check is not None and not check.holds(value):
            refuse(name, value, check.wanted)
    data = config.data
    if data.folder and data.name != "folder":
        refuse("data.folder", data.folder, 'empty where data.name is not "folder"')
    if data.table and data.name != "folder":
        refuse("data.table", data.table, 'empty where data.name is not "folder"')
    if data.table_columns and not data.table:
        refuse("data.table_columns", data.table_columns, "empty where data.table is empty")
    _check_split(data)
    _check_early_stopping(config)
    if data.crop > data.resize:
        refuse("data.crop", data.crop, f"at most data.resize, which is {data.resize}")
    if data.max_pixels < 4 * data.resize**2:
        least = f"at least {4 * data.resize**2}, four times the square of data.resize"
        refuse("data.max_pixels", data.max_pixels, least)
    if data.views and not config.network.frozen:
        refuse("data.views", data.views, "0 where network.frozen is empty: nothing stays the same")
    if data.trivial_augment and data.views:
        refuse("data.trivial_augment", True, "False with data.views: features are not distorted")
    _check_batch(config)
    if config.optimizer.nesterov and config.optimizer.name != "sgd":
        refuse("optimizer.nesterov", True, "False where optimizer.name is not sgd")
    _check_losses(config.loss)
    _check_imbalance(config)
    if config.network.head_from_features and not config.pretrained:
        wanted = "False where pretrained is empty: features of random weights tell nothing"
        refuse("network.head_from_features", True, wanted)


def _check_split(data: Data) -> None:
    """Checks the fields that select images for training and testing."""
    if data.split == "hash":
        for name, default in (("train_split", "train"), ("test_split", "test")):
            if (value := getattr(data, name)) != default:
                wanted = f'{default!r} with data.split="hash", which divides all images anew'
                refuse(f"data.{name}", value, wanted)
        if data.validation_split:
            wanted = 'empty with data.split="hash"; data.validation_share takes its place'
            refuse("data.validation_split", data.validation_split, wanted)
        if data.test_share + data.validation_share >= 1:
            wanted = f"less than 1 together with data.test_share, which is {data.test_share}"
            refuse("data.validation_share", data.validation_share, wanted)
        if not (data.test_share or data.fold):
            refuse("data.test_share", data.test_share, "above 0 without data.fold")
    else:
        for name in ("test_share", "validation_share", "group"):
            value, default = getattr(data, name), getattr(Data(), name)
            if value != default:
                refuse(f"data.{name}", value, f'{default} without data.split="hash"')
    if data.group and (data.name != "folder" or data.table):
        what = "with a table, which has a column for groups" if data.table else "without a folder"
        refuse("data.group", data.group, f"0 {what}")


def _check_early_stopping(config: Config) -> None:
    """Checks that there is something to stop by, at the ends of epochs, which have lines of metrics."""
    value = config.early_stopping
    if value == NEVER:
        return
    if not has_validation(config.data):
        wanted = (
            f'"{NEVER}" without a validation split, by which it stops: set data.validation_split, or '
            'data.validation_share with data.split="hash"'
        )
        refuse("early_stopping", value, wanted)
    number, unit = durations.parse(config.evaluate_every)
    if unit != "epoch" or number.denominator != 1:
        wanted = f"a whole number of epochs with early_stopping, which is {value!r}"
        refuse("evaluate_every", config.evaluate_every, wanted)


def _check_batch(config: Config) -> None:
    """Checks what divides a batch, and what needs all of it at once."""
    size, parts, group = config.batch_size, config.optimizer.accumulate, config.network.norm_group
    if size % parts:
        refuse("optimizer.accumulate", parts, f"a divisor of batch_size, which is {size}")
    if group and size // parts % group:
        refuse(
            "network.norm_group",
            group,
            f"a divisor of {size // parts}, the images of a forward pass",
        )
    for name in ("mixup", "cutmix"):
        value = getattr(config.data, name)
        if value and size % 2:
            refuse(f"data.{name}", value, f"0 where batch_size is odd; it is {size}")
        if value and config.data.views:
            refuse(f"data.{name}", value, "0 with data.views: features are not mixed")
    mixes = config.data.mixup or config.data.cutmix
    if config.loss.pairwise_confusion and (reason := pairs_are_lost_by(config)):
        refuse("loss.pairwise_confusion", config.loss.pairwise_confusion, f"0 with {reason}")
    without_pairs = {
        "where batch_size is odd": size % 2,
        "with data.balance": config.data.balance,
        "with mixed images": mixes,
    }
    for where, value in without_pairs.items():
        if config.data.pairs and value:
            refuse("data.pairs", True, f"False {where}")


def pairs_are_lost_by(config: Config) -> str:
    """Returns what keeps a loss from comparing all pairs of a batch, and why; "" if nothing does."""
    if config.optimizer.accumulate > 1:
        return "optimizer.accumulate: its pairs are of the whole batch"
    if config.data.mixup or config.data.cutmix:
        return "mixed images: its pairs are of two classes"
    return ""


def _check_losses(loss: Loss) -> None:
    # Losses that exclude each other: GCE and all others but label smoothing, L-GM and all others.
    names = ("label_smoothing", "max_entropy", "pairwise_confusion", "center", "lgm")
    values = {name: getattr(loss, name) for name in names}
    weights = [f"--config.loss.{name}={value}" for name, value in values.items() if value]
    if loss.objective and weights:
        raise UserError(
            f"--config.loss.objective={loss.objective}: takes the place of {weights[0]}: set that to 0"
        )
    without_smoothing = weights[1:] if loss.label_smoothing else weights
    if without_smoothing and loss.gce_start != NEVER:
        raise UserError(
            f"{without_smoothing[0]}: goes with cross-entropy, not with GCE: add "
            f"--config.loss.gce_start={NEVER}, or set it to 0"
        )
    if loss.lgm and len(weights) > 1:
        raise UserError(f"{weights[0]}: does not go with {weights[-1]}: set one of them to 0")


def _check_imbalance(config: Config) -> None:
    """Checks that imbalanced classes are made up for once, and in a loss that knows of it."""
    loss = config.loss
    of_loss = {
        "loss.logit_adjustment": loss.logit_adjustment,
        "loss.class_weights": loss.class_weights,
    }
    used = {name: value for name, value in of_loss.items() if value}
    for name, value in used.items():
        if loss.objective or loss.lgm:
            other = "loss.objective" if loss.objective else "loss.lgm"
            refuse(name, value, f"0 with {other}, which is another loss")
    used |= {"data.balance": config.data.balance} if config.data.balance else {}
    if len(used) > 1:
        (name, value), (other, _), *_ = used.items()
        refuse(
            name, value, f"0 with {other}: both make up for rare classes, which would count twice"
        )


def refuse(name: str, value: Any, wanted: str) -> NoReturn:
    """Raises the `UserError` for a field of the config that must be something else."""
    raise UserError(f"--config.{name}={value!r}: must be {wanted}")
