"""Networks that are quick to trace and to compile, to train under their names."""

from flax import nnx

import ovsw_jax as ovsw


class Tiny(nnx.Module):
    """One binary convolution."""

    def __init__(self, classes, *, in_channels, rngs):
        self.stem = nnx.Conv(in_channels, 8, (3, 3), rngs=rngs)
        self.conv = ovsw.nn.BinaryConv(8, 8, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        return self.head(self.norm(self.conv(self.stem(x))).mean((1, 2)))


class OneStage(ovsw.models.SmallResNet):
    """Two binary convolutions between stem and head, with layers as those of the paper."""

    def __init__(self, classes, *, in_channels, rngs, **variant):
        super().__init__(classes, in_channels=in_channels, widths=(8,), rngs=rngs, **variant)


class WithDropout(OneStage):
    """Its state holds a random key, which is in no file of weights."""

    def __init__(self, classes, *, rngs, **arguments):
        super().__init__(classes, rngs=rngs, **arguments)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)

    def __call__(self, x):
        return self.dropout(super().__call__(x))
