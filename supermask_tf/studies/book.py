"""Building the book from a checkout's records."""

import subprocess
import sys
from pathlib import Path

__all__ = ["build"]


def build(source: str | Path) -> int:
    """Build the book of a checkout with this environment's jupyter-book; return the exit code.

    Raises:
        FileNotFoundError: if the folder is no checkout.
    """
    source = Path(source).resolve()
    if not (source / "_config.yml").is_file():
        raise FileNotFoundError(
            f"There is no _config.yml in {source}: give the folder of a checkout as --source."
        )
    # This environment's, not the first jupyter-book on the PATH.
    script = Path(sys.executable).with_name("jupyter-book")
    module = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()"]
    builder = [str(script)] if script.exists() else module
    command = [*builder, "build", str(source), "--warningiserror", "--keep-going"]
    if subprocess.run(command, check=False).returncode:
        problem = "the book was not built: the messages above say which page."
        print(f"supermask: {problem}", file=sys.stderr)
        return 1
    print(f"\nThe book: {source / '_build' / 'html' / 'index.html'}")
    return 0
