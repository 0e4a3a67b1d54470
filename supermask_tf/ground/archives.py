"""Arrays from an `.npz` that anybody may have made: nothing is unpickled, and nothing is believed
before it is checked. ::

    # ValueError, in one sentence, if anything is wrong
    arrays = archives.read("mine.npz", ["x_train", "y_train"])

An `.npz` is a zip of `.npy` files, each a header (dtype, shape) before its bytes. A few hundred
bytes can promise terabytes in either; so the sizes that zip and headers declare must agree with
each other, and with the file, before memory is taken.
"""

import math
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

__all__ = ["memory", "read"]

# Drawings, masks and constants may be packed a thousand times. What is packed more than a hundred
# times is read up to a size that the records of large networks keep (23 million logits are 93 MB),
# or that the caller allows.
_RATIO, _FREE = 100, 2**28
# Deflate can't pack more (https://www.zlib.net/zlib_tech.html): what declares more is not there.
_DEFLATE = 1032


def read(
    path: str | Path, keys: Iterable[str] | None = None, most: int = 0
) -> dict[str, np.ndarray]:
    """The arrays of an `.npz`, by key.

    Args:
        path: the file.
        keys: the arrays wanted; all of them unless given.
        most: bytes that the arrays may take together, however well they are packed. 256 MiB and a
            hundred times the size of the file are always allowed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no such archive, an array is missing or anything else than plain
            numbers and text, a member's name leads out of the archive, or sizes disagree or are out
            of proportion to the file. It says what was wrong.
    """
    try:
        size = os.stat(path).st_size
        with open(path, "rb") as stream:
            start = stream.read(6)
            if start == b"\x93NUMPY":
                raise ValueError("it holds a single array")
            with zipfile.ZipFile(stream) as archive:
                members = _members(archive)
                wanted = list(members if keys is None else keys)
                missing = [key for key in wanted if key not in members]
                if missing:
                    raise ValueError(
                        f"it has no array {missing[0]!r}, only {', '.join(members) or 'none'}"[:500]
                    )
                chosen = [members[key] for key in wanted]
                packed = sum(member.compress_size for member in chosen)
                if packed > size or any(map(_impossible, chosen)):
                    raise ValueError("it declares more than its bytes can hold")
                total = sum(member.file_size for member in chosen)
                most = max(most, _FREE + _RATIO * size)
                if total > most:
                    raise ValueError(
                        f"its {size:,} bytes would unpack to {total:,}, and of such a file no more "
                        f"than {most:,} are read; if it is your own, save it with plain np.savez"
                    )
                return {key: _array(archive, members[key]) for key in wanted}
    except FileNotFoundError:
        raise
    # zip, inflate, headers and memory each fail in ways of their own: all of them are the file's
    # fault
    except Exception as error:
        raise ValueError(f"{' '.join(str(error).split()) or type(error).__name__}") from error


def memory() -> int:
    """The bytes of memory that this process may have: the machine's, or its container's if less."""
    try:
        most = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # Windows does not say
        most = 2**33
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            most = min(most, int(Path(limit).read_text()))
        except (OSError, ValueError):  # no container, or none with a limit
            pass
    return most


def _impossible(member: zipfile.ZipInfo) -> bool:
    """Whether a member declares more bytes than its packed ones can stand for."""
    stored = member.compress_type == zipfile.ZIP_STORED
    return member.file_size > (member.compress_size if stored else _DEFLATE * member.compress_size)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """The archive's members by key."""
    members: dict[str, zipfile.ZipInfo] = {}
    for member in archive.infolist():
        parts = member.filename.split("/")
        if "\\" in member.filename or {"", ".", ".."} & set(parts):
            raise ValueError(f"its member {member.filename[:80]!r} leads out of it")
        if not member.filename.endswith(".npy"):
            continue
        key = member.filename.removesuffix(".npy")
        if key in members:
            raise ValueError(f"it holds two arrays {key[:80]!r}")
        members[key] = member
    return members


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    key = member.filename.removesuffix(".npy")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"its array {key!r} is compressed in a way that numpy does not write")
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"its array {key!r} is of the unknown format {version}")
        shape, _, dtype = readers[version](stream)
        if dtype.kind not in "biufU":
            raise ValueError(
                f"its array {key!r} holds {dtype}"
                + (
                    ": Python objects, which would have to be unpickled"
                    if dtype.hasobject
                    else ", neither numbers nor text"
                )
            )
        if (
            min(shape, default=0) < 0
            or stream.tell() + math.prod(shape) * dtype.itemsize != member.file_size
        ):
            raise ValueError(
                f"its array {key!r} declares the shape {shape} of {dtype}, which is not what the"
                " archive holds"
            )
    with archive.open(member) as stream:
        array = np.lib.format.read_array(stream, allow_pickle=False)
        stream.read(1)  # at its end the member's own checksum is compared
    return array
