"""The folder of a run: on this machine, or in a bucket with its small files copied here."""

import dataclasses
import tempfile
from pathlib import Path

from etils import epath

from fgr_jax.files import buckets

LOCK = "lock"  # held by the process that trains there
_CHECKPOINTS = "checkpoints"


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """Where a run writes.

    Files are appended to, and a bucket cannot append. So a run in a bucket writes its small files into
    a temporary folder, and `publish` copies those that have changed to the bucket.
    """

    name: str  # as the person calls it
    flag: str  # with which the person named it
    local: Path  # the small files
    checkpoints: epath.Path  # the large ones, where they belong
    _remote: epath.Path | None = None
    _published: dict[str, tuple[int, int]] = dataclasses.field(default_factory=dict)

    @classmethod
    def open(cls, name: str | Path, *, flag: str = "--workdir") -> "RunFolder":
        """The folder `name`, which need not exist.

        Args:
          name: of a folder, or gs://BUCKET/FOLDER.
          flag: with which it was named, for errors.

        Raises:
          UserError: it is in a bucket that cannot be reached.
        """
        name = str(name)
        if not buckets.is_in_bucket(name):
            local = Path(name)
            return cls(name, flag, local, epath.Path(local.absolute()) / _CHECKPOINTS)
        remote = buckets.open_folder(name, flag)
        local = Path(tempfile.mkdtemp(prefix="fgr_jax-"))
        folder = cls(name, flag, local, remote / _CHECKPOINTS, remote)
        if remote.exists():
            for path in remote.iterdir():
                if not path.is_dir():
                    path.copy(local / path.name)
        # Whoever opens a run to read it must not write back what a job has replaced since.
        folder._published.update(folder._states())
        return folder

    def publish(self) -> None:
        """Copies what has changed since the last time to the bucket; for a local folder, nothing."""
        if self._remote is None:
            return
        for relative, state in self._states().items():
            if self._published.get(relative) != state:
                path = epath.Path(self.local / relative)
                path.copy(self._remote / relative, overwrite=True)
                self._published[relative] = state

    def _states(self) -> dict[str, tuple[int, int]]:
        """Size and time of change of every small file, by its path in the folder."""
        states = {}
        for path in sorted(self.local.rglob("*")):
            relative = path.relative_to(self.local).as_posix()
            if path.is_file() and relative != LOCK:
                status = path.stat()
                states[relative] = (status.st_size, status.st_mtime_ns)
        return states
