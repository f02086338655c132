"""The command line of the entry points: `--config=FILE --config.FIELD=VALUE`, and errors in one line."""

import dataclasses
import difflib
import errno
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import flags
from ml_collections import config_flags

from fgr_jax import config as config_lib
from fgr_jax import distributed
from fgr_jax.config import Config
from fgr_jax.errors import UserError
from fgr_jax.files import python_files

_OVERRIDE = re.compile(r"--?(?:no)?config\.([\w.]+)")
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclasses.dataclass(frozen=True, slots=True)
class Invocation:
    """A command line that was understood."""

    config: Config
    config_path: Path
    flags: flags.FlagValues  # the entry point's own


def run(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs an entry point and exits with its status; a UserError becomes one line and status 1."""
    try:
        status = main(sys.argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except BrokenPipeError:  # whoever read our output has seen enough
        os._exit(128 + signal.SIGPIPE)
    except OSError as error:
        if error.errno is None or not (error.errno in _DISK_FULL or error.filename):
            raise
        where = f": {error.filename}" if error.filename else ""
        way_out = "make room" if error.errno in _DISK_FULL else "put that right"
        print(
            f"error: {os.strerror(error.errno)}{where}; {way_out} and run the same command again",
            file=sys.stderr,
        )
        status = 1
    except KeyboardInterrupt:
        print("stopped without saving", file=sys.stderr)
        status = 130
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: after an error, threads that decode or save must not hold the process up.
    os._exit(status)


def parse(argv: Sequence[str], usage: str, own_flags: flags.FlagValues) -> Invocation:
    """Reads `--config`, its overrides and the entry point's own flags.

    Args:
      argv: the command line, the program's name first.
      usage: what `--help` prints above the config's fields.
      own_flags: the entry point's flags; `config` is defined here.

    Raises:
      UserError: an unknown flag or field, a value of the wrong type, a config file that is not there
        or does not work.
    """
    path, argument = _config_path(argv)
    if _asks_for_help(argv):
        print(usage.rstrip() + "\n")
        print(f"fields of {path or 'a config'}, each --config.FIELD=VALUE:")
        shown = _load(path, argument) if path else Config()
        for name, value in config_lib.flat(shown).items():
            print(f"  {name} = {value!r}")
        sys.exit(0)
    if path is None:
        raise UserError("no config: name one, as in --config=configs/quickstart.py")
    loaded = _load(path, argument)
    _check_overrides(argv)
    rest = _without_config(argv)
    holder = config_flags.DEFINE_config_dataclass(
        "config", loaded, "the run", flag_values=own_flags, sys_argv=rest
    )
    parse_flags(rest, usage, own_flags)
    config_lib.validate(holder.value)
    return Invocation(holder.value, path, own_flags)


def parse_flags(
    argv: Sequence[str],
    usage: str,
    own_flags: flags.FlagValues,
    *,
    positional: Sequence[str] = (),
) -> list[str]:
    """Reads the flags of an entry point that takes no config, or of one whose config is read.

    Args:
      argv: the command line, the program's name first.
      usage: what `--help` prints.
      own_flags: the entry point's flags.
      positional: what the arguments without a name are called; "PATH ..." stands for one or more.

    Returns:
      The arguments without a name.

    Raises:
      UserError: an unknown flag, a missing one, a value of the wrong type, too many or too few
        arguments.
    """
    if _asks_for_help(argv):
        print(usage.rstrip())
        sys.exit(0)
    flags.FLAGS(argv[:1])  # Grain's worker processes want absl's own flags parsed, though unused
    try:
        rest = own_flags(argv)[1:]
    except (flags.Error, ValueError) as error:
        raise UserError(" ".join(str(error).split())) from error
    any_number = bool(positional) and positional[-1].endswith(" ...")
    if len(rest) > len(positional) and not any_number:
        extra = rest[len(positional)]
        raise UserError(f"{extra!r} is no flag: every argument has the form --name=value")
    if len(rest) < len(positional):
        raise UserError(f"needs {' and '.join(positional)}; --help says what they are")
    return rest


def define_job_flags(own_flags: flags.FlagValues) -> None:
    """The flags of an entry point that several processes can run together; see `join_job`."""
    flags.DEFINE_bool("distributed", False, "be one of several processes", flag_values=own_flags)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0", flag_values=own_flags)
    flags.DEFINE_integer("process_count", None, "how many", flag_values=own_flags)
    flags.DEFINE_integer("process_id", None, "which one, from 0", flag_values=own_flags)
    flags.DEFINE_integer("join_timeout", 300, "in seconds", lower_bound=1, flag_values=own_flags)


def join_job(own_flags: flags.FlagValues) -> None:
    """Joins the other processes, where the flags ask for it, before any device is asked for."""
    ours = own_flags
    where = (ours.coordinator, ours.process_count, ours.process_id)
    if ours.distributed or any(value is not None for value in where):
        distributed.join(*where, timeout_s=ours.join_timeout)


def config_arguments(argv: Sequence[str]) -> list[str]:
    """The arguments that make the config, and no others: for another command with the same one."""
    rest = _without_config(argv)
    of_fields = overrides(argv)
    return [argument for argument in argv[1:] if argument not in rest or argument in of_fields]


def overrides(argv: Sequence[str]) -> list[str]:
    """The arguments that set a field of the config."""
    return [argument for argument in argv[1:] if _OVERRIDE.match(argument)]


def _asks_for_help(argv: Sequence[str]) -> bool:
    return "--help" in argv or "-h" in argv


def _config_path(argv: Sequence[str]) -> tuple[Path | None, str | None]:
    """FILE and ARGUMENT of `--config=FILE:ARGUMENT`; the argument goes to `get_config`."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        if name in ("--config", "-config"):
            file, colon, rest = (value if equals else following).partition(":")
            return Path(file), rest if colon else None
    return None, None


def _without_config(argv: Sequence[str]) -> list[str]:
    """The command line without `--config=FILE`, which `_load` has dealt with."""
    rest = list(argv)
    for index, argument in enumerate(argv):
        if argument in ("--config", "-config"):
            del rest[index : index + 2]
            break
        if argument.startswith(("--config=", "-config=")):
            del rest[index]
            break
    return rest


def _load(path: Path, argument: str | None) -> Config:
    """Runs the config file once, to say what is wrong with it."""
    return python_files.load(
        path,
        "get_config",
        Config,
        flag="--config",
        arguments=[] if argument is None else [argument],
    )


def _check_overrides(argv: Sequence[str]) -> None:
    known = list(config_lib.flat(Config()))
    for argument in argv:
        match = _OVERRIDE.match(argument)
        if match and match.group(1) not in known:
            close = difflib.get_close_matches(match.group(1), known, n=1)
            hint = f"did you mean --config.{close[0]}?" if close else "--help lists the fields"
            raise UserError(f"--config.{match.group(1)}: there is no such field; {hint}")
