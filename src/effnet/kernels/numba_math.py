"""Functions that Numba's programs share, of which LLVM makes vector code, as it does of no ``exp``."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload

_F = np.float32
_LOG2_E = _F(math.log2(math.e))
_LN_2_HIGH = _F(355 / 512)
"""Few bits, so that its product with a small whole number is exact."""
_LN_2_LOW = _F(math.log(2) - 355 / 512)
_ROUND = _F(1.5 * 2**23)
"""Added to a number, its last bits are that number rounded."""
_LARGEST = _F(87.0)
# 1 + r + r**2 * p(r) for the exponential on |r| <= ln(2) / 2 with the least largest relative error, 3.6e-9:
# least squares whose weights are raised where the error is large (Lawson).
_P0, _P1, _P2, _P3, _P4 = map(
    _F, (0.4999999403953552, 0.1666652113199234, 0.04166838899254799, 0.00836874544620514, 0.0013814540579915)
)
_1 = _F(1)


@intrinsic
@no_type_check
def _bits(typing_context, value):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.int32(types.float32), generate


@intrinsic
@no_type_check
def _from_bits(typing_context, value):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@njit(inline="always")
@no_type_check
def _exp32(x):
    """Return the exponential of a number between -87 and 87."""
    shifted = x * _LOG2_E + _ROUND
    whole = shifted - _ROUND
    r = (x - whole * _LN_2_HIGH) - whole * _LN_2_LOW
    p = (((_P4 * r + _P3) * r + _P2) * r + _P1) * r + _P0
    p = (p * r) * r + r + _1
    return _from_bits(_bits(p) + (_bits(shifted) << np.int32(23)))


@no_type_check
def sigmoid(x):
    """Return the sigmoid of a number, in single precision within 3 units of the last place."""


@overload(sigmoid, inline="always")
@no_type_check
def _sigmoid(x):
    if x == types.float32:
        return _sigmoid32
    return _sigmoid64


@no_type_check
def _sigmoid32(x):
    return _1 / (_1 + _exp32(min(max(-x, -_LARGEST), _LARGEST)))


@no_type_check
def _sigmoid64(x):
    return 1.0 / (1.0 + math.exp(-x))
