"""`ovsw.inspect` of members in training, on a few training images."""

from typing import Any

import jax
import jax.numpy as jnp

import ovsw_jax as ovsw
from experiments.config import Config
from experiments.data.augment import standardise
from experiments.data.batches import Feed
from experiments.training.networks import Network
from experiments.training.sharding import Layout
from experiments.training.trainable import modes

SAMPLES = 32  # images


class Inspector:
    """Measures of the binary layers of every member, on the same images at each epoch.

    They are computed in training mode by a program of their own, which draws from no random stream
    and changes no state: training is the same, bit for bit, with and without it.
    """

    def __init__(self, network: Network, config: Config, feed: Feed, layout: Layout):
        self._network, self._feed, self._layout = network, feed, layout
        groups = config.batch_norm_groups  # which divide every batch
        self._count = min(config.batch_size, -(-SAMPLES // groups) * groups)
        self._measure = layout.compiled(self._measure_one, "mma")
        self._images: Any = None

    def inspect(self, params: Any, statistics: Any) -> Any:
        """An `ovsw.inspect` with an axis of members, on the host.

        Raises:
          ValueError: if an image can't be read, or the network can't be inspected.
          TypeError: if it holds what can't be compiled.
        """
        if self._images is None:
            self._images = self._layout.shared(jnp.asarray(self._feed.few(self._count)))
        return self._layout.on_host(self._measure(params, statistics, self._images))

    def _measure_one(self, params: Any, statistics: Any, images: jax.Array) -> Any:
        images = standardise(self._layout.spread(images), self._feed.mean, self._feed.std)
        model = self._network.module(self._layout.gathered(params), statistics)
        return ovsw.inspect(model, images, **modes(model, training=True))
