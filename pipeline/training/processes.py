"""The processes of one training run, as torchrun and accelerate start them. Needs the `torch` extra."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pipeline.training.backbone import required

torch: Any = required("torch")


@dataclass(frozen=True)
class Processes:
    """This process's place among those of the run; one process alone needs no group."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @classmethod
    @contextmanager
    def joined(cls, device: str) -> Iterator[Processes]:
        """Join the group that RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT describe, and leave it.

        NCCL on `cuda`, gloo on `cpu`. Without WORLD_SIZE, or with 1, there is nothing to join.
        """
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            yield cls()
            return
        torch.distributed.init_process_group("nccl" if device == "cuda" else "gloo")
        try:
            yield cls(int(os.environ["RANK"]), count, int(os.environ.get("LOCAL_RANK", "0")))
        finally:
            torch.distributed.destroy_process_group()

    @property
    def is_first(self) -> bool:
        """Whether this one writes files and shows progress."""
        return self.rank == 0

    def device(self, kind: str) -> Any:
        """The CPU, or this process's GPU.

        Raises:
            ValueError: no such device.
        """
        if kind == "cuda":
            if self.local_rank >= torch.cuda.device_count():
                raise ValueError(
                    f"device cuda: process {self.local_rank} finds {torch.cuda.device_count()} GPUs; use cpu"
                )
            torch.cuda.set_device(self.local_rank)
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")

    def wrapped(self, module: Any) -> Any:
        """The module with its gradients averaged over all processes."""
        if self.count == 1:
            return module
        module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(module) if _on_gpu(module) else module
        return torch.nn.parallel.DistributedDataParallel(module)

    def unwrapped(self, module: Any) -> Any:
        """What `wrapped` was given."""
        return module if self.count == 1 else module.module

    def mean(self, value: Any) -> float:
        """Of a scalar tensor over all processes."""
        if self.count > 1:
            value = value.clone()
            torch.distributed.all_reduce(value)
        return float(value.item()) / self.count


def _on_gpu(module: Any) -> bool:
    return bool(next(iter(module.parameters())).is_cuda)
