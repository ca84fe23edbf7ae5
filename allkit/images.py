"""Reading an image of any kind, preparing it for a network, and keeping on disk what was computed from images."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import logging
import lzma
import os
import sqlite3
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import DTypeLike
from PIL import Image, ImageOps, UnidentifiedImageError

from allkit import AllkitError, DiskError, cache_folder, saving
from allkit.progress import track

SUFFIXES = frozenset({".bmp", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"})

MAX_PIXELS = 50_000_000
"""Larger images are refused: a small file can unpack to more than fits in memory (decompression bomb)."""

MAX_SCANS = 100
"""Scans of a progressive JPEG; cameras and programs write about ten, and each takes as long as the whole image."""

MAX_CHUNKS = 50_000
"""Pieces of a PNG file."""

CACHE_BYTES = 4_000_000_000
"""How much of arrays is kept on disk; beyond it, those used longest ago are deleted."""

CACHE_ROWS = 200_000
"""How many rows of numbers are kept on disk, some hundred bytes each; beyond it, the oldest are deleted."""

COMMON_SIDE = 450
"""Side of C-NMC's images, px."""

CELL_SIDE = 300
"""Side of the centre square that holds nearly every cell of C-NMC, px."""

_FINAL_SIDE = 600  # of its final test part, whose border is black

BACKGROUND_LEVEL = 10
"""A pixel is background where its brightest channel is at most this (JPEG noise around a black edge passes)."""

_BLACK = 15  # JPEG copies of black are not quite 0

_PREPARE_VERSION = 2  # part of the cache key: raise it when prepare_image changes its pixels

_SAVE_8 = "Save it with 8 bits per channel."

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class ImageError(AllkitError):
    """An image cannot be read or used; the message names it and says what to do."""


def first_of(sentences: Sequence[str], most: int = 10) -> str:
    """Return the first few sentences as one, and how many more there are."""
    more = f" and {len(sentences) - most} more" if len(sentences) > most else ""
    return "; ".join(str(sentence) for sentence in sentences[:most]) + more


def in_threads(work: Callable, items: Iterable, *, what: str = "") -> Iterator:
    """Yield `work(item)` in order, computed in threads; `what` titles the progress of what takes over two seconds.

    At most a few hundred results wait at a time.
    """
    items = list(items)
    with (
        ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool,
        track(what=what, total=len(items), unit="image", disable=not what) as bar,
    ):
        for start in range(0, len(items), 256):
            for result in pool.map(work, items[start : start + 256]):
                yield result
                bar.update()


def read_image(source: str | Path | bytes, name: str = "", *, at_least: int = 0) -> np.ndarray:
    """Return an image as RGB, uint8 (height, width, 3), 0–255.

    `source` is a path or the bytes of a file (BMP, PNG, JPEG, TIFF, WebP); `name` is what messages call it.
    EXIF orientation is applied; greyscale and palette become RGB; transparency is laid over black, C-NMC's background;
    values of 16 or 12 bits are scaled so that 65,535 or 4,095 becomes 255. Of several frames the first is taken. A JPEG
    may be read smaller, but no side below `at_least` px where that is given: it takes a fraction of the time.
    Raises `ImageError` for anything that is missing, truncated, too large or not an image.
    """
    name = name or ("the image" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror or error}. Check path and rights.") from error
    return decode_image(data, name, at_least=at_least)[0]


def decode_image(data: bytes, name: str, *, at_least: int = 0) -> tuple[np.ndarray, str]:
    """Return pixels, as `read_image`, and file format of the bytes of one image."""
    if not data:
        raise ImageError(f"{name} is empty (0 bytes). Copy or download it again.")
    try:
        with Image.open(io.BytesIO(data), formats=("BMP", "PNG", "JPEG", "TIFF", "WEBP")) as image:
            _check_size(image.width, image.height, name)
            _check_effort(data, image, name)
            if image.format == "TIFF" and _is_wide_planar(image):
                return _decode_tiff(data, name), "TIFF"
            if at_least:
                image.draft(None, (at_least, at_least))
            image.load()
            pixels = _to_rgb(image, name)
            if image.format == "PNG" and data[24] == 16 and 0 < pixels.max(initial=0) < 16:
                # Pillow keeps the upper 8 bits of 16 in colour; those of a camera of 12 bits are all but empty
                raise ImageError(f"{name} holds 8 or 12 bits in 16, which makes it black. {_SAVE_8}")
            return pixels, image.format or ""
    except ImageError:
        raise
    except Exception as error:  # decoders raise almost anything on damaged files
        if data[:4] in _TIFF_STARTS and isinstance(error, UnidentifiedImageError | SyntaxError | KeyError):
            return _decode_tiff(data, name), "TIFF"
        raise ImageError(f"{name} {_fault(error)}") from error


def _check_size(width: int, height: int, name: str) -> None:
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{name} is {width}×{height} pixels; at most {MAX_PIXELS:,} are read. "
            "Cut the cell out, or scale the image down."
        )


def _check_effort(data: bytes, image: Image.Image, name: str) -> None:
    """Refuse what would take far more time or memory to decode than an image of its size should."""
    if image.format == "JPEG":
        scans = data.count(b"\xff\xda")  # a stuffed zero follows every other 0xff
        if scans > MAX_SCANS or scans * image.width * image.height > 10 * MAX_PIXELS:
            raise ImageError(f"{name} is a JPEG of {scans:,} scans, far more than any camera writes. Save it as PNG.")
    if image.format == "PNG" and _count_chunks(data) > MAX_CHUNKS:
        raise ImageError(f"{name} is a PNG of more than {MAX_CHUNKS:,} pieces. Save it again.")
    if image.format == "TIFF":
        _check_strips(data, name)


def _count_chunks(data: bytes) -> int:
    place, count = 8, 0
    while place + 8 <= len(data) and count <= MAX_CHUNKS:
        place += 12 + int.from_bytes(data[place : place + 4], "big")
        count += 1
    return count


def _check_strips(data: bytes, name: str) -> None:
    """Refuse a TIFF whose pieces lie outside the file, or swell to more than the pixels they stand for."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said here, in one sentence
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            _check_size(page.imagewidth, page.imagelength, name)
            pieces = list(zip(page.dataoffsets, page.databytecounts, strict=True))
            expected = int(np.prod(page.chunks)) * page.bitspersample // 8 + 1024
            unpack = {8: zlib.decompressobj, 32946: zlib.decompressobj, 34925: lzma.LZMADecompressor}.get(
                page.compression
            )
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{name} is a TIFF that cannot be read ({error}). Save it as PNG.") from error
    if expected > 8 * MAX_PIXELS or any(start + size > len(data) for start, size in pieces):
        raise ImageError(
            f"{name} is damaged or truncated (pieces of it are not in the file). Copy or download it again."
        )
    for start, size in pieces if unpack else ():
        try:
            content = unpack().decompress(data[start : start + size], expected + 1)
        except (zlib.error, lzma.LZMAError, EOFError) as error:
            raise ImageError(f"{name} is damaged or truncated ({error}). Copy or download it again.") from error
        if len(content) > expected:
            raise ImageError(f"{name} is refused: a piece of it unpacks to more than its pixels. Save it as PNG.")


def _fault(error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"is refused: {error}. Scale the image down."
    if isinstance(error, UnidentifiedImageError):
        return (
            "is not a BMP, PNG, JPEG, TIFF or WebP image, or its first bytes are damaged. "
            "Save it in one of these formats, or copy it again."
        )
    return f"is damaged or truncated ({error}). Copy or download it again."


def _is_wide_planar(image: Image.Image) -> bool:
    # Pillow reads 16-bit TIFFs with separate colour planes as if they had 8 bits, without an error
    return image.tag_v2.get(284) == 2 and max(image.tag_v2.get(258, (8,))) > 8


def _to_rgb(image: Image.Image, name: str) -> np.ndarray:
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scaled_to_8_bit(np.asarray(image), name)
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _scaled_to_8_bit(values: np.ndarray, name: str) -> np.ndarray:
    """Return grey or RGB values of 16 or 12 bits as RGB of 8: scaled by the whole range, not by the image's own."""
    if values.dtype != np.uint8:
        highest = values.max(initial=0)
        if values.dtype.kind not in "ui" or values.min(initial=0) < 0 or highest > 65535:
            raise ImageError(
                f"{name} holds {values.dtype} values beyond 16 bits, whose black and white are not known. {_SAVE_8}"
            )
        if 0 < highest <= 255:
            raise ImageError(f"{name} holds 8 bits in {8 * values.dtype.itemsize}, which makes it black. {_SAVE_8}")
        # a camera of 12 bits leaves the upper four empty: taken for 16 bits, its cells would be black
        white = 4095 if highest <= 4095 else 65535
        table = np.round(np.arange(65536) * (255 / white)).astype(np.uint8)  # far less memory than arithmetic
        values = table[values]
    return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values


def _decode_tiff(data: bytes, name: str) -> np.ndarray:
    """Read a TIFF that Pillow cannot read, or reads wrongly, with tifffile."""
    _check_strips(data, name)
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            values, axes = tiff.pages[0].asarray(maxworkers=1), tiff.pages[0].axes
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{name} is a TIFF that cannot be read ({error}). Save it as PNG.") from error
    if axes.startswith("S"):
        values = np.moveaxis(values, 0, -1)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3, 4)):
        raise ImageError(f"{name} is a TIFF of shape {values.shape}, not greyscale or RGB. Save it as PNG.")
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    return np.ascontiguousarray(_scaled_to_8_bit(values[..., :3] if values.ndim == 3 else values, name))


def centre_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Return the centre square of side `size`, (size, size, …); what the image lacks is filled with black."""
    height, width = image.shape[:2]
    top, left = max(0, (height - size) // 2), max(0, (width - size) // 2)
    piece = image[top : top + size, left : left + size]
    if piece.shape[:2] == (size, size):
        return piece
    whole = np.zeros((size, size, *image.shape[2:]), image.dtype)
    top, left = (size - piece.shape[0]) // 2, (size - piece.shape[1]) // 2
    whole[top : top + piece.shape[0], left : left + piece.shape[1]] = piece
    return whole


def prepare_image(image: np.ndarray, image_size: int, crop: int | None = None) -> np.ndarray:
    """Return the image as the networks see it: uint8 (image_size, image_size, 3), 0–255.

    The one rule for training and for an uploaded image. A 600×600 image with a black border (C-NMC's final
    test part) is first centre-cropped to 450×450, the size of all others. Then the centre square of side
    `crop` is taken, or a larger one where the cell on black is larger (None: the whole image, made square with black),
    and resized with antialiasing.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(f"Expected RGB uint8 (height, width, 3), got {image.dtype} {image.shape}: use read_image.")
    image = to_common_size(image)
    longest = max(image.shape[:2])
    if crop is None and longest**2 > MAX_PIXELS:  # made square as it is, a thin image would fill the memory
        image = _shrunk(image, image_size / longest)
    image = centre_crop(image, side_that_holds(image, crop) if crop else max(image.shape[:2]))
    if image.shape[0] == image_size:
        return np.ascontiguousarray(image)
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.array(resized)


def side_that_holds(image: np.ndarray, crop: int) -> int:
    """Return the side of the centre square that holds the whole of what lies on black, px, at least `crop`."""
    height, width = image.shape[:2]
    top, left = max(0, (height - crop) // 2), max(0, (width - crop) // 2)
    around = (image[:top], image[height - top :], image[:, :left], image[:, width - left :])
    if all(strip.max(initial=0) <= _BLACK for strip in around) or not _has_black_border(image):
        return crop
    inside = (image > _BLACK).any(axis=2)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    reach = max(height / 2 - rows[0], rows[-1] + 1 - height / 2, width / 2 - columns[0], columns[-1] + 1 - width / 2)
    return int(np.ceil(2 * reach))


def _shrunk(image: np.ndarray, factor: float) -> np.ndarray:
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    return np.array(Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.BILINEAR))


def to_common_size(image: np.ndarray) -> np.ndarray:
    """Return a 600×600 image with a black border (C-NMC's final test part) as 450×450, all others as they are."""
    wide = image.shape[:2] == (_FINAL_SIDE, _FINAL_SIDE) and _has_black_border(image)
    return centre_crop(image, COMMON_SIDE) if wide else image


def is_foreground(image: np.ndarray) -> np.ndarray:
    """Return which pixels of an RGB image are not background, bool (height, width)."""
    red, green, blue = np.moveaxis(image > BACKGROUND_LEVEL, 2, 0)
    return red | green | blue  # far faster than the largest of three values along the last axis


def brightening(images: Sequence[np.ndarray]) -> float:
    """Return the factor that makes the brightest pixel of some images white, 1 or more; cells on black are dark."""
    brightest = max((int(np.max(image)) for image in images), default=255)
    return max(1.0, 255 / max(brightest, 1))


def brighten(image: np.ndarray, factor: float) -> np.ndarray:
    """Return an image whose grey levels are multiplied, uint8."""
    return np.clip(factor * np.asarray(image, dtype=float), 0, 255).astype(np.uint8)


def describe_brightening(factor: float) -> str:
    """Return how much brighter than they are images are shown, in words; "" where it makes no difference."""
    return f"shown {factor:.1f} times as bright" if factor > 1.05 else ""


def to_png(image: np.ndarray, *, colours: int | None = None) -> bytes:
    """Return a uint8 (h, w, 3) image as the bytes of a PNG file, a smaller one with at most so many `colours`."""
    buffer, picture = io.BytesIO(), Image.fromarray(image)
    (picture.quantize(colours) if colours else picture).save(buffer, "PNG")
    return buffer.getvalue()


def to_address(picture: bytes, kind: str = "png") -> str:
    """Return an address (data URL) that holds a picture itself, for pages that load nothing."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def common_side(paths: Iterable[str], most: int = 60) -> int | None:
    """Return the side that all images have, px, by their headers (of `most` of them, spread evenly).

    None where they are not square or of several sizes; the larger images of C-NMC's final part count as 450 px.
    """
    paths = list(paths)
    sides = set()
    for path in paths[:: max(1, len(paths) // most)]:
        try:
            with Image.open(path) as image:
                sides.add(image.size)
        except (OSError, ValueError, Image.DecompressionBombError):  # said where it is read
            continue
    squares = {COMMON_SIDE if side == _FINAL_SIDE else side for side, height in sides if side == height}
    return squares.pop() if len(squares) == 1 and all(w == h for w, h in sides) else None


def fitting_crop(crop: int | None, index: pd.DataFrame) -> int | None:
    """Return the crop for images that are C-NMC's or not, as they were published or made smaller."""
    if crop is None or not index["source"].isin(["cnmc", "synthetic"]).all():
        return None
    side = common_side(index["path"])
    return crop if side in (None, COMMON_SIDE) else round(crop * side / COMMON_SIDE)


def _has_black_border(image: np.ndarray) -> bool:
    width = min(8, max(1, 8 * min(image.shape[:2]) // COMMON_SIDE))
    edges = (image[:width], image[-width:], image[:, :width], image[:, -width:])
    return all(edge.max() <= _BLACK for edge in edges)


def load_images(index: pd.DataFrame, *, image_size: int, crop: int | None = None) -> np.ndarray:
    """Return all images of the index, prepared by `prepare_image`: uint8 (n, image_size, image_size, 3), 0–255.

    They are decoded once, and kept on disk (see `cached_array`) until a file changes. Raises `ImageError` naming
    the images that cannot be read.
    """
    paths = list(index["path"])
    shape = (len(paths), image_size, image_size, 3)
    key = images_key(paths, image_size, crop)
    return cached_array("images", key, lambda: _prepared(paths, image_size, crop), shape, np.uint8)


def images_key(paths: Sequence[str], image_size: int, crop: int | None) -> str:
    """Return what prepared images depend on: the files as they are now, and how they are prepared."""
    return "\n".join([f"{_PREPARE_VERSION} {image_size} {crop}", *map(file_state, paths)])


def _prepared(paths: Sequence[str], image_size: int, crop: int | None) -> Iterator[np.ndarray]:
    """Yield the prepared images in order; at the end, raise one `ImageError` for all unreadable ones."""

    def prepare(path: str) -> np.ndarray | ImageError:
        try:
            return prepare_image(read_image(path), image_size, crop)
        except ImageError as error:
            return error

    failed = []
    for result in in_threads(prepare, paths, what="preparing images"):
        if isinstance(result, ImageError):
            failed.append(str(result))
        elif not failed:
            yield result
    if len(failed) == 1:
        raise ImageError(failed[0])
    if failed:
        raise ImageError(f"{len(failed)} images cannot be read. {first_of(failed)}")


# The cache of what was computed from images. Arrays are files of their own, because they are memory-mapped; numbers
# of single images are rows of one database, because each selection of images takes other rows.


def file_state(path: str) -> str:
    """Return path, size and time of change of a file as one text: the key of what is computed from it."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise ImageError(f"{path} cannot be opened: {error.strerror}. Load the index again.") from error
    return f"{path}\t{state.st_size}\t{state.st_mtime_ns}"


def cached_array(
    name: str, key: str, make: Callable[[], Iterator[np.ndarray]], shape: tuple[int, ...], dtype: DTypeLike
) -> np.ndarray:
    """Return an array that takes long to compute, as a read-only memory map of a file in `cache_folder`.

    `key` holds everything that the array depends on; `make` yields its elements, or pieces along the first axis.
    Where the cache cannot be used, the array is kept in memory, with a warning.
    """
    if shape[0]:
        with _cache_is_optional(name):
            file = cache_folder() / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.npy"
            if not file.is_file():
                with saving(file) as temporary:
                    _write_array(temporary, make(), shape, np.dtype(dtype))
            _mark_used(file)
            return np.load(file, mmap_mode="r")
    return _stacked(make(), shape, dtype)


def cached_rows(keys: Sequence[str], make: Callable[[list[str]], Iterable[dict]]) -> list[dict]:
    """Return a row of numbers for each key; `make` yields those of the keys that are not in the cache, in order.

    What was made before an error or an interruption is kept.
    """
    rows = _read_rows(keys)
    missing = [key for key in dict.fromkeys(keys) if key not in rows]
    unsaved: dict[str, dict] = {}
    try:
        for key, row in zip(missing, make(missing), strict=True):
            rows[key] = unsaved[key] = row
            if len(unsaved) == 64:
                _save_rows(unsaved)
                unsaved.clear()
    finally:
        _save_rows(unsaved)
    return [rows[key] for key in keys]


@contextlib.contextmanager
def _cache_is_optional(name: str) -> Iterator[None]:
    """Turn into a warning that the cache's folder is full, read-only or damaged."""
    try:
        yield
    except (OSError, DiskError, sqlite3.Error) as error:
        cause = error.__cause__ or error
        warnings.warn(
            f"The cache {cache_folder()} cannot be used ({getattr(cause, 'strerror', None) or cause}): {name} are kept "
            "in memory. Free some space, delete it if it is damaged, or set ALLKIT_CACHE to another folder.",
            stacklevel=5,
        )


def _stacked(pieces: Iterator[np.ndarray], shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
    whole, done = np.empty(shape, dtype), 0
    for piece in pieces:
        piece = piece.reshape(-1, *shape[1:])
        whole[done : done + len(piece)] = piece
        done += len(piece)
    return whole


def _write_array(file: Path, pieces: Iterator[np.ndarray], shape: tuple[int, ...], dtype: np.dtype) -> None:
    # Written in order rather than through a memory map: on a full disk a map kills the process (SIGBUS), a
    # write raises OSError.
    with open(file, "wb") as out:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for piece in pieces:
            out.write(np.ascontiguousarray(piece, dtype).tobytes())


def _mark_used(file: Path) -> None:
    """Give the array the time of now, and delete those used longest ago until all are within `CACHE_BYTES`."""
    with contextlib.suppress(OSError):  # read-only, or deleted by another process
        os.utime(file)
        others = [other for other in file.parent.glob("[!.]*.npy") if other != file]
        total = file.stat().st_size
        for other in sorted(others, key=lambda other: other.stat().st_mtime, reverse=True):
            total += other.stat().st_size
            if total > CACHE_BYTES:
                with contextlib.suppress(OSError):  # in use, on Windows
                    other.unlink()


@contextlib.contextmanager
def _open_rows() -> Iterator[sqlite3.Connection]:
    cache_folder().mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(cache_folder() / "rows.sqlite", timeout=60)  # other processes may be writing
    with contextlib.closing(connection), connection:
        connection.execute("CREATE TABLE IF NOT EXISTS rows (key TEXT PRIMARY KEY, value TEXT)")
        yield connection


def _read_rows(keys: Iterable[str]) -> dict[str, dict]:
    with _cache_is_optional("measured numbers"), _open_rows() as table:
        found = {}
        wanted = list(dict.fromkeys(keys))
        for start in range(0, len(wanted), 500):  # as many as every SQLite takes at once
            some = wanted[start : start + 500]
            marks = ", ".join("?" * len(some))
            found |= dict(table.execute(f"SELECT key, value FROM rows WHERE key IN ({marks})", some))
        return {key: json.loads(value) for key, value in found.items()}
    return {}


def _save_rows(rows: dict[str, dict]) -> None:
    if rows:
        with _cache_is_optional("measured numbers"), _open_rows() as table:
            values = [(key, json.dumps(row)) for key, row in rows.items()]
            table.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", values)
            table.execute("DELETE FROM rows WHERE rowid <= (SELECT max(rowid) FROM rows) - ?", [CACHE_ROWS])
