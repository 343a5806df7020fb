"""The innermost loops of `effnet.kernels.depthwise_numba_programs`, written as LLVM's operations on vectors.

A cell is `LANES` channels of one pixel. Cells of an activation lie apart in memory, those of a buffer side by
side. What is summed up stays in registers as long as a loop runs, which the compiler does not do by itself.
Places and steps are counted in numbers, not in bytes; numbers of 16 bits are bfloat16.
"""

from __future__ import annotations

from typing import Any, no_type_check

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
_INDEX = ir.IntType(64)
_BITS = ir.VectorType(ir.IntType(32), LANES)
_HALF_BITS = ir.VectorType(ir.IntType(16), LANES)
_NOT_A_NUMBER = 0x7FC0
_int = types.int64


def _number(value: int) -> ir.Constant:
    return ir.Constant(_INDEX, value)


def _all(value: int) -> ir.Constant:
    return ir.Constant(_BITS, [value] * LANES)


class _Cells:
    """Cells in memory behind a pointer."""

    def __init__(self, builder: ir.IRBuilder, kind: Any, pointer: ir.Value) -> None:
        self.builder, self.pointer, self.number = builder, pointer, kind.dtype
        element = ir.DoubleType() if kind.dtype == types.float64 else ir.FloatType()
        self.vector = ir.VectorType(element, LANES)

    def _place(self, index: ir.Value, kind: ir.Type) -> ir.Value:
        return self.builder.bitcast(self.builder.gep(self.pointer, [index]), kind.as_pointer())

    def load(self, index: ir.Value) -> ir.Value:
        build = self.builder
        if self.number == types.uint16:
            bits = build.load(self._place(index, _HALF_BITS), align=2)
            return build.bitcast(build.shl(build.zext(bits, _BITS), _all(16)), self.vector)
        return build.load(self._place(index, self.vector), align=4)

    def store(self, value: ir.Value, index: ir.Value) -> None:
        build = self.builder
        if self.number == types.uint16:
            bits = build.trunc(self._rounded(value), _HALF_BITS)
            build.store(bits, self._place(index, _HALF_BITS), align=2)
        else:
            build.store(value, self._place(index, self.vector), align=4)

    def _rounded(self, value: ir.Value) -> ir.Value:
        """Return the upper halves of numbers, rounded to the nearest, in a tie to the even one."""
        build = self.builder
        bits = build.bitcast(value, _BITS)
        is_odd = build.and_(build.lshr(bits, _all(16)), _all(1))
        rounded = build.lshr(build.add(bits, build.add(is_odd, _all(0x7FFF))), _all(16))
        return build.select(build.fcmp_unordered("uno", value, value), _all(_NOT_A_NUMBER), rounded)


class _Sums:
    """Cells in registers."""

    def __init__(self, builder: ir.IRBuilder, vector: ir.Type, count: int) -> None:
        self.builder = builder
        self.places = [cgutils.alloca_once(builder, vector) for _ in range(count)]
        name = f"llvm.fmuladd.v{LANES}f{64 if vector.element == ir.DoubleType() else 32}"
        kind = ir.FunctionType(vector, [vector] * 3)
        self._multiply_add = cgutils.get_or_insert_function(builder.module, kind, name)

    def set(self, index: int, value: ir.Value) -> None:
        self.builder.store(value, self.places[index])

    def get(self, index: int) -> ir.Value:
        return self.builder.load(self.places[index])

    def add_product(self, index: int, first: ir.Value, second: ir.Value) -> None:
        self.set(index, self.builder.call(self._multiply_add, [first, second, self.get(index)]))


@intrinsic
@no_type_check
def copy_cells(typing_context, target, source, step, count):
    """Copy cells that lie ``step`` apart to the beginning of a buffer."""

    def generate(context, builder, signature, arguments):
        pointer, source_pointer, step, count = arguments
        written = _Cells(builder, signature.args[0], pointer)
        read = _Cells(builder, signature.args[1], source_pointer)
        with cgutils.for_range(builder, count) as pixel:
            value = read.load(builder.mul(pixel.index, step))
            written.store(value, builder.mul(pixel.index, _number(LANES)))
        return context.get_dummy_value()

    return types.void(target, source, _int, _int), generate


@intrinsic(prefer_literal=True)
@no_type_check
def convolve_cells(
    typing_context, out, out_step, count, x, x_row, x_step, taps, tap_row, tap_step, rows, columns, block
):
    """Write ``count`` times ``block`` sums of ``rows`` by ``columns`` cells of a buffer times taps.

    ``out_step`` lies between two results, ``x_step`` between the first cells that they see; ``x_row`` between
    two rows of the buffer, ``tap_row`` and ``tap_step`` between two taps below and beside one another.
    """
    if not isinstance(block, types.IntegerLiteral):
        return None
    together = block.literal_value

    def generate(context, builder, signature, arguments):
        kinds = signature.args
        _, out_step, count, _, x_row, x_step, _, tap_row, tap_step, rows, columns, _ = arguments
        written, read, weights = (_Cells(builder, kinds[k], arguments[k]) for k in (0, 3, 6))
        sums = _Sums(builder, read.vector, together)
        add, multiply = builder.add, builder.mul
        with cgutils.for_range(builder, count) as group:
            first = multiply(group.index, _number(together))
            for k in range(together):
                sums.set(k, ir.Constant(read.vector, [0.0] * LANES))
            with cgutils.for_range(builder, rows) as i, cgutils.for_range(builder, columns) as j:
                tap = weights.load(add(multiply(i.index, tap_row), multiply(j.index, tap_step)))
                cell = add(multiply(i.index, x_row), multiply(j.index, _number(LANES)))
                cell = add(cell, multiply(first, x_step))
                for k in range(together):
                    sums.add_product(k, tap, read.load(add(cell, multiply(x_step, _number(k)))))
            for k in range(together):
                written.store(sums.get(k), multiply(add(first, _number(k)), out_step))
        return context.get_dummy_value()

    numbers = (_int, _int)
    return types.void(out, *numbers, x, *numbers, taps, *numbers, _int, _int, block), generate


@intrinsic(prefer_literal=True)
@no_type_check
def add_products(
    typing_context,
    sums,
    gradient,
    gradient_row,
    gradient_step,
    x,
    x_row,
    rows,
    columns,
    size,
    tap_rows,
    stride,
):
    """Add to ``tap_rows`` by ``size`` sums the products of ``rows`` by ``columns`` gradients and inputs."""
    constants = (size, tap_rows, stride)
    if not all(isinstance(constant, types.IntegerLiteral) for constant in constants):
        return None
    taps, heights, every = (constant.literal_value for constant in constants)

    def generate(context, builder, signature, arguments):
        _, _, gradient_row, gradient_step, _, x_row, rows, columns, *_ = arguments
        totals, upstream, read = (_Cells(builder, signature.args[k], arguments[k]) for k in (0, 1, 4))
        registers = _Sums(builder, totals.vector, heights * taps)
        add, multiply = builder.add, builder.mul
        for k in range(heights * taps):
            registers.set(k, totals.load(_number(k * LANES)))
        with cgutils.for_range(builder, rows) as row, cgutils.for_range(builder, columns) as column:
            place = add(multiply(row.index, gradient_row), multiply(column.index, gradient_step))
            value = upstream.load(place)
            cell = multiply(row.index, multiply(x_row, _number(every)))
            cell = add(cell, multiply(column.index, _number(every * LANES)))
            for i in range(heights):
                for j in range(taps):
                    seen = read.load(add(add(cell, multiply(x_row, _number(i))), _number(j * LANES)))
                    registers.add_product(i * taps + j, value, seen)
        for k in range(heights * taps):
            totals.store(registers.get(k), _number(k * LANES))
        return context.get_dummy_value()

    return types.void(sums, gradient, _int, _int, x, _int, _int, _int, *constants), generate
