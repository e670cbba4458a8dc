"""PyTorch twins of `ovsw.models.CifarResNet20` and `CifarResNet18`, with OvSW as an optimizer hook.

A peer to be measured against, so it is written to be fast. Modules are named as in ours, which
`load` relies on; kernels are (out, in, height, width), images (batch, channels, height, width).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-5
MIN_GRADIENT_NORM, MIN_WEIGHT_NORM = 1e-6, 1e-3


class _InputSign(torch.autograd.Function):
    """Sign of each sample over its standard deviation, with the gradient max(2 - 2|x|, 0).

    The division doesn't change the sign, so that only the backward pass does it. It keeps x, which
    hardtanh in front keeps as well, and one number a sample.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        inverse = torch.rsqrt(_variance(x) + EPSILON)
        ctx.save_for_backward(x, inverse)
        return _sign(x)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        x, inverse = ctx.saved_tensors
        # One factor: max(2 - 2|x| inverse, 0) inverse.
        slope = x.abs().mul_(-2 * inverse.square()).add_(2 * inverse).clamp_(min=0)
        return slope.mul_(cotangents[0])


class _KernelSign(torch.autograd.Function):
    """alpha sign(W), with gradient alpha: the factor costs no pass over the activations."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor) -> Tensor:
        filters = latent.flatten(1)
        centered = filters - filters.mean(1, keepdim=True)
        deviation = torch.sqrt(filters.var(1) + EPSILON)
        alpha = (centered.abs_().mean(1) / deviation).view(-1, 1, 1, 1)
        ctx.save_for_backward(alpha)
        return _sign(latent).mul_(alpha)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Tensor:
        (alpha,) = ctx.saved_tensors
        return cotangents[0] * alpha


def _sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1; on a CPU in a sixteenth of the time of `torch.where`."""
    return torch.ge(x, 0, out=torch.empty_like(x)).mul_(2).sub_(1)


def _variance(x: Tensor) -> Tensor:
    """Unbiased variance of each sample, (batch, 1, 1, 1).

    From both sums: on a CPU `Tensor.var` takes thirty times as long.
    """
    sums = x.sum((1, 2, 3), keepdim=True)
    squares = _norms(x).square_()
    count = x[0].numel()
    return squares.sub_(sums.square_().div_(count)).div_(count - 1).clamp_(min=0)


class BinaryConv2d(nn.Conv2d):
    """Convolution of the signs of its input with those of its latent weights, times the factor."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, in, height, width) to (batch, out, height', width')."""
        signs, kernel = _InputSign.apply(x), _KernelSign.apply(self.weight)
        return functional.conv2d(signs, kernel, None, self.stride, self.padding)


def _conv(in_features: int, features: int, size: int, strides: int) -> BinaryConv2d:
    return BinaryConv2d(in_features, features, size, strides, (size - 1) // 2, bias=False)


class _BiRealBlock(nn.Module):
    def __init__(self, in_features: int, features: int, strides: int):
        super().__init__()
        self.conv1 = _conv(in_features, features, 3, strides)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = _conv(features, features, 3, 1)
        self.bn2 = nn.BatchNorm2d(features)
        self.strides, self.new_features = strides, features - in_features

    def forward(self, x: Tensor) -> Tensor:
        skip = x
        if self.new_features:
            before = self.new_features // 2
            pads = (0, 0, 0, 0, before, self.new_features - before)
            skip = functional.pad(functional.avg_pool2d(x, self.strides), pads)
        x = functional.hardtanh_(self.bn1(self.conv1(x)).add_(skip))
        return functional.hardtanh_(self.bn2(self.conv2(x)).add_(x))


class _BasicBlock(nn.Module):
    def __init__(self, in_features: int, features: int, strides: int):
        super().__init__()
        self.conv1 = _conv(in_features, features, 3, strides)
        self.bn1 = nn.BatchNorm2d(features)
        self.conv2 = _conv(features, features, 3, 1)
        self.bn2 = nn.BatchNorm2d(features)
        self.shortcut = nn.Sequential()
        if strides > 1 or in_features != features:
            reshape = _conv(in_features, features, 1, strides)
            self.shortcut = nn.Sequential(reshape, nn.BatchNorm2d(features))

    def forward(self, x: Tensor) -> Tensor:
        skip = self.shortcut(x)
        x = functional.hardtanh_(self.bn1(self.conv1(x)))
        return functional.hardtanh_(self.bn2(self.conv2(x)).add_(skip))


class CifarResNet20(nn.Module):
    """Twin of `ovsw.models.CifarResNet20`; with other widths and one block, of `SmallResNet`."""

    def __init__(
        self, num_classes: int = 10, *, widths: tuple[int, ...] = (16, 32, 64), blocks: int = 3
    ):
        """Makes the network, with PyTorch's initial weights."""
        super().__init__()
        features = widths[0]
        self.conv1 = nn.Conv2d(3, features, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(features)
        self.stages = len(widths)
        for number, width in enumerate(widths, start=1):
            layers = []
            for i in range(blocks):
                layers.append(_BiRealBlock(features, width, 2 if number > 1 and i == 0 else 1))
                features = width
            setattr(self, f"layer{number}", nn.Sequential(*layers))
        self.bn2 = nn.BatchNorm1d(features)
        self.linear = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, 3, height, width) to logits (batch, num_classes)."""
        x = functional.hardtanh_(self.bn1(self.conv1(x)))
        for number in range(1, self.stages + 1):
            x = getattr(self, f"layer{number}")(x)
        return self.linear(self.bn2(x.mean((2, 3))))


class CifarResNet18(nn.Module):
    """Twin of `ovsw.models.CifarResNet18`."""

    def __init__(self, num_classes: int = 10):
        """Makes the network, with PyTorch's initial weights."""
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        for number, width in enumerate((64, 128, 256, 512), start=1):
            first, strides = (64, 1) if number == 1 else (width // 2, 2)
            blocks = (_BasicBlock(first, width, strides), _BasicBlock(width, width, 1))
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.bn2 = nn.BatchNorm1d(512)
        self.fc = nn.Conv2d(512, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Images (batch, 3, height, width) to logits (batch, num_classes)."""
        x = self.bn1(self.conv1(x))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.bn2(x.mean((2, 3)))[:, :, None, None])[:, :, 0, 0]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": CifarResNet18,
    "resnet20": CifarResNet20,
    "small": partial(CifarResNet20, widths=(16, 32), blocks=1),
}


def sgd(model: nn.Module, *, weight_decay: float = 5e-4) -> torch.optim.SGD:
    """SGD as `ovsw.ovsw_sgd` chains it: parameters with fewer than two axes are not decayed."""
    parameters = list(model.parameters())
    return torch.optim.SGD(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1]},
        ],
        lr=0.1,
        momentum=0.9,
    )


class OvSW:
    """Both rules for the latent weights of a network, in front of every step of an optimizer.

    State is the literal one: S in float32, and the last sign.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        lam: float = 0.04,
        tau: float = 9e-4,
        momentum: float = 0.999,
        threshold: float = 1e-4,
    ):
        """Finds the latent weights of `model`."""
        self._lam, self._tau, self._momentum, self._threshold = lam, tau, momentum, threshold
        self._weights = [m.weight for m in model.modules() if isinstance(m, BinaryConv2d)]
        self._averages = [torch.zeros_like(w) for w in self._weights]
        self._positive = [w.detach() >= 0 for w in self._weights]

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Applies the rules before each step of `optimizer`."""
        optimizer.register_step_pre_hook(lambda *_: self._apply())

    @torch.no_grad()
    def _apply(self) -> None:
        for i, weight in enumerate(self._weights):
            gradient, average = weight.grad, self._averages[i]
            assert gradient is not None
            positive = weight >= 0
            flipped = positive != self._positive[i]
            self._positive[i] = positive
            average.mul_(self._momentum).add_(flipped, alpha=1 - self._momentum)
            g_norm = _norms(gradient).clamp_(min=MIN_GRADIENT_NORM)
            w_norm = _norms(weight).clamp_(min=MIN_WEIGHT_NORM)
            factor = (self._lam * w_norm).div_(g_norm).clamp_(min=1)
            gradient.mul_(factor)
            gradient.addcmul_(weight, average < self._threshold, value=self._tau)


def _norms(x: Tensor) -> Tensor:
    """Norm of each filter, in a shape that broadcasts."""
    return torch.linalg.vector_norm(x, dim=(1, 2, 3), keepdim=True)


def load(model: nn.Module, params: Mapping[str, Any]) -> None:
    """Takes over the parameters of our network of the same kind.

    Args:
      model: a twin.
      params: nested dict of arrays, as `nnx.to_pure_dict(nnx.state(ours, nnx.Param))` gives it.

    Raises:
      ValueError: if they are those of another network.
    """
    parameters = dict(model.named_parameters())
    state = {name: torch.from_numpy(array) for name, array in named(params).items()}
    wrong = [
        name
        for name in sorted(state.keys() | parameters.keys())
        if name not in state
        or name not in parameters
        or state[name].shape != parameters[name].shape
    ]
    if wrong:
        raise ValueError(
            f"these are not the parameters of this {type(model).__name__}: {', '.join(wrong)} are "
            "missing on one side, or have another shape."
        )
    model.load_state_dict(state, strict=False)


def named(params: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Parameters of ours (or gradients), by the names and with the axes of the twin's."""
    flat: dict[str, np.ndarray] = {}
    for key, value in params.items():
        if isinstance(value, Mapping):
            flat |= named(value, f"{prefix}{key}.")
        else:
            name = "bias" if key == "bias" else "weight"
            flat[prefix + name] = _torch_axes(np.asarray(value))
    return flat


def _torch_axes(x: np.ndarray) -> np.ndarray:
    """(height, width, in, out) to (out, in, height, width), (in, out) to (out, in)."""
    return np.ascontiguousarray(x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.T)
