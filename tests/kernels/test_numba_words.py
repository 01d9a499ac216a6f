"""Each word of the vector kernels by itself, on ranges that hold the extremes."""

import math
import threading

import pytest
import torch

numba = pytest.importorskip("numba")

from umamba_seg.kernels.numba import words  # noqa: E402
from umamba_seg.kernels.numba.frame import LANES, ROW  # noqa: E402

LOG2 = math.log(2)
WIDE = 4
EXPONENTS = torch.cat([torch.linspace(-125.5, 126.5, 4096), torch.linspace(-1, 1, 4096), torch.zeros(WIDE * LANES)])


def mapped(word, x):
    """A word of one vector, applied to all of x, which fills whole tuples of vectors."""

    @numba.njit
    def run(source, to, count):
        for i in range(0, count, WIDE):
            words.store_tuple(to + i * ROW, word(words.load_tuple(source + i * ROW, WIDE)))

    y = torch.empty_like(x)
    run(x.data_ptr(), y.data_ptr(), x.numel() // LANES)
    return y


@pytest.mark.parametrize(
    ("word", "exact", "scale", "budget"),
    [
        (words.exp2, torch.exp2, 1.0, 3e-7),
        # from here on x * log2(e) is rounded once, which costs |x| * 6e-8
        (words.softplus, lambda x: x.clamp(min=0) + torch.log1p(torch.exp(-x.abs())), LOG2, 1e-5),
        (words.sigmoid, torch.sigmoid, LOG2, 1e-5),
        (words.silu, torch.nn.functional.silu, LOG2, 1e-5),
        (words.exp2_less_one, lambda x: torch.expm1(x * LOG2), 1.0, 1e-6),
    ],
    ids=["exp2", "softplus", "sigmoid", "silu", "exp2_less_one"],
)
def test_a_word_is_what_its_name_says(word, exact, scale, budget):
    x = EXPONENTS * scale
    expected = exact(x.double())

    error = (mapped(word, x).double() - expected).abs() / expected.abs().clamp(min=1e-37)

    assert error.max() <= budget


def test_powers_of_two_are_right_at_the_edges():
    edges = torch.tensor([0.0, -0.0, -1e30, 1e30, math.nan, -math.inf, -200.0, 1.0])

    got = mapped(words.exp2, edges.repeat(WIDE * LANES // 8))[:8]

    assert got[0] == got[1] == 1  # a token that is not there must leave the state as it is, to the bit
    assert got[2] < 1e-37
    assert got[3] > 1e38
    assert got[4].isnan()
    assert got[5] < 1e-37
    assert got[6] < 1e-37
    assert got[7] == 2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_numbers_are_read_and_rounded_as_torch_does(dtype):
    kind = str(dtype).removeprefix("torch.")
    read, write = getattr(words, f"load_first_{kind}"), getattr(words, f"store_first_{kind}")

    @numba.njit
    def there_and_back(source, to, count):
        for i in range(0, count, LANES):
            words.store(to + 4 * i, read(source + 2 * i, LANES))

    @numba.njit
    def narrowed(source, to, count):
        for i in range(0, count, LANES):
            write(to + 2 * i, words.load(source + 4 * i), LANES)

    bits = torch.arange(2**16, dtype=torch.int32).to(torch.int16).view(dtype)
    wide = torch.empty(2**16)
    there_and_back(bits.data_ptr(), wide.data_ptr(), 2**16)
    torch.testing.assert_close(wide, bits.float(), rtol=0, atol=0, equal_nan=True)

    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(4096, generator=generator) * scale for scale in (1e-6, 1, 1e4)])
    values[:4] = torch.tensor([math.nan, math.inf, -math.inf, 0.0])
    narrow = torch.empty(len(values), dtype=dtype)
    narrowed(values.data_ptr(), narrow.data_ptr(), len(values))
    torch.testing.assert_close(narrow, values.to(dtype), rtol=0, atol=0, equal_nan=True)


def test_a_block_is_transposed_and_what_is_outside_is_left_alone():
    @numba.njit
    def blocks(source, to):
        words.transpose_block(to, ROW, LANES - 1, LANES, source, ROW, LANES, LANES - 2)

    block, to = torch.arange(LANES * LANES, dtype=torch.float32).view(LANES, LANES), torch.full((LANES, LANES), -1.0)
    blocks(block.data_ptr(), to.data_ptr())

    expected = block.T.clone()
    expected[LANES - 2 :] = 0
    expected[LANES - 1] = -1
    assert torch.equal(to, expected)


def test_rows_are_summed_each_into_its_lane():
    @numba.njit
    def sums(source, to):
        words.store(to, words.sum_rows(words.load_tuple(source, LANES)))

    rows, got = torch.arange(LANES * LANES, dtype=torch.float32).view(LANES, LANES) / 8, torch.empty(LANES)
    sums(rows.data_ptr(), got.data_ptr())

    assert torch.equal(got, rows.sum(1))


def test_halves_change_places():
    half = LANES // 2

    @numba.njit
    def swapped(source, to):
        words.store(to, words.swap_halves(words.load(source), half))

    row, got = torch.arange(LANES, dtype=torch.float32), torch.empty(LANES)
    swapped(row.data_ptr(), got.data_ptr())

    assert got.tolist() == [*range(half, LANES), *range(half)]


def test_vectors_are_added_up_by_halves():
    rows = torch.tensor([1.0, 1e8, 3.0, -1e8])[:, None].repeat(1, LANES)

    @numba.njit
    def run(source, to):
        words.store(to, words.total(words.load_tuple(source, 4)))

    total = torch.empty(LANES)
    run(rows.data_ptr(), total.data_ptr())

    assert torch.equal(total, (rows[0] + rows[1]) + (rows[2] + rows[3]))


def test_a_thread_that_looks_finds_what_was_stored_before_it_was_published():
    @numba.njit(nogil=True)
    def tell(at, count):
        for k in range(count):
            words.store_int(at + 128, k)
            words.publish(at, k + 1)
            while words.look(at + 256) < k + 1:
                words.give_way()

    @numba.njit(nogil=True)
    def hear(at, count):
        missed = 0
        for k in range(count):
            while words.look(at) < k + 1:
                words.give_way()
            if words.load_int(at + 128) != k:
                missed += 1
            words.publish(at + 256, k + 1)
        return missed

    memory, count = torch.zeros(48, dtype=torch.int64), 2000
    tell(memory.data_ptr(), 0)  # compiled
    other = threading.Thread(target=tell, args=(memory.data_ptr(), count))
    other.start()
    assert hear(memory.data_ptr(), count) == 0
    other.join()
