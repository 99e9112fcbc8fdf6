"""Files that grow frame by frame and survive an interruption."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from sempic import files
from sempic.errors import OutputError, refused


class Growing:
    """An unbuffered file: after each `write` the frames until then can be decoded.

    An existing file stays until `close`; the new one is `NAME.part` until then, if that name is
    free. Devices, pipes and open files are written directly.
    """

    def __init__(self, path: Path) -> None:
        """Raises OutputError if the file cannot be written."""
        self._path, self._part = path, None
        with refused(OutputError, f"{path}: cannot write"):
            stream = files.direct_target(path)
            self.is_new = stream is None and not path.exists()
            """Whether no file had this name."""
            if stream is None and not self.is_new:
                self._part = make_part(files.replaceable(path))
            name = stream if stream is not None else self._part or os.path.realpath(path)
            self._file: IO[bytes] = open(name, "wb", buffering=0)  # noqa: SIM115
        self.size = 0

    def write(self, data: bytes) -> None:
        with refused(OutputError, f"{self._path}: cannot write"):
            files.write_all(self._file, data)
        self.size += len(data)

    def close(self, *, keep: bool) -> None:
        """keep: False removes the new file, and leaves the one that was there before; so does an
        empty file."""
        keep = keep and self.size > 0
        self._file.close()
        if self._part is not None:
            if keep:
                files.move_to_target(self._part, self._path)
            else:
                self._part.unlink(missing_ok=True)
        elif not keep and self.is_new:
            Path(os.path.realpath(self._path)).unlink(missing_ok=True)

    def interrupt(self) -> str:
        """Closes the file early, and returns a message that says where it is: at its path, or at
        `NAME.part` if a file was there. "": nothing was written, or the path is no file."""
        if not self.size:
            self.close(keep=False)
            return ""
        self._file.close()
        if self._part is None and not self.is_new:
            return ""
        return kept_message(self._path, self._part)


def kept_message(path: Path, part: Path | None = None) -> str:
    """After an interruption; part: the file with the frames, if it is not at the path."""
    if part is None:
        return f"{path} has all frames until now"
    return f"{path} is as it was, and {part} has all frames until now"


def make_part(target: Path) -> Path:
    """Makes `NAME.part`, which users find after a crash. If the name is too long or taken, or its
    folder is read-only, returns another name, of no file yet."""
    part = target.with_name(target.name + ".part")
    try:
        part.open("xb").close()
    except OSError:
        return files.temporary_for(target)
    return part
