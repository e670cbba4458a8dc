"""Which signs give +1 and -1 and nothing else, so that a layer may treat them as bits."""

import functools

from ovsw_jax.nn.filter_signs import standardized_sign
from ovsw_jax.nn.signs import (
    approx_sign,
    clipped_ste_sign,
    sign,
    ste_sign,
    swish_sign,
    tanh_sign,
)

_TWO_VALUED = (
    sign,
    ste_sign,
    clipped_ste_sign,
    approx_sign,
    swish_sign,
    tanh_sign,
    standardized_sign,
)


def is_two_valued(function: object) -> bool:
    """Whether a sign is known to give +1 and -1 alone.

    The library's own are, also behind `functools.partial`, and those that hand what they made of
    their input to one of them: `standardized_sign`, `LearnedThresholdSign`. A function of the
    user's is not known to be: it may give 0 at 0.

    >>> is_two_valued(functools.partial(tanh_sign, sharpness=2.0)), is_two_valued(lambda x: x)
    (True, False)
    """
    if isinstance(function, functools.partial):
        if function.func is standardized_sign:
            return is_two_valued(function.keywords.get("sign", ste_sign))
        return is_two_valued(function.func)
    # Of the class itself: a subclass may do something else.
    if vars(type(function)).get("hands_on_to_sign"):
        return is_two_valued(getattr(function, "sign", None))
    return any(function is known for known in _TWO_VALUED)
