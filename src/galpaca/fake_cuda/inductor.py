"""Inductor's programs for a card that is not there: made to the last line of Triton, recorded, and not run.

Instead of a program its graph is run, on the fake tensors at hand, so that what surrounds it goes on.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch._inductor.compile_fx as compile_fx
import torch._inductor.config as config
import torch._inductor.scheduler as scheduler
import torch.utils._triton as triton
from sympy import sympify
from torch import fx
from torch._inductor.graph import GraphLowering
from torch._inductor.ir import ExternKernel

from galpaca.fake_cuda import tally


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


@dataclass
class Recorded:
    """Programs in the order in which they were compiled."""

    programs: list[Program] = field(default_factory=list)


recorded = Recorded()


def record() -> None:
    """Has Inductor record its programs, for good."""
    scheduler.has_triton = lambda: True  # its code is written without it
    triton.triton_hash_with_backend = lambda: "none"  # names its version in the code
    # Both need values; a program from a cache would not be recorded.
    config.joint_graph_constant_folding = False
    config.fx_graph_cache = False
    config.compile_threads = 1
    lowering: Any = GraphLowering
    lowering._compile_to_module_lines = _not_compiled
    compile_fx.fx_codegen_and_compile = _recording(compile_fx.fx_codegen_and_compile)


def _recording(compile_graph: Callable[..., Any]) -> Callable[..., Any]:
    def compile_and_record(graph: fx.GraphModule, *inputs: Any, **options: Any) -> Any:
        runnable = copy.deepcopy(graph)  # Inductor's passes change the other
        program = Program(bool(options.get("is_backward")))
        recorded.programs.append(program)
        output = compile_graph(graph, *inputs, **options)
        output.current_callable = _stand_in(program, runnable)
        return output

    return compile_and_record


def _stand_in(program: Program, graph: fx.GraphModule) -> Callable[[list[Any]], Any]:
    def run(arguments: list[Any]) -> Any:
        values = [*arguments]
        arguments.clear()  # as programs do, so that inputs can be freed
        program.num_runs += 1
        with tally.of_program(program):
            return graph(*values)

    return run


def _not_compiled(lowering: GraphLowering, code: Any) -> Any:
    """In place of compiling the generated module: notes it."""
    program = recorded.programs[-1]
    program.code = code.value
    launches = (_launch(node, lowering) for node in lowering.scheduler.nodes)
    program.launches = tuple(launch for launch in launches if launch.moved_bytes)  # others only name a result
    return SimpleNamespace(__file__="", call=None)


def _launch(node: Any, lowering: GraphLowering) -> Launch:
    # Both at once: asked for one of them alone, it takes what a kernel keeps in registers for memory.
    accesses = node.get_read_write_buffer_accesses(include_reads=True, include_writes=True)
    is_library = isinstance(node, scheduler.ExternKernelSchedulerNode)
    return Launch(
        name=_library_name(node.node) if is_library else node.get_name(),
        ops=frozenset(str(origin.target) for part in node.get_nodes() for origin in part.node.origins),
        moved_bytes=int(sum(accesses.values())),
        is_library=is_library,
        is_of_fixed_size=not any(sympify(lowering.get_numel(name)).free_symbols for name in accesses),
    )


def _library_name(kernel: ExternKernel) -> str:
    return str(getattr(kernel, "op_overload", None) or getattr(kernel, "python_kernel_name", None))
