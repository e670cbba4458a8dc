"""Which batch fits: two more are compiled, and a line through what they need gives the limit.

Bytes grow with the batch as a + c b: weights, states and resident images are a, and activations c
for each image. What is compiled is a fact of the compiler's; the limit by the line is an estimate.
"""

from collections.abc import Callable, Mapping

_MORE = 2  # batches to compile, beside the one that was asked for

Needed = Mapping[int, int | None]  # bytes by batch size; None: refused for memory


def try_batches(
    first: int,
    needed: int | None,
    measure: Callable[[int], int | None],
    *,
    usable: int,
    multiple: int,
    most: int,
) -> dict[int, int | None]:
    """Measures batches on the way to the largest that fits.

    They are `first` times a power of two.

    Args:
      first: a batch size.
      needed: its bytes; None if it was refused for memory.
      measure: bytes of another batch, or None.
      usable: bytes that there are.
      multiple: every batch is a multiple of it.
      most: the largest batch that makes sense.

    Returns:
      Bytes by batch size, `first` among them.
    """
    found = {first: needed}
    for _ in range(_MORE):
        batch = _next(found, first, usable, multiple, most)
        if batch is None:
            break
        found[batch] = measure(batch)
    return found


def largest_fitting(found: Needed, usable: int) -> int | None:
    """The largest batch that was measured and fits."""
    return max((b for b, x in found.items() if _fits(x, usable)), default=None)


def limit_by_line(found: Needed, usable: int) -> int | None:
    """Where the line through the two largest measured batches reaches what is usable.

    Returns:
      A batch size; None if there is no such line, or if it does not rise.

    >>> limit_by_line({100: 1_300, 200: 1_600}, usable=10_000)
    3000
    """
    known = [(batch, needed) for batch, needed in sorted(found.items()) if needed is not None]
    if len(known) < 2:
        return None
    (low, at_low), (high, at_high) = known[-2:]
    if at_high <= at_low:
        return None
    return max(0, low + (usable - at_low) * (high - low) // (at_high - at_low))


def _next(found: Needed, first: int, usable: int, multiple: int, most: int) -> int | None:
    """The batch to measure next; None if none is between what fits and what does not."""
    fitting = largest_fitting(found, usable) or 0
    too_large = min((b for b, x in found.items() if not _fits(x, usable)), default=most + 1)
    candidates = [
        batch
        for batch in (int(first * 2.0**power) for power in range(-30, 31))
        if fitting < batch < too_large and batch % multiple == 0 and batch <= most
        if first % batch == 0 or batch % first == 0  # a halved one must be whole
    ]
    if not candidates:
        return None
    limit = limit_by_line(found, usable)
    guess = _guess(found, usable) if limit is None else limit
    below = [batch for batch in candidates if batch <= guess]
    if below:
        return below[-1]
    # The first from which a line can be drawn, or which may fit at all.
    return candidates[0] if limit is None or not fitting else None


def _guess(found: Needed, usable: int) -> int:
    """Without a line: bytes grow no faster than in proportion; what was refused is quartered."""
    known = [(batch, needed) for batch, needed in found.items() if needed]
    if not known:
        return min(found) // 4
    batch, needed = max(known)
    return batch * usable // needed


def _fits(needed: int | None, usable: int) -> bool:
    return needed is not None and needed <= usable
