"""Half precision for numba, which has none on CPUs: its 16 bits as integers.

Sums of overlapping tiles are kept in half precision because nnU-Net keeps them so, and small classes change with it.
Every function here rounds to the nearest, ties to even, as the processor does. They are written so that loops over
them become vector code: no branches, no tables.
"""

from typing import Any

import numba
import numpy as np

_SIGN, _MAGNITUDE = np.int32(0x8000), np.int32(0x7FFF)
_INFINITE = np.int32(0x7C00)
_UP, _DOWN = np.float32(2.0**112), np.float32(2.0**-112)  # between the two biases, 127 and 15
_SUBNORMAL_MAGIC = np.float32(0.5)  # its last bit weighs 2**-24, which is the last of a subnormal half
_LAST_BIT = np.int64(2**42 - 1)  # the bits of a double below the last of a half
_DOUBLE_MAGIC = 1.5 * 2.0**28  # its last bit weighs 2**-24


@numba.njit(inline="always")
def from_half(bits: Any) -> Any:  # uint16 -> float32
    """The number that 16 bits stand for; infinity comes out as 65536."""
    word = np.int32(bits)
    magnitude = np.int32((word & _MAGNITUDE) << np.int32(13)).view(np.float32) * _UP
    return np.int32(np.float32(magnitude).view(np.int32) | np.int32((word & _SIGN) << np.int32(16))).view(np.float32)


@numba.njit(inline="always")
def to_half(value: Any) -> Any:  # float32 -> uint16
    """The 16 bits of the half next to a number; infinite from 65520 on."""
    word = np.float32(value).view(np.int32)
    sign = np.int32((word >> np.int32(16)) & _SIGN)
    magnitude = np.int32(word & np.int32(0x7FFFFFFF))
    odd = np.int32((magnitude >> np.int32(13)) & np.int32(1))
    normal = np.int32((magnitude + np.int32(0xFFF) + odd) >> np.int32(13)) - np.int32(112 << 10)
    small = np.float32(np.int32(magnitude).view(np.float32) + _SUBNORMAL_MAGIC).view(np.int32) - np.int32(0x3F000000)
    bits = small if magnitude < np.int32(113 << 23) else normal
    return np.uint16(min(bits, _INFINITE) | sign)


@numba.njit(inline="always")
def round_to_half(value: Any) -> Any:  # float64 -> float64
    """A double rounded once to what a half can hold; for numbers up to 65504."""
    if abs(value) < 2.0**-14:
        return (value + _DOUBLE_MAGIC) - _DOUBLE_MAGIC
    word = np.float64(value).view(np.int64)
    odd = (word >> np.int64(42)) & np.int64(1)
    return np.int64((word + np.int64(2**41 - 1) + odd) & ~_LAST_BIT).view(np.float64)
