"""What a stretch of a program on fake tensors moves in memory, operation by operation."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from galpaca.fake_cuda.program import Program
from galpaca.fake_cuda.schema_bytes import Moved, moved


@dataclass
class Tally:
    """What was run: single operations, and compiled programs as wholes."""

    ops: list[Moved] = field(default_factory=list)
    programs: list[Program] = field(default_factory=list)

    @property
    def moved_bytes(self) -> int:
        launches = (launch for program in self.programs for launch in program.launches)
        return sum(op.moved_bytes for op in self.ops) + sum(launch.moved_bytes for launch in launches)


class _Listening(TorchDispatchMode):
    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self.tally = tally
        self.is_inside_program = False

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Else the compiler would leave all that runs under the mode uncompiled."""
        return True

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = op(*args, **(kwargs or {}))
        # Of "prim" are questions, such as on which device a tensor is.
        if not (self.is_inside_program or op.is_view or op.namespace == "prim"):
            self.tally.ops.append(moved(op, args, kwargs or {}, output))
        return output


_listening: list[_Listening] = []


@contextmanager
def tallied() -> Iterator[Tally]:
    """Tallies what runs in the context, in backward too. What is compiled in it counts too: compile before."""
    mode = _Listening(Tally())
    _listening.append(mode)
    try:
        with mode:
            yield mode.tally
    finally:
        _listening.remove(mode)


@contextmanager
def of_program(program: Program) -> Iterator[None]:
    """Around a compiled program's graph: it counts as the program, not by its operations."""
    outer = [mode for mode in _listening if not mode.is_inside_program]
    for mode in outer:
        mode.tally.programs.append(program)
        mode.is_inside_program = True
    try:
        yield
    finally:
        for mode in outer:
            mode.is_inside_program = False
