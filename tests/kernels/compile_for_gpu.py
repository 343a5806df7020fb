"""Compile every program for a GPU, which needs none; test_programs.py starts this file.

Prints the names of what was compiled. Triton must not be interpreted in this process.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import JITFunction

from effnet.kernels import depthwise_programs, depthwise_triton, norm_programs, norm_sum_programs, norm_triton
from effnet.kernels.depthwise_plain import Geometry
from effnet.kernels.norm_plain import Moving, Normalization, Upstream

HOPPER = GPUTarget("cuda", 90, 32)
_POINTERS = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.float64: "*fp64"}


class Compiler:
    """Stands for a program: a launch compiles it for the launch's arguments."""

    def __init__(self, program: JITFunction) -> None:
        self.program = program

    def __getitem__(self, grid: tuple[int, ...]) -> Compiler:
        return self

    def __call__(self, *arguments: Any, num_warps: int = 4, **constants: Any) -> None:
        names = self.program.arg_names
        values = dict(zip(names, arguments, strict=False)) | constants
        assert set(values) == set(names), self.program
        kinds = {name: self._kind(name, values[name], constants) for name in names}
        fixed = {(index,): values[name] for index, name in enumerate(names) if kinds[name] == "constexpr"}
        source = ASTSource(fn=self.program, signature=kinds, constexprs=fixed)
        triton.compile(source, target=HOPPER, options={"num_warps": num_warps})
        print(self.program.__name__)

    @staticmethod
    def _kind(name: str, value: Any, constants: dict[str, Any]) -> str:
        if name in constants or value is None:
            return "constexpr"
        if isinstance(value, torch.Tensor):
            return _POINTERS[value.dtype]
        return "fp32" if isinstance(value, float) else "i32"


def intercept(programs: ModuleType) -> None:
    for name, value in vars(programs).items():
        if name.endswith("_program"):
            setattr(programs, name, Compiler(value))


def compile_norm(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 48, 3, 3, dtype=dtype).to(memory_format=torch.channels_last)
    found = norm_triton.statistics(x, 1e-3)
    mean, factor = found.mean, found.mean.expand(2, 48)
    norm_triton.move(mean, found.variance, Moving(mean, mean, 0.5), correction=1.5)
    norm = Normalization(mean=mean, inverse_deviation=found.inverse_deviation, weight=mean, bias=mean)
    norm_triton.pooled(x, norm)
    norm_triton.joined_sums(norm_triton.image_sums(x, norm, x), factor, factor)
    norm_triton.activate(x, norm, is_silu=False)
    norm_triton.activate(x, norm, is_silu=True, factor=factor, identity=x)
    upstream = Upstream(gradient=x, factor=factor, offset=factor)
    sums = norm_triton.gradient_sums(x, norm, Upstream(gradient=x, factor=factor), is_silu=True)
    norm_triton.input_gradient(x, norm, upstream, sums, is_silu=True)


def compile_depthwise(dtype: torch.dtype) -> None:
    x = torch.zeros(2, 48, 7, 7, dtype=dtype).to(memory_format=torch.channels_last)
    for size, stride in ((3, 1), (5, 1), (3, 2)):
        geometry = Geometry(kernel_size=size, stride=stride, top=1, bottom=2, left=1, right=2)
        weight = torch.zeros(48, 1, size, size)
        gradient = torch.zeros(2, 48, *geometry.out_size(7, 7), dtype=dtype)
        gradient = gradient.to(memory_format=torch.channels_last)
        depthwise_triton.convolve(x, weight, geometry)
        depthwise_triton.input_gradient(gradient, weight, geometry, height=7, width=7)


if __name__ == "__main__":
    intercept(norm_programs)
    intercept(norm_sum_programs)
    intercept(depthwise_programs)
    for name in sys.argv[1:]:
        compile_norm(getattr(torch, name))
        compile_depthwise(getattr(torch, name))
