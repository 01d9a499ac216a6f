"""Reading NIfTI without repairing it: a header as it stands, and every byte that it promises, or a sentence why not.

SimpleITK, by which nnU-Net reads, fills truncated files with zeros, turns NaN into 0 and invalid spacing into 1.
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

HEADER_1, HEADER_2 = 348, 540
TYPES = {
    2: "u1", 4: "i2", 8: "i4", 16: "f4", 32: "c8", 64: "f8", 128: "rgb", 256: "i1", 512: "u2", 768: "u4", 1024: "i8",
    1280: "u8", 1792: "c16", 2304: "rgba",
}  # fmt: skip
WIDTHS = {"rgb": 3, "rgba": 4}
GZIP_MOST = 1100  # deflate cannot shrink further
MOST_TRAILING = 2**20
LOOKS_LIKE = {
    b"<!DO": "an HTML page",
    b"<htm": "an HTML page",
    b"<HTM": "an HTML page",
    b"vers": "a pointer of Git LFS, whose data were not fetched",
    b"PK\x03\x04": "a zip archive",
    b"\x89PNG": "a PNG image",
}


class UnreadableError(Exception):
    """A file that is not what its name says."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a NIfTI header says.

    Args:
        shape: All dimensions, trailing ones of 1 too.
        kind: A NumPy type code, "rgb" or "rgba".
        order: "<" or ">".
        pixdim: Raw, of the axes that there are.
        qform: (4, 4), None where its code is 0. So is `sform`.
        slope: Raw; 0 means none.
        offset: Where the voxels begin.
        units: Of length: 0 unknown, 1 metre, 2 millimetre, 3 micrometre.
    """

    shape: tuple[int, ...]
    kind: str
    order: str
    pixdim: tuple[float, ...]
    qform: np.ndarray | None
    sform: np.ndarray | None
    slope: float
    intercept: float
    offset: int
    units: int

    @property
    def affine(self) -> np.ndarray:
        """Voxel to mm, in NIfTI's directions (right, anterior, superior): sform, else qform, else spacing alone."""
        if self.sform is not None:
            return self.sform
        if self.qform is not None:
            return self.qform
        scale = [abs(x) or 1.0 for x in self.pixdim[:3]] + [1.0] * (3 - len(self.pixdim[:3]))
        return np.diag([*scale, 1.0])

    @property
    def nbytes(self) -> int:
        """Of all voxels."""
        width = WIDTHS.get(self.kind) or np.dtype(self.kind).itemsize
        return math.prod(self.shape) * width


def read(path: Path) -> tuple[Header, np.ndarray]:
    """Header and voxels, scaled where the header says so, as (i, j, k, ...); colours get an axis more.

    Raises:
        UnreadableError: It is damaged, cut off, or no NIfTI.
    """
    with _opened(path) as file:
        header = _header(file, path)
        _skip(file, header.offset, path)
        data = _exactly(file, header.nbytes, path, "voxels")
        _to_the_end(file, path)
    if header.kind in WIDTHS:
        colours = np.frombuffer(data, "u1").reshape(*header.shape[::-1], WIDTHS[header.kind])
        return header, colours.transpose(*range(len(header.shape))[::-1], len(header.shape))
    array = np.frombuffer(data, np.dtype(f"{header.order}{header.kind}")).reshape(header.shape, order="F")
    if (math.isfinite(header.slope) and header.slope not in (0.0, 1.0)) or (header.slope == 1.0 and header.intercept):
        array = array * header.slope + header.intercept
    return header, array


def read_header(path: Path) -> Header:
    """The header alone."""
    with _opened(path) as file:
        return _header(file, path)


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise UnreadableError("the file is empty")
    if kind := LOOKS_LIKE.get(start):
        raise UnreadableError(f"it looks like {kind}")
    is_gzip = start[:2] == b"\x1f\x8b"
    if is_gzip != path.name.lower().endswith(".gz"):
        raise UnreadableError("it is compressed but its name lacks .gz" if is_gzip else "it is not compressed by gzip")
    with cast(IO[bytes], gzip.open(path)) if is_gzip else path.open("rb") as opened:
        try:
            yield opened
        except EOFError:
            raise UnreadableError("the compressed data end before the file does; it was cut off") from None
        except (gzip.BadGzipFile, zlib.error) as fault:
            raise UnreadableError(f"the compressed data are damaged: {fault}") from None


def _header(file: IO[bytes], path: Path) -> Header:
    raw = _exactly(file, 4, path, "header")
    sizes = {order: struct.unpack(f"{order}i", raw)[0] for order in "<>"}
    order = next((order for order, size in sizes.items() if size in (HEADER_1, HEADER_2)), None)
    if order is None:
        raise UnreadableError("this is no NIfTI header")
    size = sizes[order]
    raw += _exactly(file, size - 4, path, "header")
    header = _parsed_2(raw, order) if size == HEADER_2 else _parsed_1(raw, order)
    limit = path.stat().st_size * (GZIP_MOST if path.name.lower().endswith(".gz") else 1)
    if header.nbytes + header.offset > limit:
        raise UnreadableError(
            f"the header promises {header.nbytes} bytes of voxels, {'×'.join(map(str, header.shape))}; "
            f"the file has {path.stat().st_size}"
        )
    return header


def _parsed_1(raw: bytes, order: str) -> Header:
    def get(form: str, at: int) -> tuple:
        return struct.unpack_from(order + form, raw, at)

    dims, (code,) = get("8h", 40), get("h", 70)
    pixdim, (offset, slope, intercept) = get("8f", 76), get("3f", 108)
    (units,) = get("B", 123)
    qcode, scode = get("2h", 252)
    quatern, rows = get("6f", 256), np.array(get("12f", 280)).reshape(3, 4)
    if raw[344:347] not in (b"n+1", b"ni1"):
        raise UnreadableError("the header's signature is missing")
    return _made(dims, code, order, pixdim, offset, (slope, intercept), units, qcode, quatern, scode, rows)


def _parsed_2(raw: bytes, order: str) -> Header:
    def get(form: str, at: int) -> tuple:
        return struct.unpack_from(order + form, raw, at)

    (code,), dims, pixdim = get("h", 12), get("8q", 16), get("8d", 104)
    (offset,), (slope, intercept) = get("q", 168), get("2d", 176)
    qcode, scode = get("2i", 344)
    quatern, rows = get("6d", 352), np.array(get("12d", 400)).reshape(3, 4)
    (units,) = get("i", 500)
    return _made(dims, code, order, pixdim, offset, (slope, intercept), units, qcode, quatern, scode, rows)


def _made(
    dims: tuple[int, ...], code: int, order: str, pixdim: tuple[float, ...], offset: float,
    scaling: tuple[float, float], units: int, qcode: int, quatern: tuple[float, ...], scode: int, rows: np.ndarray,
) -> Header:  # fmt: skip
    count = dims[0]
    if not 1 <= count <= 7 or any(not 1 <= size < 2**31 for size in dims[1 : count + 1]):
        raise UnreadableError(f"the header's dimensions make no sense: {list(dims)}")
    if code not in TYPES:
        raise UnreadableError(f"the header's voxel type {code} is none we know")
    if not (math.isfinite(offset) and 0 <= offset < 2**40):
        raise UnreadableError(f"the header says that voxels begin at byte {offset}")
    return Header(
        tuple(int(size) for size in dims[1 : count + 1]),
        TYPES[code],
        order,
        tuple(float(x) for x in pixdim[1 : count + 1]),
        _from_quaternion(quatern, pixdim) if qcode > 0 else None,
        np.vstack([rows, [0, 0, 0, 1]]).astype(float) if scode > 0 else None,
        *scaling,
        int(offset),
        units & 7,
    )


def _from_quaternion(quatern: tuple[float, ...], pixdim: tuple[float, ...]) -> np.ndarray:
    """NIfTI's quaternion b, c, d and shift, with the handedness in pixdim[0]."""
    b, c, d, x, y, z = quatern
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d)) if all(map(math.isfinite, quatern)) else math.nan
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    scale = np.array([pixdim[1], pixdim[2], pixdim[3] * (-1 if pixdim[0] < 0 else 1)])
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * scale, (x, y, z)
    return affine


def _exactly(file: IO[bytes], count: int, path: Path, what: str) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise UnreadableError(f"{what}: {count} bytes expected, {len(data)} found")
    return data


def _skip(file: IO[bytes], offset: int, path: Path) -> None:
    at = file.tell()
    if offset > at:
        _exactly(file, offset - at, path, "extensions")


def _to_the_end(file: IO[bytes], path: Path) -> None:
    """Read what follows, little as it should be: the checksum of gzip is at the end."""
    if len(file.read(MOST_TRAILING)) == MOST_TRAILING:
        raise UnreadableError("far more data follow the voxels than a NIfTI file has")
