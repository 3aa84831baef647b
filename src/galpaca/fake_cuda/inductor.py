"""Inductor's programs for a card that is not there: made to the last line of Triton, recorded, and run without kernels.

What a program allocates and frees, it allocates and frees of fake tensors, so that what surrounds it goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch._inductor.compile_fx as compile_fx
import torch._inductor.config as config
import torch._inductor.scheduler as scheduler
import torch.utils._triton as triton
from torch import fx
from torch._inductor.graph import GraphLowering
from torch._inductor.ir import ExternKernel

from galpaca.fake_cuda import dry_run, tally
from galpaca.fake_cuda.program import Launch, Program


@dataclass
class Recorded:
    """Programs in the order in which they were compiled."""

    programs: list[Program] = field(default_factory=list)


recorded = Recorded()


def record() -> None:
    """Has Inductor record its programs, for good."""
    # Triton's code is written without Triton: these ask for it, and name its version in the code.
    modules: Any = (scheduler, triton)
    modules[0].has_triton = lambda: True
    modules[1].triton_hash_with_backend = lambda: "none"
    # Both need values; a program from a cache would not be recorded.
    config.joint_graph_constant_folding = False
    config.fx_graph_cache = False
    config.compile_threads = 1
    lowering: Any = GraphLowering
    lowering._compile_to_module_lines = _not_compiled
    lowering.constant_name = lambda self, name, device: name  # which would be moved to the card
    compile_fx.fx_codegen_and_compile = _recording(compile_fx.fx_codegen_and_compile)


def _recording(compile_graph: Callable[..., Any]) -> Callable[..., Any]:
    def compile_and_record(graph: fx.GraphModule, *inputs: Any, **options: Any) -> Any:
        program = Program(bool(options.get("is_backward")))
        recorded.programs.append(program)
        output = compile_graph(graph, *inputs, **options)
        output.current_callable = _stand_in(program)
        return output

    return compile_and_record


def _stand_in(program: Program) -> Callable[[list[Any]], Any]:
    call = dry_run.load(program.code, program.constants)

    def run(arguments: list[Any]) -> Any:
        input_bytes = sum(one.numel() * one.element_size() for one in arguments if isinstance(one, torch.Tensor))
        with tally.of_program(program.run_on(input_bytes)):
            return call(arguments)

    return run


def _not_compiled(lowering: GraphLowering, code: Any) -> Any:
    """In place of compiling the generated module: notes it."""
    program = recorded.programs[-1]
    program.code, program.constants = code.value, dict(lowering.constants)
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
        is_of_fixed_size=not any(getattr(lowering.get_numel(name), "free_symbols", ()) for name in accesses),
    )


def _library_name(kernel: ExternKernel) -> str:
    return str(getattr(kernel, "op_overload", None) or getattr(kernel, "python_kernel_name", None))
