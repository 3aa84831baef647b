"""Everything sharded over ranks by torch's FSDP2 (``fully_shard``): each parameter along its first dimension."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from galpaca.errors import GalpacaError
from galpaca.model.layer_unit import LayerUnit
from galpaca.model.parts import Part
from galpaca.training.parts import row_parts
from galpaca.training.strategies.many_ranks import TIMEOUT, ManyRanks, sharded_norm

_SHARDS, _COPIES = "shards", "copies"  # dimensions of the mesh of processes


class FullySharded2(ManyRanks, ModelParallelStrategy):
    """Parameters, gradients and optimizer state sharded over ranks, and in as many dtypes as they have.

    Each decoder layer is a unit; embeddings and the head stay in the root unit, which is needed right after
    forward and is kept. Optimizer, clipping and checkpoints see this rank's rows as plain parameters; that they belong
    to distributed tensors is known in this file only.

    Args:
        half_dtype: what float32 weights are cast to as they are gathered; None for no cast.
        reduce_dtype: in which gradients are reduced over ranks, where weights are cast.
        hybrid: shard within a node and copy between nodes.
        reshard_after_forward: drop a layer's gathered weights after forward, and gather them again for backward.
    """

    def __init__(
        self, half_dtype: torch.dtype | None, reduce_dtype: torch.dtype, *, hybrid: bool, reshard_after_forward: bool
    ) -> None:
        super().__init__(timeout=TIMEOUT)
        self._policy = MixedPrecisionPolicy(half_dtype, reduce_dtype if half_dtype else None)
        self._hybrid, self._reshard_after_forward = hybrid, reshard_after_forward
        self._rows: dict[str, tuple[DTensor, nn.Parameter]] = {}

    def setup_environment(self) -> None:
        self._setup_distributed()
        sizes = {_SHARDS: self.world_size}
        if self._hybrid:
            sizes = {_COPIES: self.num_nodes, _SHARDS: self.num_processes}
        # Lightning's own mesh has a dimension for tensors that are split within a layer.
        self._device_mesh = init_device_mesh(self.root_device.type, tuple(sizes.values()), mesh_dim_names=tuple(sizes))

    @property
    def distributed_sampler_kwargs(self) -> dict[str, Any]:
        return {"num_replicas": self.world_size, "rank": self.global_rank}

    @contextmanager
    def accumulating(self, last: bool) -> Iterator[None]:
        root = cast(FSDPModule, self.lightning_module.network)
        root.set_is_last_backward(last)
        root.set_requires_all_reduce(last)  # between copies: once a step, where there are any
        yield
        if last:
            self._hand_over_gradients()

    def materialize(self, model: nn.Module) -> None:
        dtypes = {parameter.dtype for parameter in model.parameters()}
        # Frozen weights are in the dtype that they compute in, or in codes; adapters are cast where they compute.
        policy = self._policy if len(dtypes) == 1 else MixedPrecisionPolicy()
        units = [module for module in model.modules() if isinstance(module, LayerUnit)]
        for unit in units:
            fully_shard(
                unit, mesh=self.device_mesh, mp_policy=policy, reshard_after_forward=self._reshard_after_forward
            )
        fully_shard(model, mesh=self.device_mesh, mp_policy=policy, reshard_after_forward=False)
        if any(parameter.is_meta for parameter in model.parameters()):
            # Tied ones are distributed tensors, which keeps them tied. Not ``to_empty``: it would empty buffers, too.
            model._apply(partial(_on_device, device=self.root_device))
        if len(dtypes) > 1:
            _check_dtypes(units[0])

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """This rank's rows of each parameter, under the name of the whole."""
        yield from ((name, rows) for name, (_, rows) in self._split_and_rows().items())

    def _split_and_rows(self) -> dict[str, tuple[DTensor, nn.Parameter]]:
        if not self._rows:
            self._rows = {name: (_split(one), _rows_of(one)) for name, one in self.lightning_module.named_parameters()}
        return self._rows

    def parts(self) -> list[Part]:
        return row_parts((name, split, rows) for name, (split, rows) in self._split_and_rows().items())

    def replica(self) -> tuple[int, int]:
        if not self._hybrid:
            return 0, 1
        copies = self.device_mesh[_COPIES]
        return copies.get_local_rank(), copies.size()

    def weights_replaced(self) -> None:
        # Units keep what they have gathered from one forward to the next where no backward came in between: the root,
        # and with reshard_after_forward=false all of them.
        for module in self.lightning_module.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def teardown(self) -> None:
        super().teardown()
        self._rows = {}  # else the shards would stay on the device

    def grad_norm(self) -> Tensor:
        shards = (rows for _, rows in self.named_parameters())
        return sharded_norm(shards, self.root_device, self._mesh_of_shards.get_group())

    @property
    def _mesh_of_shards(self) -> DeviceMesh:
        return self.device_mesh[_SHARDS]

    def _hand_over_gradients(self) -> None:
        """Gives the step's gradients, which backward leaves with the distributed tensors, to this rank's rows."""
        for split, rows in self._split_and_rows().values():
            if split.grad is not None:
                rows.grad, split.grad = cast(DTensor, split.grad).to_local(), None


def _on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Memory for a tensor that has none; any other as it is."""
    return torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device)


def _split(parameter: nn.Parameter) -> DTensor:
    assert isinstance(parameter, DTensor), "fully_shard splits each"
    return parameter


def _rows_of(parameter: nn.Parameter) -> nn.Parameter:
    """This rank's rows in the same memory; none of a parameter that has fewer rows than there are ranks."""
    return nn.Parameter(_split(parameter).to_local().detach(), parameter.requires_grad)


def _check_dtypes(unit: nn.Module) -> None:
    """Checks that a unit's parameters are gathered as they are.

    Raises:
        GalpacaError: this version of torch casts some of them.
    """
    before = {name: parameter.dtype for name, parameter in unit.named_parameters()}
    gathered = cast(FSDPModule, unit)
    gathered.unshard()
    changed = [name for name, parameter in unit.named_parameters() if parameter.dtype != before[name]]
    gathered.reshard()
    if changed:
        raise GalpacaError(
            f"torch {torch.__version__} casts frozen parameters as it gathers them: {', '.join(changed)}",
            where="strategy=fsdp2",
            fix="a torch version from pyproject.toml, or strategy=ddp",
        )
