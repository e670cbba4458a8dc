"""The steps that a config's trainings would run on a target, compiled for it."""

from functools import partial
from typing import Any

import jax

from experiments.accelerators import Reading, Target, compile_for, read
from experiments.config import Config
from experiments.config.choices import choose
from experiments.data.batches import feed_of
from experiments.data.sizes import Sizes, without_images
from experiments.estimate.records import Step
from experiments.optimizers import OPTIMIZERS, display_name
from experiments.sweep.members import Program, programs
from experiments.training.devices import devices_for, layout_for, members_in
from experiments.training.networks import networks_of
from experiments.training.sharding import Layout, MembersApart, processes_of
from experiments.training.step import Steps
from experiments.training.trained import Trained, load_trained


class Trainings:
    """All trainings of a config on a target's devices, as `experiments.train` would run them.

    Where the devices belong to several processes, they are as `experiments.launch` would run them:
    it divides each batch.

    Attributes:
      config: of the trainings.
      programs: each compiles one step.
    """

    def __init__(self, config: Config, sizes: Sizes, target: Target):
        """Compiles nothing, unless memory says how many trainings share a step.

        Raises:
          ValueError: if the config can't be run.
        """
        several = processes_of(target.devices) > 1
        self.config = config.at({"spread": "batch"}) if several else config
        self.programs = programs(self.config)
        for program in self.programs:
            choose("optimizer", program.optimizer, OPTIMIZERS)
        self._sizes, self._target = sizes, target
        layout_for(self.config, 1, target.devices)  # refuses a batch that can't be divided
        names = (program.config.network for program in self.programs)
        self._networks = networks_of(config, names, sizes.classes, sizes.image_shape)
        self._teacher = None if config.teacher is None else self._teacher_of_shapes()
        self._size = 1 if sizes.streamed else config.members_at_once or self._fitting()

    @property
    def data_devices(self) -> int:
        """Devices that a batch is divided over."""
        return 1 if self.config.spread == "members" else len(self._target.devices)

    def step(self, program: Program, batch_size: int | None = None) -> Step:
        """Compiles a program's step, with another batch if one is given."""
        config = program.config.at({"batch_size": batch_size or program.config.batch_size})
        count, members = len(program.members), min(self._size, len(program.members))
        batches = self._sizes.train_count // config.batch_size
        spread = config.spread == "batch"
        devices = self._target.devices if spread else devices_for(members, self._target.devices)
        return Step(
            name=self._name(program),
            trainings=count,
            at_once=members,
            devices=len(devices),
            batch_size=config.batch_size,
            steps=-(-count // members) * config.epochs * batches,
            reading=self._compiled(program, config, members),
        )

    def _compiled(self, program: Program, config: Config, members: int) -> Reading | None:
        """None if the compiler says that memory does not suffice."""
        steps = self._steps(program, config, layout_for(config, members, self._target.devices))
        function, arguments = steps.step_and_shapes(program.varying, members)
        try:
            return read(compile_for(self._target, function, *arguments))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return None
        finally:
            jax.clear_caches()  # programs share nothing, and memory would grow

    def _steps(self, program: Program, config: Config, layout: Layout) -> Steps:
        feed = feed_of(without_images(self._sizes), config)
        feed.resident = _shapes(feed.resident)
        network = self._networks[config.network]
        return Steps(network, program.optimizer, config, feed, layout=layout, teacher=self._teacher)

    def _fitting(self) -> int:
        """Trainings that share a step, by the rule of `members_that_fit`."""
        if self.config.spread == "batch":
            return 1
        program, devices = self.programs[0], self._target.devices
        steps = self._steps(program, program.config, MembersApart(devices[:1]))
        try:
            one = steps.bytes_a_member(program.varying, partial(compile_for, self._target))
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return len(devices)
        return len(devices) * members_in(self._target.memory, one)

    def _teacher_of_shapes(self) -> Trained:
        assert self.config.teacher is not None
        own = [*self._networks, self.config.teacher_network]
        teacher = load_trained(self.config.teacher, own=own)
        there = len(teacher.data.classes), teacher.data.image_shape
        if there != (self._sizes.classes, self._sizes.image_shape):
            raise ValueError(
                f"{self.config.teacher} was trained on {there[0]} classes and images of "
                f"{there[1]}, {self._sizes.name} has {self._sizes.classes} and "
                f"{self._sizes.image_shape}: train both on the same."
            )
        return teacher._replace(
            params=_shapes(teacher.params), statistics=_shapes(teacher.statistics)
        )

    def _name(self, program: Program) -> str:
        """Its optimizer, with the words that tell programs of a grid apart."""
        words = [
            str(getattr(program.config, name))
            for name in ("network", "flip_state", "init")
            if len({getattr(p.config, name) for p in self.programs}) > 1
        ]
        return " ".join([display_name(program.optimizer), *words])


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
