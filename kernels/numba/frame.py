"""What a kernel is told: a list of int64, the same for every shape, layout, route and option: one kernel serves all.

First come arrays, `ARRAY_FIELDS` numbers each, then single numbers. Addresses and strides are in bytes; 0 stands for an
array that is not there.
"""

from umamba_seg.kernels.numba.target import target

LANES = target().lanes
ROW = 4 * LANES  # bytes of a vector
FLOAT32, BFLOAT16, FLOAT16 = range(3)  # how the numbers of an array are stored
INCLUSIVE, OWN, SHIFT = range(3)  # what a token reads, see `Scan.exclusive`

ARRAYS = ("u", "delta", "z", "y", "B", "C", "grad_y", "du", "ddelta", "dz", "dB", "dC")
# inner: from one channel or state to the next; kind: of numbers; adds: whether to add to what is there
ARRAY_FIELDS = ("address", "batch", "group", "token", "inner", "kind", "adds")
NUMBERS = (
    # sizes
    "groups", "channels", "blocks", "states", "chunks",  # channels of a group, blocks of a group, chunks of states
    # options
    "softplus", "mode", "is_scaled", "is_weighted",  # a mode of above; whether dt or y are multiplied with other than 1
    # the order of the tokens, see `Order`
    "count_slow", "count_middle", "count_fast", "stride_slow", "stride_middle", "stride_fast", "start",
    "offsets", "run", "window", "pieces_of_a_run", "pieces", "table", "table_batch", "slots",
    "ahead",  # voxels from those of one tile to those of the next
    # rows of one vector for each block of channels: [block][lane], rates also [block][state][lane]
    "dt_scale", "dt_unscale", "rates", "inverse_rates", "bias", "skip", "weight", "weight_batch",
    "partner",  # the frame of the reverse of these lines, see `pair`
    # states: [batch item][piece][n][d], checkpoints [batch item][slot][n][d]
    "initial", "last", "checkpoints", "grad_initial", "grad_last",
    # sums over the sequences of one run: [run][block][lane], those of A also [state]
    "grad_rates", "grad_bias", "grad_skip", "grad_weight",
)  # fmt: skip

_PLACES = {name: i * len(ARRAY_FIELDS) for i, name in enumerate(ARRAYS)}
_PLACES |= {name: len(ARRAYS) * len(ARRAY_FIELDS) + i for i, name in enumerate(NUMBERS)}


def place(name: str) -> int:
    """How many bytes into the frame a number or the first one of an array is."""
    return 8 * _PLACES[name]


def packed(arrays: dict[str, tuple[int, ...]], numbers: dict[str, int]) -> list[int]:
    """The frame of these arrays and numbers; what is missing is 0."""
    missing = (0,) * len(ARRAY_FIELDS)
    frame = [field for name in ARRAYS for field in arrays.get(name, missing)]
    unknown = (arrays.keys() | numbers.keys()) - _PLACES.keys()
    assert not unknown, unknown
    return frame + [int(numbers.get(name, 0)) for name in NUMBERS]
