"""The command line: `--config=FILE --config.FIELD=VALUE`, flags, and one-line errors.

Every command imports this module first: from then on signals are handled, and it reports what to install
if a package is missing.
"""

# Before imports that take time or keep sys.stderr.
from fgr_jax import huge_pages, output, signals  # isort: skip

if signals.is_command():
    huge_pages.request()
    signals.install()
    output.guard_output()

import dataclasses
import difflib
import errno
import os
import re
import signal
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

try:
    from absl import flags
    from ml_collections import config_flags
except ModuleNotFoundError as error:
    sys.exit(
        f"error: {error.name} is not installed; the commands need pip install 'fgr-jax[train]'"
    )

from fgr_jax import config as config_lib
from fgr_jax.config import Config
from fgr_jax.errors import UserError, shown
from fgr_jax.files import python_files
from fgr_jax.files.local import local_path

_OVERRIDE = re.compile(r"--?(?:no)?config\.([\w.]+)")
_HELP = {"--help", "-h"}
_HELP_WIDTH, _HELP_INDENT = 105, 43  # columns
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True, slots=True)
class Invocation:
    """A parsed command line."""

    config: Config
    config_path: Path
    config_arguments: list[str]  # that reproduce the config on another command line


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs a command and exits with its status.

    Errors of the user and of the disk, signals, and a lost output become one line.
    """
    try:
        with signals.raised():
            status = main(sys.argv)
    except SystemExit as ended:  # after --help
        status = int(ended.code or 0)
    except UserError as error:
        _fail(*error.args)
        status = error.exit_status
    except signals.Stopped as stopped:
        _print_error(str(stopped))
        status = 128 + stopped.number
    except OSError as error:
        status = _fail_on_disk(error)
    except Exception:
        status = _fail_as_bug()
    for stream in (sys.stdout, sys.stderr):
        if stream:
            stream.flush()
    failure = output.failure_of("stdout")
    if failure and failure.errno == errno.EPIPE:
        status = status or 128 + signal.SIGPIPE
    elif failure and failure.errno != errno.EIO:  # EIO: the terminal is gone
        status = status or _fail(f"standard output: {failure.strerror}; some of it is lost")
    # Not sys.exit: after an error, threads that decode or save must not delay the exit.
    signals.end(status)


def _fail(message: str, *details: str) -> int:
    """Prints an error in one line, with a line for each detail, and returns the exit status."""
    _print_error(f"error: {message}", *details)
    return 1


def _fail_on_disk(error: OSError) -> int:
    if error.errno is None or not (error.errno in _DISK_FULL or error.filename):
        return _fail_as_bug()
    where = f": {error.filename}" if error.filename else ""
    way_out = "make room" if error.errno in _DISK_FULL else "correct this"
    return _fail(f"{os.strerror(error.errno)}{where}; {way_out} and run the same command again")


def _fail_as_bug() -> int:
    """Prints the traceback of the exception that is being handled."""
    sys.excepthook(*sys.exc_info())
    return 1


def _print_error(*lines: str) -> None:
    print("\n  ".join(map(shown, lines)), file=sys.stderr, flush=True)


def parse(argv: Sequence[str], usage: str, own_flags: flags.FlagValues) -> Invocation:
    """Reads `--config`, its overrides and the command's own flags.

    Args:
      argv: the command line, the program's name first.
      usage: what `--help` prints above the config's fields.
      own_flags: the command's flags; `config` is defined here.

    Raises:
      UserError: a flag or field is unknown, a value is invalid, or the config file is missing or fails.
    """
    argv = define_config(argv, own_flags)
    if _HELP.intersection(argv):
        _read([argument for argument in argv if argument not in _HELP], own_flags, known_only=True)
        print(usage.rstrip() + "\n")
        _print_fields(own_flags.config)
        sys.exit(0)
    parse_flags(argv, usage, own_flags)
    path = config_file(own_flags)
    if path is None:
        raise UserError("no config: name one, as in --config=configs/quickstart.py")
    config_lib.validate(own_flags.config)
    arguments = [f"--config={path}", *overrides(own_flags)]
    return Invocation(own_flags.config, _split(path)[0], arguments)


def parse_fields(argv: Sequence[str], usage: str, own_flags: flags.FlagValues) -> dict[str, Any]:
    """Reads the flags of a command that opens a run, and returns the fields of its config to change.

    Raises:
      UserError: as of `parse_flags`, or there is a config: the run has its own.
    """
    parse_flags(define_config(argv, own_flags), usage, own_flags)
    path = config_file(own_flags)
    if path is not None:
        raise UserError(f"--config={path}: the run has its own config; name single fields")
    return given_fields(own_flags)


def define_config(argv: Sequence[str], own_flags: flags.FlagValues) -> list[str]:
    """Defines `--config=FILE[:ARGUMENT]` and a flag for each of its overrides in `argv`.

    The argument goes to the file's `get_config`.

    Returns:
      `argv`, with --config=FILE before its overrides.

    Raises:
      UserError: there are two files, or an override names a field that does not exist.
    """
    known = list(config_lib.flat(Config()))
    files, others = [], []
    arguments = iter(argv[1:])
    for argument in arguments:
        match = _OVERRIDE.match(argument)
        if argument in ("--config", "-config"):
            files.append(f"--config={next(arguments, '')}")
        elif argument.startswith(("--config=", "-config=")):
            files.append(argument)
        elif match is None or match.group(1) in known:
            others.append(argument)
        elif not _HELP.intersection(argv):
            close = difflib.get_close_matches(match.group(1), known, n=1)
            hint = f"did you mean --config.{close[0]}?" if close else "--help lists the fields"
            raise UserError(f"--config.{match.group(1)}: there is no such field; {hint}")
    if len(files) > 1:
        raise UserError(f"{files[-1]}: is a second config; name one file")
    argv = [argv[0], *files, *others]
    config_flags.DEFINE_config_dataclass(
        "config", Config(), "the run", flag_values=own_flags, sys_argv=argv, parse_fn=_load
    )
    return argv


def config_file(own_flags: flags.FlagValues) -> str | None:
    """Returns FILE[:ARGUMENT] of `--config` as given by the user; None without it."""
    given = own_flags["config"]
    return config_flags.get_config_filename(given) if given.present else None


def overrides(own_flags: flags.FlagValues) -> list[str]:
    """Returns the arguments that override fields of the config, after `define_config`."""
    return [f"--config.{name}={value}" for name, value in given_fields(own_flags).items()]


def given_fields(own_flags: flags.FlagValues) -> dict[str, Any]:
    """Returns the fields of the config that the arguments override, after `define_config`."""
    return dict(config_flags.get_override_values(own_flags["config"]))


def parse_flags(
    argv: Sequence[str], usage: str, own_flags: flags.FlagValues, *, positional: Sequence[str] = ()
) -> list[str]:
    """Reads the flags of a command.

    Args:
      argv: the command line, the program's name first.
      usage: what `--help` prints.
      own_flags: the command's flags.
      positional: names of the arguments that are not flags; "PATH ..." stands for one or more.

    Returns:
      The arguments that are not flags.

    Raises:
      UserError: a flag is unknown, missing or of the wrong type, or the number of arguments is wrong.
    """
    if _HELP.intersection(argv):
        print(usage.rstrip())
        sys.exit(0)
    flags.FLAGS(argv[:1])  # Grain's worker processes want absl's own flags parsed, though unused
    rest = _read(argv, own_flags)[1:]
    any_number = any(name.endswith(" ...") for name in positional)
    if len(rest) > len(positional) and not any_number:
        extra = rest[len(positional)]
        raise UserError(f"{extra!r} is not a flag: every argument has the form --name=value")
    if len(rest) < len(positional):
        raise UserError(f"needs {' and '.join(positional)}; --help says what they are")
    return rest


def _read(
    argv: Sequence[str], own_flags: flags.FlagValues, *, known_only: bool = False
) -> list[str]:
    """Reads the flags and returns the other arguments, the program's name first."""
    try:
        return own_flags(argv, known_only=known_only)
    except (flags.Error, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error


def define_job_flags(own_flags: flags.FlagValues) -> None:
    """Defines the flags of a command that several processes run together; see `join_job`."""
    flags.DEFINE_bool("distributed", False, "join the processes of a job", flag_values=own_flags)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0", flag_values=own_flags)
    flags.DEFINE_integer("process_count", None, "number of processes", flag_values=own_flags)
    flags.DEFINE_integer("process_id", None, "index of this process, from 0", flag_values=own_flags)
    flags.DEFINE_integer("join_timeout", 300, "in seconds", lower_bound=1, flag_values=own_flags)


def join_job(own_flags: flags.FlagValues, *, saves: bool = False) -> None:
    """Joins the other processes if the flags say so. Must be called before JAX has a device.

    JAX then handles SIGTERM, for a command that `saves`; other commands end as without a job.
    """
    where = (own_flags.coordinator, own_flags.process_count, own_flags.process_id)
    if own_flags.distributed or any(value is not None for value in where):
        from fgr_jax import distributed  # imports JAX, which --help does without

        distributed.join(*where, timeout_s=own_flags.join_timeout)
        if not saves:
            signals.install_handlers()


def _load(value: str) -> Config:
    """Returns the config that FILE or FILE:ARGUMENT defines."""
    file, arguments = _split(value)
    return python_files.load(file, "get_config", Config, flag="--config", arguments=arguments)


def _split(value: str) -> tuple[Path, list[str]]:
    """Returns FILE and, in a list, ARGUMENT of FILE or FILE:ARGUMENT; both may have more colons."""
    parts = value.split(":")
    if value.startswith("~"):
        parts[0] = str(local_path(parts[0], "--config"))
    ends = [end for end in range(1, len(parts) + 1) if Path(":".join(parts[:end])).is_file()]
    end = ends[0] if ends else 1
    arguments = [":".join(parts[end:])] if end < len(parts) else []
    return Path(":".join(parts[:end])), arguments


def _print_fields(config: Config) -> None:
    print("fields of the config, each --config.FIELD=VALUE:")
    wrapper = textwrap.TextWrapper(
        _HELP_WIDTH, subsequent_indent=" " * _HELP_INDENT, break_on_hyphens=False
    )
    for name, field, value in config_lib.fields(config):
        wrapper.initial_indent = f"  {name} = {value!r}  ".ljust(_HELP_INDENT)
        print(wrapper.fill(field.metadata["documentation"]))
