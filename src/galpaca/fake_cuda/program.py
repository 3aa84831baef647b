"""What Inductor makes of a graph: its kernels, and what they move."""

from dataclasses import dataclass


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


@dataclass
class Program:
    """What Inductor made of a graph.

    Attributes:
        is_backward: whether it is a graph's backward.
        launches: its kernels, in order.
        code: the generated module, Triton kernels included.
        num_runs: how often it would have been run.
    """

    is_backward: bool
    launches: tuple[Launch, ...] = ()
    code: str = ""
    num_runs: int = 0
