"""Files that are whole or absent, and their checksums. ::

with whole_folder(place) as partial:            # renamed to `place` when the block ends
    write_json(partial / "facts.json", facts)
replace_file(place, lambda path: np.savez(path, **arrays))
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = [
    "digest",
    "flush_to_disk",
    "read_json",
    "replace_file",
    "sha256",
    "whole_folder",
    "write_json",
]

# Parameters, a summary: a few kilobytes. A larger file is none of ours.
LARGEST_JSON = 2**20


def sha256(path: Path) -> str:
    """The checksum of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digest(content: dict[str, Any]) -> str:
    """The checksum of what JSON can hold, however it is laid out in a file."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def write_json(path: Path, content: Any) -> None:
    """Write what JSON can hold, in UTF-8, one value per line."""
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """The object in a JSON file.

    Args:
        path: the file.
        largest: the most bytes that it may have.

    Raises:
        OSError: if it can't be read.
        ValueError: if it holds no object, or is out of all proportion.
    """
    if path.stat().st_size > largest:
        raise ValueError(f"it has more than {largest} bytes")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(content, dict):
        raise ValueError("it holds no parameters")
    return content


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """A folder to write into, which gets the name `place` when all of it is written, and goes away
    otherwise.

    Its files reach the disk first: after a power cut a name may be there whose content is not.
    """
    partial = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
    try:
        os.chmod(partial, 0o755)
        yield partial
        for path in (*partial.rglob("*"), partial):
            flush_to_disk(path)
        os.replace(partial, place)
        flush_to_disk(place.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_file(place: Path, write: Callable[[Path], Any]) -> None:
    """Write a file beside its place and rename it there; the folder is made if it is missing."""
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.with_name(f".{os.getpid()}.{place.name}")
    try:
        write(partial)
        flush_to_disk(partial)
        os.replace(partial, place)
        flush_to_disk(place.parent)
    finally:
        partial.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
