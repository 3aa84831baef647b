"""What Inductor makes of a graph: its kernels, and what they move."""

from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Launch:
    """One kernel of a program.

    Attributes:
        name: of a library's function, or of what is written by a generated kernel.
        ops: what of the traced graph it computes, by torch's names.
        moved_bytes: read and written, each buffer once, whatever the kernel's loops.
        is_library: whether it is a library's, such as a matrix product, and not generated.
        is_of_fixed_size: whether no buffer of it depends on the number of tokens, as weights do not.
    """

    name: str
    ops: frozenset[str]
    moved_bytes: int
    is_library: bool
    is_of_fixed_size: bool

    def times(self, scale: float) -> "Launch":
        """The same where buffers that may change their size are so many times as large."""
        return self if self.is_of_fixed_size else replace(self, moved_bytes=round(self.moved_bytes * scale))


@dataclass
class Program:
    """What Inductor made of a graph.

    Attributes:
        is_backward: whether it is a graph's backward.
        launches: its kernels, in order.
        code: the generated module, Triton kernels included.
        constants: tensors of the graph that the module takes by their names.
        num_runs: how often it would have been run.
        made_for_bytes: of its inputs, at the sizes that ``launches`` are counted at: those of its first run.
    """

    is_backward: bool
    launches: tuple[Launch, ...] = ()
    code: str = ""
    constants: dict[str, Any] = field(default_factory=dict)
    num_runs: int = 0
    made_for_bytes: int = 0

    def run_on(self, input_bytes: int) -> "Program":
        """Notes a run, and gives the program as it is at that run's sizes.

        Launches whose buffers all have one size from run to run stay; the others are in proportion to the inputs, which
        is exact where all inputs grow together.
        """
        self.num_runs += 1
        if self.num_runs == 1:
            self.made_for_bytes = input_bytes
        scale = input_bytes / max(1, self.made_for_bytes)
        return replace(self, launches=tuple(launch.times(scale) for launch in self.launches))
