"""Private names of other libraries that ``galpaca`` uses, each with the reason why no public one does.

A library may rename them in any release. What is found here before a release of ours is not found by a user after it.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import lightning as L
import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import nn
from torch._inductor.graph import GraphLowering
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.tensor import DTensor
from transformers import OPTForCausalLM


@dataclass(frozen=True)
class Private:
    """A private name.

    Attributes:
        reason: why it is used.
        holder: makes an object that has it, for a name that begins with a dot.
        used: what is done with its value; raises if that is not possible any more.
    """

    reason: str
    holder: Callable[[], Any] | None = None
    used: Callable[[Any], object] = lambda value: None


@cache
def fsdp_unit() -> Any:
    """A module under torch's FSDP, sharded within a node and copied between nodes as far as one process can be."""
    store = torch.distributed.HashStore()  # type: ignore[attr-defined]
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "FSDP is switching to use `NO_SHARD`")
            return FullyShardedDataParallel(
                nn.Linear(2, 2),
                device_id=torch.device("cpu"),
                device_mesh=init_device_mesh("cpu", (1, 1)),
                sharding_strategy=ShardingStrategy.HYBRID_SHARD,
                use_orig_params=True,
            )
    finally:
        torch.distributed.destroy_process_group()


@cache
def trainer() -> L.Trainer:
    return L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def fused_adamw() -> torch.optim.Optimizer:
    return torch.optim.AdamW([nn.Parameter(torch.zeros(1))], fused=True)


def flat_parameter() -> Any:
    return fsdp_unit()._handle.flat_param


def add() -> Any:
    return torch.ops.aten.add_.Tensor


_LOOP = "lightning.pytorch.loops.training_epoch_loop._TrainingEpochLoop"
_SIGNALS = "lightning.pytorch.trainer.connectors.signal_connector._SignalConnector"
_ROWS = "lightning.pytorch.strategies.model_parallel.ModelParallelStrategy"
_SHARDS = "torch has no public way to ask FSDP1 which values of which parameter a rank holds"
_KEPT = "names an operation whose result selective recomputation keeps; torch has no public names for these"
_INDUCTOR = "Inductor has no public way to schedule a program and not to build it, nor to ask what it would move"
_FAKE = "torch's fake tensors and its fake process group have no public names, nor what asks of either for values"
_SCHEMA = "which tensors an operation writes; torch has no public names for these"

LISTED = {
    # Lightning
    _LOOP: Private("Lightning has no public way to replace its loop over steps"),
    f"{_LOOP}._broadcast_sigterm_tensor": Private("waits for the GPU before every step; overridden to do nothing"),
    f"{_LOOP}.on_load_checkpoint": Private("overridden, because a step that was the last may be none any more"),
    _SIGNALS: Private("its handlers hang when several ranks get SIGTERM, and there is no option to leave them out"),
    f"{_SIGNALS}.register_signal_handlers": Private("overridden to register none"),
    f"{_SIGNALS}.received_sigterm": Private("the trainer asks for it, and the overridden method set it"),
    "._signal_connector": Private("where the trainer keeps its signal handlers", trainer),
    "lightning.pytorch.strategies.fsdp.FSDPStrategy._setup_model": Private(
        "overridden, because Lightning gives torch's FSDP the index of a device, and a CPU has none"
    ),
    f"{_ROWS}._device_mesh": Private("Lightning's own mesh has a dimension for layers that are split over ranks"),
    "._setup_distributed": Private("what its set-up does before it makes that mesh", ModelParallelStrategy, callable),
    # FSDP1
    "._handle": Private(_SHARDS, fsdp_unit),
    "._handle.flat_param": Private(_SHARDS, fsdp_unit),
    "._handle.reshard": Private("takes back weights that a rollback made stale", fsdp_unit, callable),
    "._handle.post_reshard": Private("the same", fsdp_unit, callable),
    "._params": Private(_SHARDS, flat_parameter, lambda parameters: parameters[0].shape),
    "._shapes": Private(_SHARDS, flat_parameter, lambda shapes: tuple(shapes[0])),
    "._shard_param_infos": Private(
        _SHARDS,
        flat_parameter,
        lambda shards: (shards[0].in_shard, shards[0].numel_in_shard, shards[0].intra_param_start_idx),
    ),
    "._inter_node_pg": Private(
        "tells which copy of the shards a rank holds", fsdp_unit, lambda group: (group.rank, group.size)
    ),
    "._fsdp_wrapped_module": Private("what FSDP puts into parameters' names, to take it out", fsdp_unit),
    # torch
    "torch.distributed.algorithms._checkpoint.checkpoint_wrapper.ActivationWrapper": Private(
        "a wrapper that keeps itself out of the names in state dicts, as FSDP expects of one"
    ),
    "._checkpoint_wrapped_module": Private(
        "the layer in it, and what it puts into parameters' names", lambda: checkpoint_wrapper(nn.Linear(1, 1))
    ),
    "._scale": Private(
        "the loss scale on its device: the public way waits for it", lambda: torch.amp.GradScaler(device="cpu")
    ),
    "._per_optimizer_states": Private(
        "tells the scaler of an overflow without its reading all gradients",
        lambda: torch.amp.GradScaler(device="cpu"),
        lambda states: states[0]["found_inf_per_device"].items(),
    ),
    "._step_supports_amp_scaling": Private("whether an optimizer's update unscales the gradients", fused_adamw),
    "._apply": Private("gives parameters memory and leaves buffers as they are", nn.Module),
    "._buffers": Private("what a module has computed from its configuration, to move it", nn.Module, dict.items),
    "._parameters": Private("a module's own parameters, tied ones too, to replace them", nn.Module, dict.items),
    "torch._softmax_backward_data": Private("the gradient of a softmax without computing the softmax again"),
    "torch._dynamo.maybe_mark_dynamic": Private("one compiled program for all sizes; the public one may raise"),
    "torch._dynamo.utils": Private(
        "counts compiled programs, for metrics", used=lambda module: module.counters["stats"]["unique_graphs"]
    ),
    "torch.ops.aten._scaled_dot_product_flash_attention.default": Private(_KEPT),
    "torch.ops.aten._scaled_dot_product_efficient_attention.default": Private(_KEPT),
    "torch.ops.aten._scaled_dot_product_cudnn_attention.default": Private(_KEPT),
    "torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default": Private(_KEPT),
    "torch.ops.torch_attn._varlen_attn.default": Private(_KEPT),
    # torch, for a process with a pretended card alone
    # Ranks and a step that are not there: galpaca.fake_cuda and galpaca.app.estimate.traced.
    "._teardown": Private("would move what was traced to the host", trainer, callable),
    "._local_tensor": Private("whose memory a distributed tensor has", lambda: DTensor),
    "torch._C._distributed_c10d.GradBucket": Private("DDP checks that a hook names it; public only for type checkers"),
    "torch._dynamo.config.optimize_ddp": Private("would cut each compiled layer at every bucket"),
    "torch._subclasses.fake_tensor.FakeTensor": Private(_FAKE),
    "torch._subclasses.fake_tensor.FakeTensorMode": Private(_FAKE, used=lambda kind: kind(allow_non_fake_inputs=True)),
    "torch._subclasses.fake_tensor.unset_fake_temporarily": Private(_FAKE, used=callable),
    "torch.distributed.fsdp._common_utils._FSDPDeviceHandle": Private(_FAKE, used=lambda kind: kind.from_device),
    "torch.distributed.fsdp._flat_param": Private(_FAKE),
    "torch.testing._internal.distributed.fake_pg.FakeStore": Private(_FAKE, used=lambda kind: kind()),
    "._data_ptr_allocated": Private(_FAKE, lambda: torch.distributed.fsdp._flat_param, callable),
    "._verify_param_shape_across_processes": Private(_FAKE, lambda: torch.nn.parallel.distributed, callable),
    "._sync_module_states": Private(_FAKE, lambda: torch.nn.parallel.distributed, callable),
    "._exchange_device": Private(_FAKE, lambda: torch.cuda, callable),
    "._maybe_exchange_device": Private(_FAKE, lambda: torch.cuda, callable),
    "torch.utils._python_dispatch.TorchDispatchMode": Private("hears every operation; documented, and nothing else is"),
    "torch.utils._pytree.tree_leaves": Private("the tensors among an operation's arguments"),
    "._schema.arguments": Private(_SCHEMA, add, lambda arguments: (arguments[0].alias_info, arguments[0].is_out)),
    "._schema.returns": Private(_SCHEMA, add, lambda returns: returns[0].alias_info),
    "._cdata": Private("tells storages without memory apart", lambda: torch.empty(1).untyped_storage()),
    "torch._dynamo.device_interface.CudaInterface": Private(
        "what the compiler asks of a card",
        used=lambda kind: (kind.Worker.get_device_properties, kind.is_bf16_supported),
    ),
    "torch._inductor.compile_fx": Private(_INDUCTOR),
    "torch._inductor.compile_fx.fx_codegen_and_compile": Private(_INDUCTOR, used=callable),
    "torch._inductor.config": Private(_INDUCTOR),
    "torch._inductor.config.compile_threads": Private(_INDUCTOR),
    "torch._inductor.config.fx_graph_cache": Private(_INDUCTOR),
    "torch._inductor.config.joint_graph_constant_folding": Private(_INDUCTOR),
    "torch._inductor.graph.GraphLowering": Private(_INDUCTOR, used=lambda kind: (kind.codegen, kind.get_numel)),
    "._compile_to_module_lines": Private(_INDUCTOR, lambda: GraphLowering, callable),
    "torch._inductor.ir.ExternKernel": Private(_INDUCTOR),
    "torch._inductor.scheduler": Private(
        _INDUCTOR, used=lambda module: (module.has_triton, module.BaseSchedulerNode.get_read_write_buffer_accesses)
    ),
    "torch._inductor.scheduler.ExternKernelSchedulerNode": Private(_INDUCTOR),
    "torch._inductor.list_options": Private("which options this version of Inductor has", used=lambda names: names()),
    "torch.utils._triton": Private(_INDUCTOR, used=lambda module: module.triton_hash_with_backend),
    # transformers
    "._from_config": Private(
        "makes a model in a dtype of our choice; AutoModel.from_config is the same for a class that is looked up",
        lambda: OPTForCausalLM,
    ),
}
