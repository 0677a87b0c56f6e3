"""Source images: a path, bytes, a file object or a PIL image, checked and hashed before anything is sent. Blocking."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import sys
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TypeAlias, cast

from wavespeed_qwen_async.errors import ConfigurationError, InvalidJobError

from .files import CHUNK
from .images import CONTENT_TYPES, ImageFormat, ImageInfo, is_whole, measure

if TYPE_CHECKING:
    from collections.abc import Callable

    from PIL.Image import Image as PILImage

    from .images import Reader

__all__ = ["MAX_BYTES", "MAX_PIXELS", "Blob", "Source", "Sources"]

MAX_BYTES = 20 * 1024 * 1024
"""The API takes images of up to 20 MB (wavespeed-api.md, media)."""
MAX_PIXELS = 178_956_970
"""Beyond it Pillow takes an image for a decompression bomb (``PIL.Image.MAX_IMAGE_PIXELS``, twice)."""

_MAX_REMEMBERED = 4096
_SETTLED = 2_000_000_000  # ns; FAT tells times to 2 s: a younger file may change again without showing it
_LOSSLESS = frozenset({"png", "gif", "bmp", "tiff"})
_PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16"})

Local: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | PILImage"


class Blob(NamedTuple):
    """Bytes to be sent as they are: in memory, or in a file that is read in chunks.

    Attributes:
        digest: SHA-256 of the bytes, in hex.
        size: Their number.
        info: Format, width and height.
        data: The bytes; None where they are in a file.
        path: The file.
    """

    digest: str
    size: int
    info: ImageInfo
    data: bytes | None = None
    path: Path | None = None

    @property
    def content_type(self) -> str:
        """The MIME type, by the bytes."""
        return CONTENT_TYPES[self.info.format]

    def open(self) -> BinaryIO:
        """The bytes as a binary file."""
        return io.BytesIO(self.data) if self.data is not None else cast("Path", self.path).open("rb")


class Source(NamedTuple):
    """A checked source image.

    Attributes:
        key: The content's identity: equal for equal content, changed by what is done to it.
        name: What messages call it.
        blob: The bytes to be sent, or what gives them where the image has to be encoded first.
    """

    key: str
    name: str
    blob: Blob | Callable[[], Blob]


class Sources:
    """Reads what users give as a source image.

    Args:
        fit: Longest side in pixels that a larger image is scaled down to; None sends images as they are.
        autorotate: Turn the pixels as the EXIF orientation says; the server may not.
    """

    def __init__(self, *, fit: int | None = None, autorotate: bool = False) -> None:
        if fit is not None and (isinstance(fit, bool) or not isinstance(fit, int) or fit < 1):
            raise ConfigurationError(f"fit = {fit!r}: give the longest side in pixels, 1 or more")
        if fit is not None or autorotate:
            _pillow("fit= and autorotate=")
        self._fit = fit
        self._autorotate = autorotate
        self._seen: OrderedDict[tuple[Any, ...], Blob] = OrderedDict()

    def read(self, source: Local) -> Source:
        """Check and hash a source.

        Raises:
            InvalidJobError: ``field="image"``: missing, unreadable, no image, of a format that the API does not take,
                cut off, or too large.
        """
        if isinstance(source, bytes | bytearray | memoryview):
            return self._of_blob(_blob_of_bytes(bytes(source), "the given bytes"), "the given bytes")
        if isinstance(source, str | os.PathLike):
            return self._of_blob(self._blob_of_path(Path(source).absolute()), str(Path(source)))
        if hasattr(source, "read"):
            name = f"the file object {getattr(source, 'name', '')!s}".rstrip()
            return self._of_blob(_blob_of_bytes(_read_object(source, name), name), name)
        pillow = sys.modules.get("PIL.Image")  # whoever has an image of Pillow's has imported it
        if pillow is not None and isinstance(source, pillow.Image):
            return self._of_pil(source)
        raise _invalid(f"{type(source).__name__} is no image: give a URL, a path, bytes, a file object or a PIL image")

    def _of_blob(self, blob: Blob, name: str) -> Source:
        if self._fit is None and not self._autorotate:
            _check_size(blob.size, name)
            return Source(blob.digest, name, blob)
        return Source(blob.digest + self._changes(), name, lambda: self._changed(blob, name))

    def _of_pil(self, image: PILImage) -> Source:
        _check_pixels(image.width, image.height, "the PIL image")
        digest = hashlib.sha256(f"pil {image.mode} {image.size} {image.info.get('transparency')}".encode())
        try:
            digest.update(bytes(image.getpalette() or ()))
            digest.update(image.tobytes())
        except (OSError, ValueError) as error:
            raise _invalid(f"the PIL image can't be read: {_why(error)}") from error
        return Source(digest.hexdigest() + self._changes(), "the PIL image", lambda: self._encoded(image))

    def _changes(self) -> str:
        return f"-fit{self._fit or ''}-turn{int(self._autorotate)}" if self._fit or self._autorotate else ""

    def _blob_of_path(self, path: Path) -> Blob:
        try:
            with _open_regular(path) as file:
                found = os.fstat(file.fileno())
                identity = (path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
                blob = self._seen.get(identity)
                if blob is None:
                    blob = _blob_of_file(file, path, found.st_size)
                    self._remember(identity, blob, max(found.st_mtime_ns, found.st_ctime_ns))
                return blob
        except OSError as error:
            raise _invalid(f"{path}: {_why(error)}") from error

    def _remember(self, identity: tuple[Any, ...], blob: Blob, changed: int) -> None:
        """So that a thousand edits of one file hash it once; git trusts the same marks, with the same exception."""
        if time.time_ns() - changed > _SETTLED:
            self._seen[identity] = blob
            while len(self._seen) > _MAX_REMEMBERED:
                self._seen.popitem(last=False)

    def _changed(self, blob: Blob, name: str) -> Blob:
        """The image scaled and turned; the very same bytes where there is nothing to do."""
        from PIL import Image  # noqa: PLC0415 - an optional extra

        try:
            with blob.open() as file, Image.open(file) as image:
                image.load()
                turned = self._turned(image)
                if turned is image and max(image.size) <= (self._fit or max(image.size)):
                    _check_size(blob.size, name)
                    return blob
                return _encode(self._fitted(turned), blob.info.format, name)
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            if isinstance(error, InvalidJobError):
                raise
            raise _invalid(f"{name}: the image can't be decoded: {_why(error)}") from error

    def _encoded(self, image: PILImage) -> Blob:
        return _encode(self._fitted(self._turned(image)), "png", "the PIL image")

    def _turned(self, image: PILImage) -> PILImage:
        if not self._autorotate or image.getexif().get(0x0112, 1) in {0, 1}:
            return image
        from PIL import ImageOps  # noqa: PLC0415 - an optional extra

        return ImageOps.exif_transpose(image)

    def _fitted(self, image: PILImage) -> PILImage:
        if self._fit is None or max(image.size) <= self._fit:
            return image
        smaller = image.convert("RGBA") if image.mode == "P" else image.copy()
        smaller.thumbnail((self._fit, self._fit))
        return smaller


def _encode(image: PILImage, like: ImageFormat, name: str) -> Blob:
    kind = "PNG" if like in _LOSSLESS else like.upper()
    if kind == "PNG" and image.mode not in _PNG_MODES:
        image = image.convert("RGB")
    options: dict[str, Any] = {} if kind == "PNG" else {"quality": 95}
    target = io.BytesIO()
    image.save(target, kind, icc_profile=image.info.get("icc_profile"), **options)
    blob = _blob_of_bytes(target.getvalue(), name)
    _check_size(blob.size, name)
    return blob


def _open_regular(path: Path) -> BinaryIO:
    """Open a regular file: opening a pipe or a device could wait for ever."""
    found = path.stat()
    if stat.S_ISDIR(found.st_mode):
        raise _invalid(f"{path}: this is a folder; give one image, or use upload_folder")
    if not stat.S_ISREG(found.st_mode):
        raise _invalid(f"{path}: this is no regular file; read it and give its bytes")
    return path.open("rb")


def _read_object(source: Any, name: str) -> bytes:
    try:
        data = source.read(10 * MAX_BYTES)
    except (OSError, ValueError) as error:
        raise _invalid(f"{name}: {_why(error)}") from error
    if not isinstance(data, bytes | bytearray):
        raise _invalid(f"{name} gives {type(data).__name__}: open the file in binary mode")
    return bytes(data)


def _blob_of_bytes(data: bytes, name: str) -> Blob:
    info = _checked(lambda offset, length: data[offset : offset + length], len(data), name)
    return Blob(hashlib.sha256(data).hexdigest(), len(data), info, data=data)


def _blob_of_file(file: BinaryIO, path: Path, size: int) -> Blob:
    def read(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    info = _checked(read, size, str(path))
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(CHUNK):
        digest.update(piece)
    return Blob(digest.hexdigest(), size, info, path=path)


def _checked(read: Reader, size: int, name: str) -> ImageInfo:
    if not size:
        raise _invalid(f"{name}: the file is empty")
    info = measure(read)
    if info is None:
        raise _invalid(f"{name}: by its bytes this is none of JPEG, PNG, WebP, GIF, BMP, TIFF, or it is damaged")
    _check_pixels(info.width, info.height, name)
    # What stands behind an image may be long (motion photos): a missing end is only told where a header says so.
    if info.format == "webp" and not is_whole(read(0, 32), b"", size):
        raise _invalid(f"{name}: the image is cut off")
    return info


def _check_pixels(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise _invalid(f"{name}: the image has no pixels")
    if width * height > MAX_PIXELS:
        raise _invalid(f"{name}: {width} x {height} pixels are more than {MAX_PIXELS:,}")


def _check_size(size: int, name: str) -> None:
    if size > MAX_BYTES:
        raise _invalid(f"{name}: {size / 2**20:.1f} MB, the API takes 20 MB; fit= scales images down")


def _invalid(message: str) -> InvalidJobError:
    return InvalidJobError(f"image: {message}", field="image")


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def _pillow(what: str) -> None:
    try:
        import PIL.Image  # noqa: F401, PLC0415 - an optional extra
    except ImportError:
        raise ConfigurationError(f"{what} needs Pillow: pip install 'wavespeed-qwen-async[images]'") from None
