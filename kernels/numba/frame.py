"""What a kernel is told: a list of int64, the same for every shape, layout, route and option: one kernel serves all.

First come arrays, `ARRAY_FIELDS` numbers each, then single numbers, kind by kind. Addresses and strides are in bytes;
0 stands for an array that is not there.
"""

from typing import NamedTuple

from umamba_seg.kernels.numba.target import target
from umamba_seg.kernels.problem import CHECKPOINT_STEP

LANES = target().lanes
ROW = 4 * LANES  # bytes of a vector
TILE = CHECKPOINT_STEP  # tokens
TILE_BYTES = TILE * ROW
LINE = 64  # bytes that memory gives at once
FLOAT32, BFLOAT16, FLOAT16 = range(3)  # how the numbers of an array are stored
INCLUSIVE, OWN, SHIFT = range(3)  # what a token reads, see `Scan.exclusive`

ARRAYS = ("u", "delta", "z", "y", "B", "C", "grad_y", "du", "ddelta", "dz", "dB", "dC")
# inner: from one channel or state to the next; kind: of numbers; adds: whether to add to what is there
ARRAY_FIELDS = ("address", "batch", "group", "token", "inner", "kind", "adds")


class Sizes(NamedTuple):
    """How many there are of what; channels and blocks of a group, chunks of states."""

    groups: int
    channels: int
    blocks: int
    states: int
    chunks: int


class Options(NamedTuple):
    """What is computed: a mode of above, and whether dt or y are multiplied with other than 1."""

    softplus: int
    mode: int
    is_scaled: int
    is_weighted: int


class Loops(NamedTuple):
    """The order of the tokens, see `Order`: three loops over voxels."""

    count_slow: int
    count_middle: int
    count_fast: int
    stride_slow: int
    stride_middle: int
    stride_fast: int
    start: int


class Cuts(NamedTuple):
    """Where the state starts anew, see `Order`."""

    offsets: int
    run: int
    window: int
    pieces_of_a_run: int


class Walk(NamedTuple):
    """Along the tokens of a batch item; `ahead` is how many voxels those of the next tile lie behind those of one."""

    pieces: int
    table: int
    table_batch: int
    slots: int
    ahead: int


class Rows(NamedTuple):
    """Rows of one vector for each block of channels: [block][lane]; rates have [block][state][lane]."""

    dt_scale: int
    dt_unscale: int
    rates: int
    inverse_rates: int
    bias: int
    skip: int
    weight: int
    weight_batch: int
    partner: int  # the frame of the reverse of these lines, see `pair`


class States(NamedTuple):
    """States in memory: [batch item][piece][n][d], checkpoints [batch item][slot][n][d]."""

    initial: int
    last: int
    checkpoints: int
    grad_initial: int
    grad_last: int


class Sums(NamedTuple):
    """Sums over the sequences of one run: [run][block][lane], those of A also [state]."""

    grad_rates: int
    grad_bias: int
    grad_skip: int
    grad_weight: int


KINDS = (Sizes, Options, Loops, Cuts, Walk, Rows, States, Sums)
NUMBERS = tuple(name for kind in KINDS for name in kind._fields)

_PLACES = {name: i * len(ARRAY_FIELDS) for i, name in enumerate(ARRAYS)}
_PLACES |= {name: len(ARRAYS) * len(ARRAY_FIELDS) + i for i, name in enumerate(NUMBERS)}


def place(name: str) -> int:
    """How many bytes into the frame a number or the first one of an array is."""
    return 8 * _PLACES[name]


U, DELTA, Z, Y, B, C, GRAD_Y, DU, DDELTA, DZ, DB, DC = (place(name) for name in ARRAYS)


def packed(arrays: dict[str, tuple[int, ...]], numbers: dict[str, int]) -> list[int]:
    """The frame of these arrays and numbers; what is missing is 0."""
    missing = (0,) * len(ARRAY_FIELDS)
    frame = [field for name in ARRAYS for field in arrays.get(name, missing)]
    unknown = (arrays.keys() | numbers.keys()) - _PLACES.keys()
    assert not unknown, unknown
    return frame + [int(numbers.get(name, 0)) for name in NUMBERS]
