"""The optimizers that are compared, a row for each.

A row names the links of its chain, which `experiments.training.make_optimizer` makes. A config's
numbers reach an optimizer only through its links. No jax is imported here, so that run folders can
be read and drawn without it.
"""

from dataclasses import dataclass

# The fields of a Config that only some links use; every optimizer uses the others. A rule of
# `ovsw_jax` that names its numbers as the Config does needs nothing beside its row.
LINKS: dict[str, tuple[str, ...]] = {
    "ags": ("lam",),
    "sad": ("tau",),
    "flips": (),  # only watches
    "sgd": ("learning_rate", "momentum", "weight_decay"),
    "lars": ("learning_rate", "momentum", "weight_decay", "eta"),
    "adam": ("adam_learning_rate",),
    "bop": ("adam_learning_rate", "bop_threshold", "bop_adaptivity"),
}


@dataclass(frozen=True)
class Look:
    """How an optimizer looks in every figure.

    Colours are Okabe and Ito's, which colour-blind readers tell apart; line style, marker and
    hatch are its own, so that figures survive a grey printer.
    """

    color: str
    linestyle: str | tuple[int, tuple[int, ...]]
    marker: str
    hatch: str


@dataclass(frozen=True)
class Optimizer:
    """One row.

    Attributes:
      name: for tables and figures.
      chain: its links, the first one first. One of them keeps the flip state, so that all
        optimizers report flips.
      look: in figures.
      of_real_weights: whether it also trains networks without latent weights.
    """

    name: str
    chain: tuple[str, ...]
    look: Look
    of_real_weights: bool = False

    @property
    def fields(self) -> set[str]:
        """The fields of a Config that it uses and some other optimizer doesn't."""
        return {field for link in self.chain for field in LINKS[link]}


OPTIMIZERS = {
    "sgd": Optimizer("SGD", ("flips", "sgd"), Look("#4d4d4d", "--", "s", ""), of_real_weights=True),
    "adam": Optimizer(
        "Adam",
        ("flips", "adam"),
        Look("#D55E00", (0, (5, 1, 1, 1, 1, 1)), "D", "xx"),
        of_real_weights=True,
    ),
    "lars": Optimizer("LARS", ("flips", "lars"), Look("#0072B2", (0, (8, 2)), "P", "++")),
    "bop": Optimizer("Bop", ("flips", "bop"), Look("#E69F00", (0, (3, 1, 1, 1)), "X", "--")),
    "ags": Optimizer("SGD + AGS", ("ags", "flips", "sgd"), Look("#56B4E9", "-.", "^", "..")),
    "sad": Optimizer("SGD + SAD", ("sad", "sgd"), Look("#CC79A7", ":", "v", "\\\\")),
    "ovsw": Optimizer("OvSW", ("ags", "sad", "sgd"), Look("#009E73", "-", "o", "//")),
}


def display_name(optimizer: str) -> str:
    """Name of an optimizer for tables and figures; an unknown key stands for itself."""
    return OPTIMIZERS[optimizer].name if optimizer in OPTIMIZERS else optimizer


def users(field: str) -> list[str]:
    """The optimizers that use a field; all of them if every one does."""
    some = any(field in fields for fields in LINKS.values())
    return [key for key, row in OPTIMIZERS.items() if not some or field in row.fields]
