"""Pillow reads and writes .sempic files once this module is imported.

    import PIL.Image
    import sempic.pillow

    picture = PIL.Image.open("photo.sempic")          # reads size and `info`, decodes no pixels
    picture.load(steps=1, seed=7)                     # optional: decodes with options
    PIL.Image.open("photo.jpg").save("photo.sempic", quality=3)

Libraries that open pictures through Pillow (imageio, torchvision, …) then open .sempic, too. Errors
are Pillow's: reading raises `OSError` (`PIL.UnidentifiedImageError` for a damaged file), writing
raises `OSError`, or `ValueError` for a wrong option. The message and the cause are sempic's.
"""

from __future__ import annotations

import mimetypes
from typing import IO, Any

import PIL.Image
from PIL import ImageFile, UnidentifiedImageError

from sempic import api, fields
from sempic.container import MAGIC, SEQUENCE_MAGIC
from sempic.errors import BitstreamError, InputError, SempicError
from sempic.options import EncodeOptions

MIME = "image/x-sempic"
"""Media type; not registered with IANA, hence the x."""

_SAVED = {"labels", *fields.of(EncodeOptions)}
"""Options of `save` for `sempic.encode`; all others are for other formats."""


class SempicImageFile(ImageFile.ImageFile):
    """An opened .sempic file, mode RGB; `info` holds the items of `sempic.info`."""

    format = "SEMPIC"
    format_description = "SEMPIC semantic image"
    _stream: bytes | None = None
    """The stream until the pixels are decoded; a copy has pixels."""

    def _open(self) -> None:
        assert self.fp is not None
        stream = self.fp.read()
        try:
            found = api.info(stream)
        except BitstreamError as error:
            raise UnidentifiedImageError(str(error)) from error
        self._mode = "RGB"
        self._size = (found["width"], found["height"])
        self.info.update(found)
        self._stream = stream

    def load(self, **options: Any) -> Any:
        """Decode the pixels at the first call; options (steps, seed, …) of `sempic.decode`.

        Raises ValueError for options that come later: they would have no effect."""
        if self._stream is not None:
            try:
                picture = api.decode(self._stream, **options)
            except InputError as error:
                raise ValueError(str(error)) from error
            except SempicError as error:
                raise OSError(str(error)) from error
            self.im, self._stream = picture.im, None
            if self._exclusive_fp and self.fp is not None:
                self.fp.close()
            self.fp = None
        elif options:
            raise ValueError("the picture is decoded or closed: open the file again for options")
        return PIL.Image.Image.load(self)

    def close(self) -> None:
        """Close the file; later calls of `load` raise ValueError."""
        super().close()
        self._stream = None


def _save(picture: PIL.Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    options = {k: v for k, v in picture.encoderinfo.items() if k in _SAVED and v is not None}
    try:
        file.write(api.encode(picture, **options))
    except InputError as error:
        raise ValueError(str(error)) from error
    except SempicError as error:
        raise OSError(str(error)) from error


def _save_all(picture: PIL.Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    if picture.encoderinfo.get("append_images") or getattr(picture, "n_frames", 1) > 1:
        raise ValueError("a .sempic file holds one picture; save_all=False saves this frame alone")
    _save(picture, file, filename)


PIL.Image.register_open(  # of a sequence, the error says what it is
    SempicImageFile.format,
    SempicImageFile,
    lambda start: start.startswith((MAGIC, SEQUENCE_MAGIC)),
)
PIL.Image.register_save(SempicImageFile.format, _save)
PIL.Image.register_save_all(SempicImageFile.format, _save_all)
PIL.Image.register_extension(SempicImageFile.format, ".sempic")
PIL.Image.register_mime(SempicImageFile.format, MIME)
mimetypes.add_type(MIME, ".sempic")
