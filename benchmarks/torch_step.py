"""A whole training step in PyTorch, as a worker of `benchmarks.training_step`."""

import math
import time
from typing import Any

import torch
from torch.nn import functional

from benchmarks import measuring, torch_twin, worker


class Training:
    """A twin in training; steps and `info` as those of `jax_step.Training`.

    On a GPU the network is compiled (`torch.compile`). On a CPU that took a minute and gained
    nothing that showed (ours, ResNet20, 2 cores), so there it runs as it is.
    """

    def __init__(
        self, network: str, batch_size: int, *, optimizer: str = "ovsw", dtype: str = "float32"
    ):
        """Makes the first step.

        Args:
          network: key of `torch_twin.NETWORKS`.
          batch_size: images in a step, the same ones in every step.
          optimizer: "sgd", or "ovsw" for SGD with the rules in front.
          dtype: "float32", or "bfloat16" for autocast.
        """
        torch.set_num_threads(measuring.cores())
        torch.manual_seed(0)
        self._cuda = torch.cuda.is_available()
        device = "cuda" if self._cuda else "cpu"
        model = torch_twin.NETWORKS[network]().to(device, memory_format=torch.channels_last)
        self._optimizer = torch_twin.sgd(model)
        if optimizer == "ovsw":
            torch_twin.OvSW(model).attach(self._optimizer)
        self._model = torch.compile(model) if self._cuda else model
        images = torch.randn(batch_size, 3, 32, 32, device=device)
        self._images = images.contiguous(memory_format=torch.channels_last)
        self._labels = torch.randint(10, (batch_size,), device=device)
        self._autocast = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
        started = time.perf_counter()
        self.step()
        self.wait()
        self.info: dict[str, Any] = {"first_step_seconds": time.perf_counter() - started}
        if not self._cuda:  # a compiled network does not say
            self.info["kept_bytes"] = self._kept_bytes()

    def step(self) -> None:
        """Starts one step."""
        self._optimizer.zero_grad(set_to_none=True)
        self._loss().backward()
        self._optimizer.step()

    def wait(self) -> None:
        """Returns when all steps are done."""
        if self._cuda:
            torch.cuda.synchronize()

    def _loss(self) -> torch.Tensor:
        with self._autocast:
            return functional.cross_entropy(self._model(self._images), self._labels)

    def _kept_bytes(self) -> int:
        """Bytes that the backward pass takes from the forward pass, arguments left out."""
        kept: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = math.prod(tensor.shape) * tensor.element_size()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = self._loss()
        del loss
        arguments = [self._images, self._labels, *self._model.parameters()]
        for tensor in arguments:
            kept.pop(tensor.untyped_storage().data_ptr(), None)
        return sum(kept.values())


if __name__ == "__main__":
    worker.serve(Training)
