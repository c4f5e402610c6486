"""Random rounding: every operator's result moved by as much as two independent roundings of it differ.

Monte Carlo arithmetic (Parker, "Monte Carlo Arithmetic", 1997) perturbs what goes into an operator and what comes out
of it at the last digit, and reads from the spread of the results what rounding alone can do there, with all its
amplification. Here an element moves by one unit in the last place, up or down, with a chance of one in six: rounding to
nearest errs by 1/sqrt(12) of a unit in the mean square, two independent ones differ by 1/sqrt(6), and so does this.
"""

import random
from typing import Any

import torch
from torch import Tensor

from ...observe.tape import is_view
from ...observe.watch import PLAIN, OpCall
from ...values.figures import is_float, tensors_in

CHANCE = 1 / 6
RMS = CHANCE**0.5  # of the movement, in units in the last place
POOL = 1 << 20  # movements that are drawn once; each use begins at another place of them
BITS = {torch.float16: torch.int16, torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}
LARGEST = {torch.float16: 0x7BFF, torch.bfloat16: 0x7F7F, torch.float32: 0x7F7FFFFF, torch.float64: 0x7FEFFFFFFFFFFFFF}
SIGN = {torch.int16: 0x7FFF, torch.int32: 0x7FFFFFFF, torch.int64: 0x7FFFFFFFFFFFFFFF}


class Noise:
    """Moves what operators give; one for each run."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(POOL, generator=generator)
        self._steps = (drawn < CHANCE / 2).to(torch.int8) - (drawn > 1 - CHANCE / 2).to(torch.int8)
        self._there: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        self._random = random.Random(seed)

    def visit(self, call: OpCall) -> Any:
        """For a Watch. What is made of no floating numbers is exact: a mask, a position, a constant."""
        if not any(is_float(tensor) for tensor in tensors_in((call.args, call.kwargs))):
            return call.run()
        result = call.run()
        if isinstance(result, Tensor):
            return self._behind(call, result)
        if type(result) in (tuple, list):
            return type(result)(self._behind(call, item) if isinstance(item, Tensor) else item for item in result)
        return result

    def _behind(self, call: OpCall, result: Tensor) -> Tensor:
        if not self._moves(result):
            return result
        if call.writes:
            if any(result is given for given in tensors_in((call.args, call.kwargs))):
                with torch.no_grad():
                    result.copy_(self.moved(result))
            return result
        return result if is_view(call, result) else self.moved(result)

    @staticmethod
    def _moves(tensor: Tensor) -> bool:
        return tensor.dtype in BITS and type(tensor) in PLAIN and tensor.layout is torch.strided and not tensor.is_meta

    def moved(self, tensor: Tensor) -> Tensor:
        """The tensor with its elements moved. Zero, the largest number, NaN and Inf stay what they are."""
        if not self._moves(tensor) or not tensor.numel():
            return tensor
        kind = BITS[tensor.dtype]
        bits = tensor.detach().contiguous().view(kind)
        size = bits & SIGN[kind]
        steps = self._drawn(tensor.numel(), (tensor.device, kind)).reshape(tensor.shape)
        moves = (size > 0).logical_and_(size < LARGEST[tensor.dtype])
        return torch.where(moves, bits + steps, bits).view(tensor.dtype)

    def _drawn(self, count: int, where: tuple[torch.device, torch.dtype]) -> Tensor:
        if where not in self._there:
            self._there[where] = self._steps.to(where[0], where[1])
        steps = self._there[where]
        begin = self._random.randrange(POOL)
        times = (begin + count + POOL - 1) // POOL
        return (steps.repeat(times) if times > 1 else steps)[begin : begin + count]
