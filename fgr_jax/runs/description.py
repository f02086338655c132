"""The description of a run: its config, its training data, and the names of the classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.data.identity import DataIdentity

# A run may be resumed with other values of these; only `runtime.devices` affects results, by rounding.
# Of a folder or table of the user's own, the content counts, in `Description.data`.
_WITHOUT_EFFECT = ("runtime.", *config_lib.LOCATIONS)


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """The identity of a run: runs are the same if all but the fields without effect are equal."""

    # By command-line name, as in `config.flat`; from an older version, it may lack fields.
    config: dict[str, Any]
    data: DataIdentity  # of the training split
    class_names: list[str]
    # What data.json says of the data set beside its identity, for readers alone.
    contents: Mapping[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def differences(self, other: "Description") -> list[str]:
        """Returns short descriptions of the differences that keep `other` from resuming this run."""
        words = [
            f"{name} (there {ours!r}, now {theirs!r})"
            for name, (ours, theirs) in differing_fields(self.config, other.config).items()
            if is_with_effect(name)
        ]
        if not self.data.is_same_data(other.data):
            there, now = self.data.compared(other.data)
            words.append(f"data set (there {there}, now {now})")
        if self.class_names != other.class_names:
            words.append("the class names")
        return words


def is_with_effect(name: str) -> bool:
    """Returns whether a field of the config belongs to the identity of a run."""
    return not name.startswith(_WITHOUT_EFFECT)


def differing_fields(
    ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Returns both values of each field in which two flat configs differ, sorted by name.

    A field that is missing, as in configs of older versions, counts as its default.
    """
    defaults = config_lib.flat(Config())
    ours, theirs = {**defaults, **ours}, {**defaults, **theirs}
    values = {name: (ours.get(name), theirs.get(name)) for name in ours.keys() | theirs.keys()}
    return {name: values[name] for name in sorted(values) if values[name][0] != values[name][1]}


def missing_fields(config: Mapping[str, Any]) -> list[str]:
    """Returns the fields that can change a result and are missing in a flat config."""
    missing = config_lib.flat(Config()).keys() - config.keys()
    return sorted(name for name in missing if is_with_effect(name))
