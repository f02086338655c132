"""What describes a run: its config, what it is trained on, and the names of the classes."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.data.identity import DataIdentity

# Where things are and how the machine is used change no result.
_WITHOUT_EFFECT = ("runtime.", "data.data_dir")


@dataclasses.dataclass(frozen=True, slots=True)
class Description:
    """Two runs with equal descriptions are the same run, but for fields without effect."""

    # By command-line names, as of `config.flat`; of an older version it may lack fields.
    config: dict[str, Any]
    data: DataIdentity  # of the training split
    class_names: list[str]

    def differences(self, other: "Description") -> list[str]:
        """Returns what keeps `other` from resuming this run, each in a few words."""
        words = [
            f"{name} (there {ours!r}, now {theirs!r})"
            for name, (ours, theirs) in differing_fields(self.config, other.config).items()
            if not name.startswith(_WITHOUT_EFFECT)
        ]
        if self.data != other.data:
            words.append(f"data set (there {self.data}, now {other.data})")
        if self.class_names != other.class_names:
            words.append("the class names")
        return words


def differing_fields(
    ours: Mapping[str, Any], theirs: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
    """Returns both values of each field in which two flat configs differ, by name and in order.

    A field that one of them lacks has its default there: the version that wrote it was older.
    """
    defaults = config_lib.flat(Config())
    ours, theirs = {**defaults, **ours}, {**defaults, **theirs}
    values = {name: (ours.get(name), theirs.get(name)) for name in ours.keys() | theirs.keys()}
    return {name: values[name] for name in sorted(values) if values[name][0] != values[name][1]}


def missing_fields(config: Mapping[str, Any]) -> list[str]:
    """Returns the fields, of those that can change a result, that a flat config lacks."""
    missing = config_lib.flat(Config()).keys() - config.keys()
    return sorted(name for name in missing if not name.startswith(_WITHOUT_EFFECT))
