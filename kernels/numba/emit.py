"""LLVM IR on vectors of floats: Python functions that emit it. A Python loop in here is unrolled in machine code.

Arithmetic also takes lists of vectors and then emits element by element, breadth first: independent chains side by side
hide the latency of a long one such as softplus.
"""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from llvmlite import ir

from umamba_seg.kernels.numba.frame import FLOAT16, LANES
from umamba_seg.kernels.numba.target import target

LOG2E = 1 / math.log(2)

F16, F32 = ir.HalfType(), ir.FloatType()
I16, I32, I64 = (ir.IntType(bits) for bits in (16, 32, 64))
POINTER = ir.PointerType()
VECTOR, INTEGERS = ir.VectorType(F32, LANES), ir.VectorType(I32, LANES)

# Minimax fits. Each is exact at 0: a token that is not there has dt = 0 and must leave the state as it is, to the bit.
EXP2_ON_0_1 = (
    1.0, 0.6931517124176025, 0.240159273147583, 0.05581867694854736, 0.008990995585918427, 0.001879318617284298,
)  # fmt: skip
EXP2_ON_HALVES = (
    1.0, 0.6931470036506653, 0.24022242426872253, 0.05550733581185341, 0.009671512991189957, 0.001326472731307149,
)  # fmt: skip
LOG1P_OVER_X = (
    1.0, -0.49999648332595825, 0.3332132399082184, -0.24857163429260254, 0.19153651595115662,
    -0.13753795623779297, 0.07920445501804352, -0.030065739527344704, 0.005364810582250357,
)  # fmt: skip

GAIN_SLOPE_NEAR_0 = (1 / 2, 1 / 3, 1 / 8, 1 / 30, 1 / 144, 1 / 840)  # of (x exp(x) - exp(x) + 1) / x**2, by Taylor

Value = Any  # an ir.Value, or a list of them


@cache
def _floats(value: float) -> ir.Constant:
    return ir.Constant(VECTOR, [value] * LANES)


@cache
def _integers(values: tuple[int, ...]) -> ir.Constant:
    return ir.Constant(INTEGERS, list(values))


class Emit:
    """Emits IR on vectors of `LANES` floats through an llvmlite builder."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.b = builder

    def const(self, value: float) -> ir.Constant:
        """The same float in all lanes."""
        return _floats(float(value))

    def int_const(self, value: int) -> ir.Constant:
        """The same 32-bit integer in all lanes."""
        return _integers((value,) * LANES)

    @staticmethod
    def each(operation: Callable[..., ir.Value], *args: Value) -> Value:
        """Apply an operation to vectors, or to lists of vectors, with which a single vector is shared."""
        length = next((len(a) for a in args if isinstance(a, list)), None)
        if length is None:
            return operation(*args)
        return [operation(*(a[i] if isinstance(a, list) else a for a in args)) for i in range(length)]

    def call(self, name: str, result: ir.Type, *args: ir.Value) -> ir.Value:
        """Call an LLVM intrinsic."""
        kind = ir.FunctionType(result, [a.type for a in args])
        function = self.b.module.globals.get(name) or ir.Function(self.b.module, kind, name)
        return self.b.call(function, args)

    # memory; addresses are int64

    def pointer(self, address: ir.Value, offset: int = 0) -> ir.Value:
        """`offset` bytes behind an address."""
        if offset:
            address = self.b.add(address, ir.Constant(I64, offset))
        return self.b.inttoptr(address, POINTER)

    def load(self, address: ir.Value, offset: int = 0) -> ir.Value:
        """A vector from memory."""
        return self.b.load(self.pointer(address, offset), align=4, typ=VECTOR)

    def store(self, address: ir.Value, value: ir.Value, offset: int = 0) -> None:
        """A vector to memory."""
        self.b.store(value, self.pointer(address, offset), align=4)

    def first(self, count: ir.Value) -> ir.Value:
        """A mask of the first `count` lanes."""
        return self.b.icmp_signed("<", _integers(tuple(range(LANES))), self.splat(self.b.trunc(count, I32)))

    def load_first(self, address: ir.Value, count: ir.Value, number: ir.Type = F32) -> ir.Value:
        """The first `count` lanes from memory and 0 in the others, whose memory is not touched."""
        kind = ir.VectorType(number, LANES)
        name = f"llvm.masked.load.v{LANES}{_SHORT[str(number)]}.p0"
        align = ir.Constant(I32, 4 if number is F32 else 2)
        return self.call(name, kind, self.pointer(address), align, self.first(count), ir.Constant(kind, None))

    def store_first(self, address: ir.Value, value: ir.Value, count: ir.Value) -> None:
        """The first `count` lanes to memory; that of the others is not touched."""
        number = value.type.element
        name = f"llvm.masked.store.v{LANES}{_SHORT[str(number)]}.p0"
        align = ir.Constant(I32, 4 if number == F32 else 2)
        self.call(name, ir.VoidType(), value, self.pointer(address), align, self.first(count))

    def splat(self, scalar: ir.Value) -> ir.Value:
        """A scalar in all lanes."""
        kind = ir.VectorType(scalar.type, LANES)
        one = self.b.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
        return self.b.shuffle_vector(one, ir.Constant(kind, ir.Undefined), self.int_const(0))

    def broadcast(self, address: ir.Value, index: int = 0) -> ir.Value:
        """The float at address[index] in all lanes."""
        return self.splat(self.b.load(self.pointer(address, 4 * index), align=4, typ=F32))

    def prefetch(self, address: ir.Value) -> None:
        """Tell the processor what will be read."""
        self.call("llvm.prefetch.p0", ir.VoidType(), self.pointer(address), *(ir.Constant(I32, k) for k in (0, 2, 1)))

    # 16-bit numbers

    def widen(self, bits: ir.Value, kind: int) -> ir.Value:
        """Floats from vectors of 16-bit integers that hold bfloat16 or float16."""
        if kind == FLOAT16:
            return self.b.fpext(self.b.bitcast(bits, ir.VectorType(F16, LANES)), VECTOR)
        return self.b.bitcast(self.b.shl(self.b.zext(bits, INTEGERS), self.int_const(16)), VECTOR)

    def narrow(self, x: ir.Value, kind: int) -> ir.Value:
        """The inverse of `widen`, rounded to nearest even."""
        halves = ir.VectorType(I16, LANES)
        if kind == FLOAT16:
            return self.b.bitcast(self.b.fptrunc(x, ir.VectorType(F16, LANES)), halves)
        bits = self.b.bitcast(x, INTEGERS)
        odd = self.b.and_(self.b.lshr(bits, self.int_const(16)), self.int_const(1))
        rounded = self.b.add(bits, self.b.add(odd, self.int_const(0x7FFF)))
        rounded = self.b.select(self.b.fcmp_unordered("uno", x, x), self.int_const(0x7FC00000), rounded)
        return self.b.trunc(self.b.lshr(rounded, self.int_const(16)), halves)

    # arithmetic

    def add(self, x: Value, y: Value) -> Value:
        """x + y."""
        return self.each(self.b.fadd, x, y)

    def sub(self, x: Value, y: Value) -> Value:
        """x - y."""
        return self.each(self.b.fsub, x, y)

    def mul(self, x: Value, y: Value) -> Value:
        """x * y."""
        return self.each(self.b.fmul, x, y)

    def fma(self, x: Value, y: Value, z: Value) -> Value:
        """x * y + z, rounded once."""
        return self.each(lambda *xyz: self.call(f"llvm.fma.v{LANES}f32", VECTOR, *xyz), x, y, z)

    def maximum(self, x: Value, bound: ir.Value) -> Value:
        """The larger of x and a bound; NaN in x stays NaN."""
        return self.each(lambda v: self.b.select(self.b.fcmp_ordered("<", v, bound), bound, v), x)

    def minimum(self, x: Value, bound: ir.Value) -> Value:
        """The smaller of x and a bound; NaN in x stays NaN."""
        return self.each(lambda v: self.b.select(self.b.fcmp_ordered(">", v, bound), bound, v), x)

    def absolute(self, x: Value) -> Value:
        """|x|."""
        return self.each(lambda v: self.call(f"llvm.fabs.v{LANES}f32", VECTOR, v), x)

    def horner(self, x: Value, coefficients: Sequence[float]) -> Value:
        """A polynomial of x, given from its constant upwards."""
        value: Value = self.const(coefficients[-1])
        for c in coefficients[-2::-1]:
            value = self.fma(value, x, self.const(c))
        return value

    def exp2(self, x: Value) -> Value:
        """2 to the x, within 1.7e-7 relative; 0, inf and NaN as they should be, but for results below 2**-126."""
        if target().has_scaling:
            return self.each(self._exp2_by_scaling, x) if not isinstance(x, list) else self._exp2_by_scaling(x)
        rounded, fraction = self._split(x, 128)  # 2**128 is the bits of inf
        return self.each(self._shift_exponent, self.horner(fraction, EXP2_ON_HALVES), rounded)

    def _exp2_by_scaling(self, x: Value) -> Value:
        all_lanes, nearest, floor = ir.Constant(I16, -1), ir.Constant(I32, 4), ir.Constant(I32, 9)

        def fraction(v: ir.Value) -> ir.Value:  # v - floor(v)
            return self.call("llvm.x86.avx512.mask.reduce.ps.512", VECTOR, v, floor, v, all_lanes, nearest)

        def scaled(value: ir.Value, v: ir.Value) -> ir.Value:  # value * 2**floor(v)
            return self.call("llvm.x86.avx512.mask.scalef.ps.512", VECTOR, value, v, value, all_lanes, nearest)

        return self.each(scaled, self.horner(self.each(fraction, x), EXP2_ON_0_1), x)

    def _split(self, x: Value, most: int) -> tuple[Value, Value]:
        """x, from -127 to `most`, as an integer, in the low bits of a float, and a fraction in [-1/2, 1/2].

        2**-127 is the bits of 0.
        """
        magic = self.const(1.5 * 2**23)  # adding it rounds to an integer
        x = self.minimum(self.maximum(x, self.const(-127.0)), self.const(float(most)))
        rounded = self.add(x, magic)
        return rounded, self.sub(x, self.sub(rounded, magic))

    def _shift_exponent(self, value: ir.Value, rounded: ir.Value) -> ir.Value:
        exponent = self.b.shl(self.b.bitcast(rounded, INTEGERS), self.int_const(23))
        return self.b.bitcast(self.b.add(self.b.bitcast(value, INTEGERS), exponent), VECTOR)

    def exp2_and_less_one(self, x: Value) -> tuple[Value, Value]:
        """2**x and 2**x - 1, which keeps its precision near x = 0."""
        rounded, fraction = self._split(x, 127)
        scale = self.each(self._shift_exponent, self.const(1), rounded)
        small = self.mul(fraction, self.horner(fraction, EXP2_ON_HALVES[1:]))  # 2**fraction - 1
        return self.fma(scale, small, scale), self.fma(scale, small, self.sub(scale, self.const(1)))

    def exp2_less_one(self, x: Value) -> Value:
        """2**x - 1."""
        return self.exp2_and_less_one(x)[1]

    def gain_slope(self, dt: Value, a: Value, decay: Value, gain: Value, inverse: Value) -> Value:
        """The slope of gain = (exp(dt * A) - 1) / A in A: (dt * decay - gain) / A, and a series where that cancels.

        `a` is A * log2(e), `inverse` is 1 / A.
        """
        exponent = self.mul(self.mul(dt, a), self.const(1 / LOG2E))
        near = self.mul(self.mul(dt, dt), self.horner(exponent, GAIN_SLOPE_NEAR_0))
        far = self.mul(self.sub(self.mul(dt, decay), gain), inverse)
        is_near = self.b.fcmp_ordered("<", self.absolute(exponent), self.const(0.25))
        return self.b.select(is_near, near, far)

    def softplus(self, x: Value) -> Value:
        """max(x, 0) + log1p(exp(-|x|)): no threshold, right everywhere."""
        small = self.exp2(self.mul(self.absolute(x), self.const(-LOG2E)))
        return self.fma(small, self.horner(small, LOG1P_OVER_X), self.maximum(x, self.const(0)))

    def sigmoid(self, x: Value) -> Value:
        """1 / (1 + exp(-x))."""
        power = self.minimum(self.mul(x, self.const(-LOG2E)), self.const(126))
        return self.reciprocal(self.add(self.const(1), self.exp2(power)))

    def reciprocal(self, x: Value) -> Value:
        """1 / x for x from 1 to 2**126."""
        if not target().has_scaling:
            return self.each(self.b.fdiv, self.const(1), x)

        def near(v: ir.Value) -> ir.Value:  # to 14 bits; a Newton step doubles them, in a third of a division's time
            return self.call("llvm.x86.avx512.rcp14.ps.512", VECTOR, v, v, ir.Constant(I16, -1))

        guess = self.each(near, x)
        error = self.fma(self.each(self.b.fneg, x), guess, self.const(1))
        return self.fma(guess, error, guess)

    def silu(self, x: Value) -> Value:
        """x * sigmoid(x)."""
        return self.mul(x, self.sigmoid(x))

    # across lanes

    def pick(self, x: ir.Value, y: ir.Value, lanes: Sequence[int]) -> ir.Value:
        """A vector of lanes of x, and of y from number LANES on."""
        return self.b.shuffle_vector(x, y, _integers(tuple(lanes)))

    def transpose(self, rows: Sequence[ir.Value]) -> list[ir.Value]:
        """LANES vectors as the rows of a square: its columns. Each stage swaps off-diagonal blocks of half the size."""
        rows, step = list(rows), LANES // 2
        while step:
            low = [i if not i & step else LANES + i - step for i in range(LANES)]
            high = [i + step if not i & step else LANES + i for i in range(LANES)]
            for i in range(LANES):
                if not i & step:
                    x, y = rows[i], rows[i + step]
                    rows[i], rows[i + step] = self.pick(x, y, low), self.pick(x, y, high)
            step //= 2
        return rows

    def sum_lanes(self, values: list[ir.Value]) -> ir.Value:
        """A vector whose lane i is the sum over all lanes of values[i]; these are a power of two, LANES at most.

        Each stage halves the values that a lane still mixes: blend, permute, add.
        """
        step = LANES // 2
        while step:
            if len(values) > step:
                keep = [i if not i & step else LANES + i for i in range(LANES)]
                cross = [i + step if not i & step else LANES + i - step for i in range(LANES)]
                pairs = zip(values[:step], values[step:], strict=True)
                values = [self.add(self.pick(x, y, keep), self.pick(x, y, cross)) for x, y in pairs]
            else:
                swap = [i ^ step for i in range(LANES)]
                values = [self.add(x, self.pick(x, x, swap)) for x in values]
            step //= 2
        return values[0]

    def total(self, values: list[ir.Value]) -> ir.Value:
        """The sum, by halves: short dependency chains, one fixed order."""
        while len(values) > 1:
            pairs = zip(values[::2], values[1::2], strict=False)
            values = [self.add(x, y) for x, y in pairs] + values[len(values) & ~1 :]
        return values[0]

    # tuples of vectors, which LLVM keeps in registers

    def items(self, array: ir.Value, count: int) -> list[ir.Value]:
        """The vectors of a tuple."""
        return [self.b.extract_value(array, i) for i in range(count)]

    def tuple(self, values: Sequence[ir.Value]) -> ir.Value:
        """A tuple of vectors."""
        array = ir.Constant(ir.ArrayType(VECTOR, len(values)), ir.Undefined)
        for index, value in enumerate(values):
            array = self.b.insert_value(array, value, index)
        return array


_SHORT = {"float": "f32", "i16": "i16"}
