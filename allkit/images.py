"""Reading an image of any kind, preparing it for a network, and keeping on disk what was computed from images."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import tifffile
from numpy.typing import DTypeLike
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from allkit import AllkitError, DiskError, cache_folder, saving

SUFFIXES = frozenset({".bmp", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"})

MAX_PIXELS = 50_000_000
"""Larger images are refused: a small file can unpack to more than fits in memory (decompression bomb)."""

CACHE_BYTES = 4_000_000_000
"""How much of arrays is kept on disk; beyond it, those used longest ago are deleted."""

CACHE_ROWS = 200_000
"""How many rows of numbers are kept on disk, some hundred bytes each; beyond it, the oldest are deleted."""

_PREPARE_VERSION = 1  # part of the cache key: raise it when prepare_image changes its pixels

_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


class ImageError(AllkitError):
    """An image cannot be read or used; the message names it and says what to do."""


def first_of(sentences: Sequence[str], most: int = 10) -> str:
    """Return the first few sentences as one, and how many more there are."""
    more = f" and {len(sentences) - most} more" if len(sentences) > most else ""
    return "; ".join(str(sentence) for sentence in sentences[:most]) + more


def in_threads(work: Callable, items: Iterable, *, progress: str = "") -> Iterator:
    """Yield `work(item)` in order, computed in threads; `progress` is the title of a progress bar.

    At most a few hundred results wait at a time.
    """
    items = list(items)
    with (
        ThreadPoolExecutor(min(16, 2 * (os.cpu_count() or 1))) as pool,
        tqdm(total=len(items), desc=progress, unit="image", disable=not progress, leave=False) as bar,
    ):
        for start in range(0, len(items), 256):
            for result in pool.map(work, items[start : start + 256]):
                yield result
                bar.update()


def read_image(source: str | Path | bytes, name: str = "") -> np.ndarray:
    """Return an image as RGB, uint8 (height, width, 3), 0–255.

    `source` is a path or the bytes of a file (BMP, PNG, JPEG, TIFF, WebP); `name` is what messages call it.
    EXIF orientation is applied; greyscale and palette become RGB; transparency is laid over black, C-NMC's
    background; 16-bit values are scaled so that 65,535 becomes 255. Of several frames the first is taken.
    Raises `ImageError` for anything that is missing, truncated, too large or not an image.
    """
    name = name or ("the image" if isinstance(source, bytes) else str(source))
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror or error}. Check path and rights.") from error
    return decode_image(data, name)[0]


def decode_image(data: bytes, name: str) -> tuple[np.ndarray, str]:
    """Return pixels, as `read_image`, and file format of the bytes of one image."""
    if not data:
        raise ImageError(f"{name} is empty (0 bytes). Copy or download it again.")
    try:
        with Image.open(io.BytesIO(data), formats=("BMP", "PNG", "JPEG", "TIFF", "WEBP")) as image:
            _check_size(image.width, image.height, name)
            if image.format == "TIFF" and _is_wide_planar(image):
                return _decode_tiff(data, name), "TIFF"
            image.load()
            return _to_rgb(image, name), image.format or ""
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
    """Return grey or RGB values of 16 bits as RGB of 8: scaled by the whole range, not by the image's own."""
    if values.dtype != np.uint8:
        if values.dtype.kind not in "ui" or values.min() < 0 or values.max() > 65535:
            raise ImageError(
                f"{name} holds {values.dtype} values beyond 16 bits, whose black and white are not known. "
                "Save it with 8 bits per channel."
            )
        values = np.round(values / 257).astype(np.uint8)
    return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values


def _decode_tiff(data: bytes, name: str) -> np.ndarray:
    """Read a TIFF that Pillow cannot read, or reads wrongly, with tifffile."""
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong is said below, in one sentence
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            page = tiff.pages[0]
            _check_size(page.imagewidth, page.imagelength, name)
            values, axes = page.asarray(), page.axes
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
    `crop` is taken (None: the whole image, made square with black), and resized with antialiasing.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ImageError(f"Expected RGB uint8 (height, width, 3), got {image.dtype} {image.shape}: use read_image.")
    image = to_common_size(image)
    image = centre_crop(image, crop or max(image.shape[:2]))
    if image.shape[0] == image_size:
        return np.ascontiguousarray(image)
    resized = Image.fromarray(np.ascontiguousarray(image)).resize((image_size, image_size), Image.Resampling.BILINEAR)
    return np.array(resized)


def to_common_size(image: np.ndarray) -> np.ndarray:
    """Return a 600×600 image with a black border (C-NMC's final test part) as 450×450, all others as they are."""
    wide = image.shape[:2] == (600, 600) and _has_black_border(image)
    return centre_crop(image, 450) if wide else image


def _has_black_border(image: np.ndarray) -> bool:
    edges = (image[:8], image[-8:], image[:, :8], image[:, -8:])
    return all(edge.max() <= 15 for edge in edges)  # JPEG copies of black are not quite 0


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
    for result in in_threads(prepare, paths):
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
        found = ((key, table.execute("SELECT value FROM rows WHERE key = ?", [key]).fetchone()) for key in keys)
        return {key: json.loads(row[0]) for key, row in found if row}
    return {}


def _save_rows(rows: dict[str, dict]) -> None:
    if rows:
        with _cache_is_optional("measured numbers"), _open_rows() as table:
            values = [(key, json.dumps(row)) for key, row in rows.items()]
            table.executemany("INSERT OR REPLACE INTO rows VALUES (?, ?)", values)
            table.execute("DELETE FROM rows WHERE rowid <= (SELECT max(rowid) FROM rows) - ?", [CACHE_ROWS])
