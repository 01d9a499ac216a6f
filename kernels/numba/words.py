"""The words that the kernels are written in: numba functions on vectors, made from `Emit`.

A variable in a kernel may hold a vector, of type `VECTOR`, or a tuple of vectors; LLVM keeps both in registers.
Addresses and strides are bytes, as int64. B and C of a token are packed side by side: n floats of B, then n of C.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from umamba_seg.kernels.numba import emit
from umamba_seg.kernels.numba.emit import I16, I32, I64, LOG2E, POINTER, Emit, Value
from umamba_seg.kernels.numba.frame import BFLOAT16, FLOAT16, LANES, LINE, ROW, TILE
from umamba_seg.kernels.numba.target import target

INT = types.int64
Generate = Callable[..., Any]
Signature = tuple[Any, Generate]


class VectorType(types.Type):
    """Numba's name for a vector."""

    def __init__(self) -> None:
        super().__init__(name=f"float32x{LANES}")


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    """Numba's way to hold a vector: as LLVM's."""

    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, emit.VECTOR)


VECTOR = VectorType()


def _word(method: str) -> Generate:
    """Generate the code of a word that is one method of `Emit`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        value = getattr(Emit(builder), method)(*args)
        return context.get_dummy_value() if value is None else value

    return generate


def _arithmetic(method: str, *kinds: Any) -> Signature:
    """A word on vectors or tuples of vectors; a single vector among tuples is shared."""
    result = next((kind for kind in kinds if isinstance(kind, types.UniTuple)), VECTOR)

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        unpacked = [
            e.items(a, kind.count) if isinstance(kind, types.UniTuple) else a
            for a, kind in zip(args, kinds, strict=True)
        ]
        value = getattr(e, method)(*unpacked)
        return e.tuple(value) if isinstance(value, list) else value

    return result(*kinds), generate


def _number(literal: Any) -> int | None:
    return literal.literal_value if isinstance(literal, types.IntegerLiteral) else None


# memory


@intrinsic
def load_int(typing: Any, address: Any) -> Signature:
    """The int64 at an address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], POINTER), align=8, typ=I64)

    return INT(INT), generate


@intrinsic
def load_ints(typing: Any, address: Any, count: Any) -> Signature | None:
    """A tuple of `count` consecutive int64."""
    if (n := _number(count)) is None:
        return None

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return context.make_tuple(builder, signature.return_type, _consecutive(builder, args[0], 0, n))

    return types.UniTuple(INT, n)(INT, count), generate


def named(kind: Any) -> Any:
    """Numba's name for a named tuple of int64."""
    return types.NamedUniTuple(INT, len(kind._fields), kind)


def _consecutive(builder: ir.IRBuilder, address: Value, first: int, count: int) -> list[Value]:
    places = [builder.add(address, ir.Constant(I64, first + 8 * i)) for i in range(count)]
    return [builder.load(builder.inttoptr(at, POINTER), align=8, typ=I64) for at in places]


def reader(kind: Any, place: int) -> Any:
    """A word that reads a named tuple of int64, `place` bytes behind an address."""
    result = named(kind)

    @intrinsic
    def read(typing: Any, address: Any) -> Signature:
        def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
            return context.make_tuple(builder, result, _consecutive(builder, args[0], place, result.count))

        return result(INT), generate

    return read


@intrinsic
def least(typing: Any, x: Any, y: Any) -> Signature:
    """The smaller of two int64. Numba's min is compiled apart, which takes longer."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_signed("<", *args), *args)

    return INT(INT, INT), generate


@intrinsic
def store_int(typing: Any, address: Any, value: Any) -> Signature:
    """An int64 to an address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], POINTER), align=8)
        return context.get_dummy_value()

    return types.void(INT, INT), generate


@intrinsic
def load(typing: Any, address: Any) -> Signature:
    """A vector."""
    return VECTOR(INT), _word("load")


@intrinsic
def store(typing: Any, address: Any, value: Any) -> Signature:
    """A vector to memory."""
    return types.void(INT, VECTOR), _word("store")


@intrinsic
def load_first(typing: Any, address: Any, count: Any) -> Signature:
    """The first `count` lanes, 0 in the others, whose memory is not touched."""
    return VECTOR(INT, INT), _word("load_first")


@intrinsic
def store_first(typing: Any, address: Any, value: Any, count: Any) -> Signature:
    """The first `count` lanes to memory; that of the others is not touched."""
    return types.void(INT, VECTOR, INT), _word("store_first")


def _load_first_narrow(kind: int) -> Signature:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        return e.widen(e.load_first(args[0], args[1], I16), kind)

    return VECTOR(INT, INT), generate


def _store_first_narrow(kind: int) -> Signature:
    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        e.store_first(args[0], e.narrow(args[1], kind), args[2])
        return context.get_dummy_value()

    return types.void(INT, VECTOR, INT), generate


@intrinsic
def load_first_bfloat16(typing: Any, address: Any, count: Any) -> Signature:
    """`load_first` of numbers of 16 bits."""
    return _load_first_narrow(BFLOAT16)


@intrinsic
def load_first_float16(typing: Any, address: Any, count: Any) -> Signature:
    """`load_first` of numbers of 16 bits."""
    return _load_first_narrow(FLOAT16)


@intrinsic
def store_first_bfloat16(typing: Any, address: Any, value: Any, count: Any) -> Signature:
    """`store_first` of numbers of 16 bits."""
    return _store_first_narrow(BFLOAT16)


@intrinsic
def store_first_float16(typing: Any, address: Any, value: Any, count: Any) -> Signature:
    """`store_first` of numbers of 16 bits."""
    return _store_first_narrow(FLOAT16)


@intrinsic
def load_tuple(typing: Any, address: Any, count: Any) -> Signature | None:
    """`count` consecutive vectors; the number must be known when the kernel is compiled."""
    if (n := _number(count)) is None:
        return None

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        return e.tuple([e.load(args[0], i * ROW) for i in range(n)])

    return types.UniTuple(VECTOR, n)(INT, count), generate


@intrinsic
def store_tuple(typing: Any, address: Any, values: Any) -> Signature:
    """Consecutive vectors to memory."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        for i, value in enumerate(e.items(args[1], values.count)):
            e.store(args[0], value, i * ROW)
        return context.get_dummy_value()

    return types.void(INT, values), generate


@intrinsic
def load_rows(typing: Any, address: Any, pitch: Any, count: Any) -> Signature | None:
    """`count` vectors, `pitch` bytes apart."""
    if (n := _number(count)) is None:
        return None

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e, address = Emit(builder), args[0]
        rows = [e.load(address)]
        for _ in range(n - 1):
            address = builder.add(address, args[1])
            rows.append(e.load(address))
        return e.tuple(rows)

    return types.UniTuple(VECTOR, n)(INT, INT, count), generate


@intrinsic
def store_rows(typing: Any, address: Any, pitch: Any, values: Any) -> Signature:
    """Vectors to memory, `pitch` bytes apart."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e, address = Emit(builder), args[0]
        for value in e.items(args[2], values.count):
            e.store(address, value)
            address = builder.add(address, args[1])
        return context.get_dummy_value()

    return types.void(INT, INT, values), generate


@intrinsic
def broadcast_tuple(typing: Any, address: Any, count: Any) -> Signature | None:
    """`count` consecutive floats, each in all lanes of a vector."""
    if (n := _number(count)) is None:
        return None

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        return e.tuple([e.broadcast(args[0], i) for i in range(n)])

    return types.UniTuple(VECTOR, n)(INT, count), generate


@intrinsic
def load_state(typing: Any, address: Any, pitch: Any, lanes: Any, rows: Any, count: Any) -> Signature | None:
    """`count` rows `pitch` bytes apart, of which memory has the first `lanes` lanes and the first `rows`; else 0."""
    if (n := _number(count)) is None:
        return None

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        return e.tuple([e.load_first(*_row(builder, i, *args[:4])) for i in range(n)])

    return types.UniTuple(VECTOR, n)(INT, INT, INT, INT, count), generate


@intrinsic
def store_state(typing: Any, address: Any, pitch: Any, lanes: Any, rows: Any, values: Any) -> Signature:
    """The inverse of `load_state`."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        for i, value in enumerate(e.items(args[4], values.count)):
            at, inside = _row(builder, i, *args[:4])
            e.store_first(at, value, inside)
        return context.get_dummy_value()

    return types.void(INT, INT, INT, INT, values), generate


def _row(builder: ir.IRBuilder, i: int, address: Value, pitch: Value, lanes: Value, rows: Value) -> tuple[Value, Value]:
    """Where row i is and how many of its lanes are there."""
    number = ir.Constant(I64, i)
    inside = builder.select(builder.icmp_signed("<", number, rows), lanes, ir.Constant(I64, 0))
    return builder.add(address, builder.mul(pitch, number)), inside


@intrinsic
def transpose_block(
    typing: Any, to: Any, to_stride: Any, to_rows: Any, to_count: Any, source: Any, stride: Any, rows: Any, count: Any
) -> Signature:
    """Read LANES rows, transpose in registers, write LANES rows.

    Rows and lanes outside the counts are read as 0 and not written.
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        to, to_stride, to_rows, to_count, source, stride, rows, count = args
        block = [e.load_first(*_row(builder, r, source, stride, count, rows)) for r in range(LANES)]
        for r, row in enumerate(e.transpose(block)):
            at, inside = _row(builder, r, to, to_stride, to_count, to_rows)
            e.store_first(at, row, inside)
        return context.get_dummy_value()

    return types.void(*[INT] * 8), generate


@intrinsic
def prefetch_rows(typing: Any, places: Any, voxel: Any, t: Any) -> Signature:
    """Tell the processor what will be read at token t, at places as `next_rows` gives: a line of memory of each."""
    lines = ir.Constant(I64, 4 * TILE // LINE)  # of a row of tokens

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        numbers = args[1], builder.udiv(args[2], lines), builder.urem(args[2], lines)
        for i in range(places.count):
            address, *steps = (builder.extract_value(args[0], (i, k)) for k in range(4))
            for number, step in zip(numbers, steps, strict=True):
                address = builder.add(address, builder.mul(number, step))
            Emit(builder).prefetch(address)
        return context.get_dummy_value()

    return types.void(places, INT, INT), generate


# between threads


@intrinsic
def publish(typing: Any, address: Any, value: Any) -> Signature:
    """An int64 to an address: who looks and finds it also finds all that was stored before."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        builder.store_atomic(args[1], builder.inttoptr(args[0], I64.as_pointer()), "release", 8)
        return context.get_dummy_value()

    return types.void(INT, INT), generate


@intrinsic
def look(typing: Any, address: Any) -> Signature:
    """The int64 that was last published at an address."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return builder.load_atomic(builder.inttoptr(args[0], POINTER), "acquire", 8, typ=I64)

    return INT(INT), generate


@intrinsic
def give_way(typing: Any) -> Signature:
    """Let another thread run if one waits for this processor."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        Emit(builder).call("sched_yield", I32)
        return context.get_dummy_value()

    return types.void(), generate


# arithmetic


@intrinsic
def splat(typing: Any, scalar: Any) -> Signature:
    """A float in all lanes."""
    return VECTOR(types.float32), _word("splat")


@intrinsic
def add(typing: Any, x: Any, y: Any) -> Signature:
    """x + y."""
    return _arithmetic("add", x, y)


@intrinsic
def mul(typing: Any, x: Any, y: Any) -> Signature:
    """x * y."""
    return _arithmetic("mul", x, y)


@intrinsic
def fma(typing: Any, x: Any, y: Any, z: Any) -> Signature:
    """x * y + z."""
    return _arithmetic("fma", x, y, z)


@intrinsic
def exp2(typing: Any, x: Any) -> Signature:
    """2 to the x."""
    return _arithmetic("exp2", x)


@intrinsic
def exp2_less_one(typing: Any, x: Any) -> Signature:
    """2 to the x, less 1, precise near 0 too."""
    return _arithmetic("exp2_less_one", x)


@intrinsic
def softplus(typing: Any, x: Any) -> Signature:
    """log(1 + exp(x))."""
    return _arithmetic("softplus", x)


@intrinsic
def sigmoid(typing: Any, x: Any) -> Signature:
    """1 / (1 + exp(-x))."""
    return _arithmetic("sigmoid", x)


@intrinsic
def silu(typing: Any, x: Any) -> Signature:
    """x * sigmoid(x)."""
    return _arithmetic("silu", x)


@intrinsic
def total(typing: Any, rows: Any) -> Signature:
    """The sum of the vectors of a tuple, in the order in which `advance` adds up."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        return e.total(e.items(args[0], rows.count))

    return VECTOR(rows), generate


@intrinsic
def sum_rows(typing: Any, rows: Any) -> Signature:
    """A vector whose lane i is the sum over the lanes of rows[i]."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e = Emit(builder)
        return e.sum_lanes(e.items(args[0], rows.count))

    return VECTOR(rows), generate


@intrinsic
def swap_halves(typing: Any, row: Any, half: Any) -> Signature | None:
    """The first `half` lanes and the next `half` lanes of a vector in each other's place."""
    if (n := _number(half)) is None:
        return None

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        return Emit(builder).pick(args[0], args[0], [i ^ n for i in range(LANES)])

    return VECTOR(VECTOR, half), generate


# the recurrence; `a` is A * log2(e), h the states, m what is left of the states before


@intrinsic
def advance(typing: Any, h: Any, a: Any, inverse: Any, dt: Any, x: Any, u: Any, bc: Any, own: Any) -> Signature:
    """One token: m = exp2(dt * a) * h, h = m + x * B, y = sum C * m. Returns h and y."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e, n = Emit(builder), signature.args[0].count
        h, a, _inverse, dt, x, _u, bc, _own = args
        return context.make_tuple(builder, signature.return_type, _enter(e, n, _decays(e, n, a, dt), h, x, bc))

    return types.Tuple((h, VECTOR))(*(h,) * 3, *(VECTOR,) * 3, INT, VECTOR), generate


@intrinsic
def advance_keeping_decays(typing: Any, h: Any, a: Any, dt: Any, x: Any, bc: Any, decays: Any) -> Signature:
    """`advance` that also stores the decays."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e, n = Emit(builder), signature.args[0].count
        h, a, dt, x, bc, decays = args

        def keep(i: int, decay: Value, m: Value) -> None:
            e.store(decays, decay, i * ROW)

        entered = _enter(e, n, _decays(e, n, a, dt), h, x, bc, keep)
        return context.make_tuple(builder, signature.return_type, entered)

    return types.Tuple((h, VECTOR))(h, a, VECTOR, VECTOR, INT, INT), generate


@intrinsic
def advance_with_decays(typing: Any, h: Any, x: Any, bc: Any, decays: Any) -> Signature:
    """`advance` with decays from memory."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e, n = Emit(builder), signature.args[0].count
        h, x, bc, decays = args
        kept = (e.load(decays, i * ROW) for i in range(n))
        return context.make_tuple(builder, signature.return_type, _enter(e, n, kept, h, x, bc))

    return types.Tuple((h, VECTOR))(h, VECTOR, INT, INT), generate


@intrinsic
def read_states(typing: Any, h: Any, bc: Any) -> Signature:
    """sum C * h."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e, n = Emit(builder), signature.args[0].count
        outputs: list[Value] = []
        for i, state in enumerate(e.items(args[0], n)):
            _accumulate(e, outputs, i, e.broadcast(args[1], n + i), state)
        return e.total(outputs)

    return VECTOR(h, INT), generate


@intrinsic
def advance_saving(
    typing: Any, h: Any, a: Any, inverse: Any, dt: Any, x: Any, u: Any, bc: Any, own: Any, decays: Any, kept: Any
) -> Signature:
    """`advance` that also stores what `retreat` needs: the decays and m."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e, n = Emit(builder), signature.args[0].count
        h, a, _inverse, dt, x, _u, bc, _own, decays, kept = args

        def keep(i: int, decay: Value, m: Value) -> None:
            e.store(decays, decay, i * ROW)
            e.store(kept, m, i * ROW)

        entered = _enter(e, n, _decays(e, n, a, dt), h, x, bc, keep)
        return context.make_tuple(builder, signature.return_type, entered)

    return types.Tuple((h, VECTOR))(*(h,) * 3, *(VECTOR,) * 3, INT, VECTOR, INT, INT), generate


@intrinsic
def retreat(
    typing: Any, carry: Any, grad_a: Any, a: Any, inverse: Any, g: Any, dt: Any, x: Any, u: Any, bc: Any, own: Any,
    decays: Any, kept: Any, grads: Any,
) -> Signature:  # fmt: skip
    """One token back, for y = sum C * m with gradient g; `carry` is the gradient of h.

    dm = C * g + carry;  carry = decay * dm;  dx = sum B * carry_before;  ddt = sum A * dm * m;  dA += dt * dm * m
    dB = sum carry_before * x and dC = sum g * m over the channels are added at `grads`, packed as B and C are.
    Returns carry, dA, dx, and ddt / log(2).
    """

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e, n = Emit(builder), signature.args[0].count
        carry, grad_a, a, _inverse, g, dt, x, _u, bc, _own, decays, kept, grads = args
        carries, grads_a, for_b, for_c = [], [], [], []
        grad_x: list[Value] = []
        grad_dt: list[Value] = []
        for i in range(n):
            h_grad, m = builder.extract_value(carry, i), e.load(kept, i * ROW)
            _accumulate(e, grad_x, i, e.broadcast(bc, i), h_grad)
            for_b.append(e.mul(h_grad, x))
            for_c.append(e.mul(g, m))
            m_grad = e.fma(e.broadcast(bc, n + i), g, h_grad)
            q = e.mul(m_grad, m)
            _accumulate(e, grad_dt, i, builder.extract_value(a, i), q)
            grads_a.append(e.fma(q, dt, builder.extract_value(grad_a, i)))
            carries.append(e.mul(m_grad, e.load(decays, i * ROW)))
        _add_first(e, grads, e.sum_lanes(for_b + for_c), 2 * n)
        results = e.tuple(carries), e.tuple(grads_a), e.total(grad_x), e.total(grad_dt)
        return context.make_tuple(builder, signature.return_type, results)

    return _retreating(carry), generate


# the same where the input enters exactly; `inverse` is 1 / A, own 1 where a token reads its own input, else 0


@intrinsic
def advance_exactly(typing: Any, h: Any, a: Any, inverse: Any, dt: Any, x: Any, u: Any, bc: Any, own: Any) -> Signature:
    """One token: m = exp2(dt * a) * h, e = (exp2(dt * a) - 1) / A * u * B, h = m + e, y = sum C * (m + own * e)."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        states, read = _advance_exactly(Emit(builder), signature.args[0].count, *args)
        return context.make_tuple(builder, signature.return_type, (states, read))

    return types.Tuple((h, VECTOR))(*(h,) * 3, *(VECTOR,) * 3, INT, VECTOR), generate


@intrinsic
def advance_exactly_saving(
    typing: Any, h: Any, a: Any, inverse: Any, dt: Any, x: Any, u: Any, bc: Any, own: Any, decays: Any, kept: Any
) -> Signature:
    """`advance_exactly` that also stores what `retreat_exactly` needs: the states before."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e, n, kept = Emit(builder), signature.args[0].count, args[-1]
        for i, state in enumerate(e.items(args[0], n)):
            e.store(kept, state, i * ROW)
        states, read = _advance_exactly(e, n, *args[:-2])
        return context.make_tuple(builder, signature.return_type, (states, read))

    return types.Tuple((h, VECTOR))(*(h,) * 3, *(VECTOR,) * 3, INT, VECTOR, INT, INT), generate


@intrinsic
def retreat_exactly(
    typing: Any, carry: Any, grad_a: Any, a: Any, inverse: Any, g: Any, dt: Any, x: Any, u: Any, bc: Any, own: Any,
    decays: Any, kept: Any, grads: Any,
) -> Signature:  # fmt: skip
    """`retreat` for `advance_exactly`. Returns carry, dA, du, ddt / log(2)."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, args: Any) -> Any:
        e, n = Emit(builder), signature.args[0].count
        carry, grad_a, a, inverse, g, dt, _x, u, bc, own, _decays, kept, grads = args
        carries, grads_a, for_b, for_c = [], [], [], []
        grad_u: list[Value] = []
        grad_dt: list[Value] = []
        for i in range(n):
            rate, h_grad = builder.extract_value(a, i), builder.extract_value(carry, i)
            decay, growth = e.exp2_and_less_one(e.mul(dt, rate))
            inverse_rate, b = builder.extract_value(inverse, i), e.broadcast(bc, i)
            gain, m = e.mul(growth, inverse_rate), e.mul(decay, e.load(kept, i * ROW))
            y_grad = e.mul(e.broadcast(bc, n + i), g)
            m_grad, entry_grad = e.add(y_grad, h_grad), e.fma(own, y_grad, h_grad)
            gained = e.mul(gain, entry_grad)
            _accumulate(e, grad_u, i, gained, b)
            for_b.append(e.mul(gained, u))
            for_c.append(e.mul(g, e.fma(own, e.mul(gain, e.mul(u, b)), m)))
            gain_grad, q = e.mul(entry_grad, e.mul(u, b)), e.mul(m_grad, m)
            _accumulate(e, grad_dt, i, rate, q)
            grad_dt[i // 4] = e.fma(e.mul(gain_grad, e.const(LOG2E)), decay, grad_dt[i // 4])
            slope = e.gain_slope(dt, rate, decay, gain, inverse_rate)
            grads_a.append(e.fma(gain_grad, slope, e.fma(q, dt, builder.extract_value(grad_a, i))))
            carries.append(e.mul(m_grad, decay))
        _add_first(e, grads, e.sum_lanes(for_b + for_c), 2 * n)
        results = e.tuple(carries), e.tuple(grads_a), e.total(grad_u), e.total(grad_dt)
        return context.make_tuple(builder, signature.return_type, results)

    return _retreating(carry), generate


def _retreating(carry: Any) -> Any:
    return types.Tuple((carry, carry, VECTOR, VECTOR))(
        *(carry,) * 4, *(VECTOR,) * 4, INT, VECTOR, *(INT,) * 3
    )  # fmt: skip


def _advance_exactly(
    e: Emit, n: int, h: Value, a: Value, inverse: Value, dt: Value, _x: Value, u: Value, bc: Value, own: Value
) -> tuple[Value, Value]:
    states: list[Value] = []
    outputs: list[Value] = []
    for i in range(n):
        decay, growth = e.exp2_and_less_one(e.mul(dt, e.b.extract_value(a, i)))
        entry = e.mul(e.mul(growth, e.b.extract_value(inverse, i)), e.mul(u, e.broadcast(bc, i)))
        m = e.mul(decay, e.b.extract_value(h, i))
        states.append(e.add(m, entry))
        _accumulate(e, outputs, i, e.broadcast(bc, n + i), e.fma(own, entry, m))
    return e.tuple(states), e.total(outputs)


def _decays(e: Emit, n: int, a: Value, dt: Value) -> Iterator[Value]:
    """The decays of a token, some emitted when one is asked for: all at once would not fit the registers.

    Without AVX-512's instructions an exponential is a chain of 13; an old processor looks ahead so little that it waits
    for one unless four go side by side.
    """
    size = 1 if target().has_scaling else 4
    for first in range(0, n, size):
        yield from e.exp2(e.mul(dt, [e.b.extract_value(a, i) for i in range(first, min(first + size, n))]))


def _enter(
    e: Emit,
    n: int,
    decays: Iterable[Value],
    h: Value,
    x: Value,
    bc: Value,
    keep: Callable[[int, Value, Value], None] = lambda i, decay, m: None,
) -> tuple[Value, Value]:
    """m = decay * h, h = m + x * B and y = sum C * m; `keep` may store what a later word needs."""
    states: list[Value] = []
    outputs: list[Value] = []
    for i, decay in enumerate(decays):
        m = e.mul(decay, e.b.extract_value(h, i))
        keep(i, decay, m)
        _accumulate(e, outputs, i, e.broadcast(bc, n + i), m)
        states.append(e.fma(x, e.broadcast(bc, i), m))
    return e.tuple(states), e.total(outputs)


def _accumulate(e: Emit, sums: list[Value], i: int, x: Value, y: Value) -> None:
    """Add x * y of state i to the sum of its four; `Emit.total` adds them up, so that none waits for another."""
    if i // 4 == len(sums):
        sums.append(e.mul(x, y))
    else:
        sums[i // 4] = e.fma(x, y, sums[i // 4])


def _add_first(e: Emit, address: Value, value: Value, count: int) -> None:
    """memory[:count] += value[:count]."""
    if count == LANES:
        e.store(address, e.add(e.load(address), value))
    else:
        lanes = ir.Constant(I64, count)
        e.store_first(address, e.add(e.load_first(address, lanes), value), lanes)
