"""docs/update_benchmarks.py: the page's commands, run again, and their output written into it."""

import datetime
import re
import runpy
import subprocess
import sys
from pathlib import Path

from tiny_run import ROOT

SCRIPT = ROOT / "docs" / "update_benchmarks.py"
PAGE = """# Figures

```
python -c 'print(6 * 7)  # first'
```

```text
41
older
```

*A machine; 2020-01-01*

```
python -c 'raise SystemExit(3)  # first'
```

```text
kept
```

*A machine; 2020-01-01*

```
python -c 'print(1)  # second'
```

```text
0
```

*A machine; 2020-01-01*
"""


def update(folder: Path, *words: str) -> tuple[str, str]:
    """Returns the page after the script ran beside it, and what the script wrote to stderr."""
    (folder / "docs").mkdir(exist_ok=True)
    script = folder / "docs" / SCRIPT.name
    script.write_bytes(SCRIPT.read_bytes())
    (folder / "docs" / "benchmarks.md").write_text(PAGE)
    command = [sys.executable, str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return (folder / "docs" / "benchmarks.md").read_text(), done.stderr


def test_selected_commands_are_run_again_and_a_failed_one_changes_nothing(tmp_path: Path) -> None:
    page, errors = update(tmp_path, "first")
    assert "```text\n42\n```" in page
    assert "41" not in page
    assert page.count(datetime.date.today().isoformat()) == 1
    assert "error: status 3; the figures stay as they were" in errors
    # The other two blocks are those from before.
    assert page.endswith(PAGE[PAGE.index("```\npython -c 'raise") :])


def test_every_output_on_the_page_belongs_to_a_command() -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    pattern: re.Pattern[str] = runpy.run_path(str(SCRIPT), run_name="imported")["BLOCK"]
    found = [match["command"] for match in pattern.finditer(text)]
    assert all(command.startswith("python -m fgr_jax.benchmark ") for command in found)
    assert len(found) == text.count("```text\n") > 1
