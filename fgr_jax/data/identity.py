"""What identifies the examples of a split."""

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class DataIdentity:
    """A split of a data set and its size; as a string, "cub/1.0.0 train: 5994 examples"."""

    data_set: str  # with its variant and version, as in "elpv/eight/1.0.0"
    split: str  # in tfds notation, as in "train[:80%]"
    examples: int

    def __str__(self) -> str:
        return f"{self.data_set} {self.split}: {self.examples} examples"

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "DataIdentity":
        """Reads what `to_json` returned, or the string that older versions stored.

        Raises:
          ValueError: `value` is neither.
        """
        try:
            if isinstance(value, str):
                subset, _, size = value.rpartition(": ")
                data_set, _, split = subset.partition(" ")
                identity = cls(data_set, split, int(size.removesuffix(" examples")))
            else:
                identity = cls(**value)
        except (TypeError, ValueError):
            identity = cls("", "", 0)
        if not (identity.data_set and identity.split and isinstance(identity.examples, int)):
            raise ValueError(f"{value!r} names no data set, split and number of examples")
        return identity
