"""Lists the commands, and runs them: `fgr train ...` is `python -m fgr_jax.main ...`."""

import ast
import difflib
import runpy
import sys
from pathlib import Path

# The module of each command.
COMMANDS = {
    "prepare": "prepare",
    "train": "main",
    "evaluate": "evaluate",
    "predict": "predict",
    "report": "report",
    "serve": "serve",
    "sweep": "sweep",
    "verify": "verify",
    "export": "export",
    "features": "features",
    "benchmark": "benchmark",
}


def main() -> None:
    """Runs the command that `sys.argv` names; without a name, or with --help, lists all commands."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print("fgr COMMAND --FLAG=VALUE ...    (fgr COMMAND --help describes its flags)\n")
        for command, module in COMMANDS.items():
            print(f"  {command:16}{summary(module)}")
        print(
            "\nfgr train is python -m fgr_jax.main, and the others have the names of their modules."
        )
    elif name in COMMANDS:
        sys.argv = [sys.argv[0], *arguments]
        # As with `python -m`, so that worker processes can import the main module again.
        runpy.run_module(f"fgr_jax.{COMMANDS[name]}", run_name="__main__", alter_sys=True)
    else:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean fgr {close[0]}?" if close else "fgr --help lists them"
        print(f"error: {name!r} is not a command; {hint}", file=sys.stderr)
        sys.exit(2)


def summary(module: str) -> str:
    """Returns the first line of a command's docstring, without importing the module."""
    path = Path(__file__).parent / module
    source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0]


if __name__ == "__main__":
    main()
