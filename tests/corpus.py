"""Hostile and odd uploads, made by rule: (name, bytes) that must end in a label, a rejection or a sentence.

Nothing here is a binary in the repository; everything follows from a seed and one drawn cell.
"""

from __future__ import annotations

import io
import lzma
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import tifffile
from PIL import Image

FORMATS = ("BMP", "PNG", "JPEG", "TIFF", "WEBP", "GIF")


def encode(image: Image.Image, kind: str, **options) -> bytes:
    """Return an image as the bytes of a file of this kind."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def hostile_files(cell: np.ndarray, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Yield all cases, about four hundred; the same for the same cell and seed."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(cell)
    whole = {kind: encode(image, kind) for kind in FORMATS}
    yield from _truncated(whole)
    yield from _flipped(whole, rng)
    yield from _wrong_names(whole)
    yield from _headers()
    yield from _modes(image)
    yield from _sizes(image)
    yield from _tiffs(cell)
    yield from _not_images(whole, rng)
    yield from _laborious(image)


def _truncated(whole: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for kind, data in whole.items():
        for share in (0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999):
            yield f"cut at {share}.{kind.lower()}", data[: int(share * len(data))]


def _flipped(whole: dict[str, bytes], rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    for kind, data in whole.items():
        for number in range(18):
            broken = np.frombuffer(data, np.uint8).copy()
            # half of them in the header, where a flipped bit does most
            end = min(200, len(broken)) if number % 2 else len(broken)
            places = rng.integers(0, end, 1 + number % 5)
            broken[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
            yield f"flipped {number}.{kind.lower()}", broken.tobytes()


def _wrong_names(whole: dict[str, bytes]) -> Iterator[tuple[str, bytes]]:
    for kind, data in whole.items():
        for other in ("bmp", "png", "jpg", "tif", "webp", "txt", "exe", ""):
            yield f"{kind} called.{other}", data
    names = (
        "../../etc/passwd", "C:\\Windows\\cell.bmp", "/dev/null", "cell\0.png", "a\nb.png", "x" * 5000 + ".png",
        "<script>alert(1)</script>.png", "<img src=x onerror=alert(1)>.png", "'\"><b>bold</b>.png", "=1+1.png",
        "\u202egnp.exe", "\ud800.png", "", " ", ".", "..", "CON", "cell.png/", "%s%n.png", "{0}.png", "&lt;b&gt;.png",
        "\x1b[31mred.png", "é\u0301.png", "🧫.png", "`rm -rf`.png", "$(id).png", "javascript:alert(1)",
    )  # fmt: skip
    for name in names:
        yield name, whole["PNG"]
        yield name, b"no image at all"


def _png(width: int, height: int, body: bytes = b"", depth: int = 8, colour: int = 2) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def _headers() -> Iterator[tuple[str, bytes]]:
    """Files of a few bytes that claim to be huge, empty or impossible."""
    sides = ((30_000, 30_000), (2**31 - 1, 2**31 - 1), (1, 30_000), (30_000, 1), (0, 0), (65_535, 65_535), (1, 2**24))
    for width, height in sides:
        yield f"claims {width}x{height}.png", _png(width, height, b"\0" * 1000)
        signed = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)
        yield f"claims {width}x{height}.bmp", b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + signed
        entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (262, 3, 1), (273, 4, 8), (279, 4, 8)]
        body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
        ifd = struct.pack("<H", len(entries)) + body + b"\0" * 4
        yield f"claims {width}x{height}.tif", b"II*\0" + struct.pack("<I", 16) + b"\0" * 8 + ifd
    # a real bomb: a few kilobytes that unpack to many megabytes of the same grey
    yield "bomb.png", _png(20_000, 20_000, b"\0" * (60_001 * 1000))
    for depth, colour in ((1, 0), (2, 0), (16, 0), (16, 2), (16, 6), (4, 3), (3, 2), (8, 7)):
        yield f"depth {depth} colour {colour}.png", _png(32, 32, b"\0" * 32 * 260, depth, colour)


def _modes(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    for mode in ("1", "L", "LA", "P", "RGBA", "I;16", "I", "CMYK", "YCbCr", "LAB", "HSV", "F"):
        for kind in ("PNG", "TIFF", "JPEG", "WEBP", "BMP", "GIF"):
            try:
                converted = image.convert("L").convert(mode) if mode.startswith("I") else image.convert(mode)
                converted.info.pop("icc_profile", None)  # carries the time of day
                yield f"mode {mode}.{kind.lower()}", encode(converted, kind)
            except (OSError, ValueError, KeyError):
                continue  # this kind of file knows no such mode
    palette = image.quantize(16)
    yield "palette with transparency.png", encode(palette, "PNG", transparency=0)
    yield "palette with bytes transparency.png", encode(palette, "PNG", transparency=bytes(range(16)))
    for turn in range(0, 10):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"turned {turn}.jpg", encode(image, "JPEG", exif=exif)
    frames = [image.rotate(angle) for angle in (0, 90, 180)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        yield f"animated.{kind.lower()}", encode(frames[0], kind, save_all=True, append_images=frames[1:])


def _sizes(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    for size in ((1, 1), (1, 2), (2, 1), (3, 3), (1, 5000), (5000, 1), (31, 31), (600, 600), (449, 451), (2500, 2500)):
        yield f"{size[0]}x{size[1]}.png", encode(image.resize(size), "PNG")
        yield f"black {size[0]}x{size[1]}.png", encode(Image.new("RGB", size), "PNG")
    for grey in (0, 1, 10, 11, 128, 254, 255):
        yield f"plain {grey}.png", encode(Image.new("RGB", (450, 450), (grey,) * 3), "PNG")


def _tiffs(cell: np.ndarray) -> Iterator[tuple[str, bytes]]:
    arrays = {
        "uint16": cell.astype(np.uint16) * 257, "float": cell.astype(np.float32), "complex": cell[..., 0].astype("c8"),
        "nan": np.full((64, 64), np.nan, "f4"),
        "infinite": np.full((64, 64), np.inf, "f4"), "int16": cell.astype(np.int16) - 100, "uint32": cell.astype("u4"),
        "stack": np.stack([cell] * 3), "double": cell.astype("f8"),
        "nan in a cell": np.where(cell[..., 0] > 100, np.nan, cell[..., 0]).astype("f4"),
        "five": cell[..., [0, 1, 2, 0, 1]], "two": cell[..., :2],
        "bool": cell[..., 0] > 50, "uint64": cell[..., 0].astype("u8"), "thin": cell[:1, :1],
    }  # fmt: skip
    for name, array in arrays.items():
        out = io.BytesIO()
        tifffile.imwrite(out, array)
        yield f"{name}.tif", out.getvalue()
    planar = io.BytesIO()
    tifffile.imwrite(
        planar, np.moveaxis(cell.astype(np.uint16) * 257, 2, 0), planarconfig="separate", photometric="rgb"
    )
    yield "planar 16 bit.tif", planar.getvalue()


def _laborious(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    """Files that are small, or claim little, and take far more time or memory than an image of their size should."""
    whole = encode(image, "JPEG", progressive=True)
    last = whole.rindex(b"\xff\xda")
    scan = whole[last:-2]
    for scans in (90, 3_000, 60_000):
        yield f"{scans} scans.jpg", whole[:last] + scan * scans + whole[-2:]
    empty = struct.pack(">I", 0) + b"tEXt" + struct.pack(">I", zlib.crc32(b"tEXt"))
    plain = encode(image, "PNG")
    yield "a million chunks.png", plain[:33] + empty * 1_000_000 + plain[33:]
    yield "a hundred chunks.png", plain[:33] + empty * 100 + plain[33:]
    for code, packed in ((8, _zeros(zlib.compressobj(9))), (34925, _zeros(lzma.LZMACompressor()))):
        yield f"one pixel unpacks to 400 MB ({code}).tif", _tiff(1, 1, code, packed)
    yield "no strips.tif", _tiff(7000, 7000, 1, b"")
    yield "strips beyond the end.tif", _tiff(450, 450, 1, b"x" * 100, size=450 * 450)
    yield "thin.png", encode(Image.new("RGB", (1, 30_000), (90, 40, 90)), "PNG")
    yield "thin.jpg", encode(Image.new("RGB", (65_500, 500), (90, 40, 90)), "JPEG")


def _zeros(packer) -> bytes:
    """Return 400 MB of zeros, packed."""
    return b"".join(packer.compress(bytes(1 << 22)) for _ in range(100)) + packer.flush()


def _tiff(width: int, height: int, compression: int, strip: bytes, size: int = 0) -> bytes:
    """Return a grey TIFF of one strip."""
    entries = [(256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, compression), (262, 3, 1), (273, 4, 8),
               (277, 3, 1), (278, 4, height), (279, 4, size or len(strip))]  # fmt: skip
    body = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in entries)
    ifd = struct.pack("<H", len(entries)) + body + b"\0" * 4
    return b"II*\0" + struct.pack("<I", 8 + len(strip)) + strip + ifd


def _not_images(whole: dict[str, bytes], rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script><image href='file:///etc/passwd'/></svg>"
    page = b"<!doctype html><script>alert(1)</script>"
    contents = {
        "page.svg": svg, "page.html": page, "zip.png": b"PK\x03\x04" + b"\0" * 100, "pdf.png": b"%PDF-1.7\n%%EOF",
        "elf.bmp": b"\x7fELF" + b"\0" * 60, "bm.bmp": b"BM", "gif.gif": b"GIF89a", "riff.webp": b"RIFF\0\0\0\0WEBP",
        "soi.jpg": b"\xff\xd8\xff", "ii.tif": b"II*\0", "mm.tif": b"MM\0*", "big.tif": b"II+\0\x08\0\0\0",
        "zeros.bmp": b"\0" * 100_000, "ones.png": b"\xff" * 100_000, "eps.eps": b"%!PS-Adobe-3.0 EPSF-3.0\n",
        "npy.npy": b"\x93NUMPY\x01\0", "pickle.pkl": b"cos\nsystem\n(S'id'\ntR.", "text.csv": b"path,label\n",
        "ppm.ppm": b"P6\n9999999 9999999\n255\n", "ico.ico": b"\0\0\1\0\1\0", "psd.psd": b"8BPS\0\1" + b"\0" * 40,
        "loop.tif": b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8),
    }  # fmt: skip
    yield from contents.items()
    for kind, data in whole.items():  # two kinds of file in one
        yield f"polyglot html.{kind.lower()}", data + page
        yield f"polyglot zip.{kind.lower()}", data + b"PK\x05\x06" + b"\0" * 18
        yield f"polyglot front.{kind.lower()}", page + data
        yield f"doubled.{kind.lower()}", data + data
    for number in range(12):
        yield f"noise {number}.png", rng.bytes(int(rng.integers(1, 5000)))
