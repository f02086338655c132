"""What a data set holds: its classes, the images of each in every split, and what was left out."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fgr_jax.data.prepare.listing import Listing

GROUP = "group"  # the feature, where images are in groups
_NAMES_KEPT = 5  # of the files that are left out for one reason
_LINE = 100  # characters of the names of classes that are printed
_KEY = "fgr_jax"  # in tfds's metadata


class LeftOut(NamedTuple):
    """The files that are left out for one reason."""

    files: int
    first: list[str]  # a few names


@dataclasses.dataclass(frozen=True, slots=True)
class Contents:
    """What is known of a data set without reading its images."""

    class_names: Sequence[str]
    # The number of images of each class, by split; empty for data sets that do not record it.
    images: Mapping[str, Sequence[int]] = dataclasses.field(default_factory=dict)
    unused: Sequence[str] = ()  # folders that are splits, and are not used
    left_out: Mapping[str, LeftOut] = dataclasses.field(default_factory=dict)  # by reason
    notes: Sequence[str] = ()  # on how the folders were understood
    digest: str = ""  # of `ContentDigest`; empty for data sets that do not record it

    @classmethod
    def of(cls, listing: Listing) -> "Contents":
        """Returns what a listing says, without a digest."""
        images = {split: [0] * len(listing.class_names) for split in listing.splits}
        for split, files in listing.splits.items():
            for file in files:
                images[split][file.label] += 1
        left_out = {
            reason: LeftOut(len(names), list(names[:_NAMES_KEPT]))
            for reason, names in listing.left_out.items()
        }
        names, unused = list(listing.class_names), list(listing.unused)
        return cls(names, images, unused, left_out, list(listing.notes))

    def to_metadata(self) -> dict[str, Any]:
        """Returns what tfds stores as metadata.json, with a digest by which damage is noticed."""
        fields = dataclasses.asdict(self)
        return {_KEY: fields, "digest": _digest_of(fields)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> "Contents | None":
        """Reads what `to_metadata` returned; None if somebody else wrote it.

        Raises:
          ValueError: it has been changed since.
        """
        if _KEY not in metadata:
            return None
        try:
            fields = metadata[_KEY]
            if metadata["digest"] != _digest_of(fields):
                raise ValueError("its digest differs")
            left_out = {reason: LeftOut(*value) for reason, value in fields["left_out"].items()}
            return cls(**fields | {"left_out": left_out})
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"it lacks {error}") from error

    def in_short(self) -> dict[str, Any]:
        """Returns what data.json says of the data set."""
        short: dict[str, Any] = {"classes": len(self.class_names)}
        if self.images:
            for name, label in zip(("largest", "smallest"), self._extremes(), strict=True):
                counts = {split: numbers[label] for split, numbers in self.images.items()}
                short[name] = {"class": self.class_names[label], **counts}
        left_out = {reason: each._asdict() for reason, each in self.left_out.items()}
        notes = {"notes": list(self.notes)}
        return short | {"unused": list(self.unused), "left_out": left_out} | notes

    def lines(self) -> list[str]:
        """Returns what was understood of the images, in lines for the terminal."""
        lines = [f"classes   {self._names()}"] if self.class_names else []
        if self.images:
            largest, smallest = self._extremes()
            if self._counts(largest) == self._counts(smallest):
                lines.append(f"          each has {self._counts(largest)} images")
            else:
                lines.append(
                    f"          the largest is {self.class_names[largest]!r} ({self._counts(largest)} "
                    f"images), the smallest {self.class_names[smallest]!r} ({self._counts(smallest)})"
                )
        lines += [f"note      {note}" for note in self.notes]
        if self.unused:
            lines.append(f"unused    {', '.join(self.unused)}")
        for reason, (count, first) in self.left_out.items():
            more = f" and {count - len(first):,} more" if count > len(first) else ""
            lines.append(f"left out  {reason}: {', '.join(first)}{more}")
        return lines

    def _names(self) -> str:
        """Returns the names of all classes, or of the first that fit into a line, and their number."""
        separator = "; " if any("," in name for name in self.class_names) else ", "
        shown, length = list[str](), 0
        for name in self.class_names:
            length += len(name) + len(separator)
            if shown and length > _LINE:
                return f"{separator.join([*shown, '…'])} ({len(self.class_names):,} in all)"
            shown.append(name)
        return separator.join(shown)

    def _extremes(self) -> tuple[int, int]:
        """Returns the labels of the classes with the most and with the fewest images."""
        totals = [sum(counts) for counts in zip(*self.images.values(), strict=True)]
        return totals.index(max(totals)), totals.index(min(totals))

    def _counts(self, label: int) -> str:
        counts = (f"{numbers[label]:,} {split}" for split, numbers in self.images.items())
        return " and ".join(counts)


class ContentDigest:
    """The digest of all images of a data set with their splits, names, labels and groups, in order."""

    def __init__(self) -> None:
        self._splits: dict[str, Any] = {}

    def add(self, split: str, name: str, label: int, image: bytes, group: str = "") -> None:
        """Adds the next image of a split, by the digest of its bytes, `digest_of`."""
        if split not in self._splits:
            self._splits[split] = hashlib.blake2b(digest_size=16)
        # Not repr: which characters it escapes depends on the version of Python.
        facts = (name, label, image.hex(), group) if group else (name, label, image.hex())
        self._splits[split].update(ascii(facts).encode())

    def hexdigest(self) -> str:
        """Returns the digest, in which the order of the splits does not matter."""
        parts = [f"{split} {each.hexdigest()}" for split, each in sorted(self._splits.items())]
        return hashlib.blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def digest_of(image: bytes) -> bytes:
    """Returns the digest of an encoded image."""
    return hashlib.blake2b(image, digest_size=16).digest()


def _digest_of(fields: Mapping[str, Any]) -> str:
    """Returns the digest of a JSON object."""
    text = json.dumps(fields, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
