"""What identifies the examples of a split."""

import dataclasses
from typing import Any

# The family of the users' own folders. The name of a variant is derived from the folder's: the same
# images have another one elsewhere.
FOLDER = "folder"


@dataclasses.dataclass(frozen=True, slots=True)
class DataIdentity:
    """A split of a data set, its size and its content; as a string, "cub/1.0.0 train: 5994 examples"."""

    data_set: str  # with its variant and version, as in "elpv/eight/1.0.0"
    split: str  # in tfds notation, as in "train[:80%]"
    examples: int
    # The digest of all splits, `contents.ContentDigest`; empty where it was not recorded.
    content: str = ""

    def __str__(self) -> str:
        return f"{self.data_set} {self.split}: {self.examples} examples"

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of the user's own images."""
        return self.data_set.startswith(f"{FOLDER}/")

    def is_same_data(self, other: "DataIdentity") -> bool:
        """Returns whether both are the same examples.

        Where both contents are known, they decide, whatever the names are. Otherwise the names do,
        unless both are folders of the user's own.
        """
        if (self.split, self.examples) != (other.split, other.examples):
            return False
        if self.content and other.content:
            return self.content == other.content
        return self.data_set == other.data_set or (self.is_folder and other.is_folder)

    def compared(self, other: "DataIdentity") -> tuple[str, str]:
        """Returns both in words that differ where the data does."""
        if str(self) != str(other):
            return str(self), str(other)
        return f"{self} (content {self.content[:8]})", f"{other} (content {other.content[:8]})"

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> "DataIdentity":
        """Reads what `to_json` returned, or what older versions stored: a string, or no content.

        Other fields are ignored.

        Raises:
          ValueError: `value` is neither.
        """
        try:
            if isinstance(value, str):
                subset, _, size = value.rpartition(": ")
                data_set, _, split = subset.partition(" ")
                identity = cls(data_set, split, int(size.removesuffix(" examples")))
            else:
                names = [field.name for field in dataclasses.fields(cls)]
                identity = cls(**{name: value[name] for name in names if name in value})
        except (TypeError, ValueError):
            identity = cls("", "", 0)
        if not (identity.data_set and identity.split and isinstance(identity.examples, int)):
            raise ValueError(f"{value!r} names no data set, split and number of examples")
        return identity
