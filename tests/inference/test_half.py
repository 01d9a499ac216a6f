"""Half precision in integers, against numpy's."""

import numba
import numpy as np

from umamba_seg.inference.half import from_half, round_to_half, to_half

BITS = np.arange(2**16, dtype=np.uint16)
HALVES = BITS.view(np.float16)
FINITE = HALVES[np.isfinite(HALVES)]


@numba.njit
def _each(values, out, way):
    for i in range(values.size):
        if way == 0:
            out[i] = from_half(values[i])
        elif way == 1:
            out[i] = to_half(values[i])
        else:
            out[i] = round_to_half(values[i])


def _midpoints(kind):
    """Numbers as far from one half as from the next, and their neighbours."""
    middle = (FINITE[:-1].astype(kind) + FINITE[1:].astype(kind)) / 2
    return np.concatenate([middle, np.nextafter(middle, kind(np.inf)), np.nextafter(middle, kind(-np.inf))])


def test_every_half_is_read_as_what_it_is():
    out = np.zeros(len(BITS), np.float32)
    _each(BITS, out, 0)

    is_finite = np.isfinite(HALVES)
    assert np.array_equal(out[is_finite], HALVES[is_finite].astype(np.float32))
    assert np.array_equal(np.signbit(out[is_finite]), np.signbit(HALVES[is_finite]))
    assert out[0x7C00] == 65536


def test_numbers_become_the_half_that_numpy_makes_of_them():
    rng = np.random.default_rng(0)
    spread = rng.normal(size=200_000) * 10.0 ** rng.integers(-9, 6, 200_000)
    values = np.concatenate([spread, _midpoints(np.float32), [65519.9, 65520, -7e4, 0.0, -0.0]]).astype(np.float32)
    out = np.zeros(len(values), np.uint16)
    _each(values, out, 1)

    with np.errstate(over="ignore"):
        assert np.array_equal(out, values.astype(np.float16).view(np.uint16))


def test_doubles_are_rounded_once():
    rng = np.random.default_rng(0)
    spread = rng.normal(size=200_000) * 10.0 ** rng.integers(-9, 4, 200_000)
    values = np.concatenate([spread, _midpoints(np.float64)])
    values = values[np.abs(values) <= 65504]
    out = np.zeros(len(values))
    _each(values, out, 2)

    assert np.array_equal(out, values.astype(np.float16).astype(np.float64))
