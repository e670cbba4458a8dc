"""One process of several that train together, as `experiments.launch` starts it.

python -m experiments.worker [ADDRESS COUNT NUMBER] -- [arguments of experiments.train]
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence

from experiments.launch import LOST, SIGNALS


def main(given: Sequence[str]) -> int:
    """Joins the others, trains, and waits for them; returns the exit status."""
    from experiments import train
    from experiments.process import distributed

    threading.Thread(target=_end_with_launcher, daemon=True).start()
    separator = list(given).index("--")
    place, arguments = given[:separator], given[separator + 1 :]
    try:
        status = train.main(arguments, join=lambda: distributed.join(*place))
        for (
            number
        ) in SIGNALS:  # the first process may still draw, and a process that ends counts as lost
            signal.signal(number, signal.SIG_IGN)
        if status != 2:  # after an error the others may wait for this process, and notice its end
            distributed.leave()
    except Exception as error:
        if not distributed.says_lost(error):
            raise
        reason = str(error).partition("\n")[0]
        print(f"error: another process is gone or can't be reached ({reason})", file=sys.stderr)
        return LOST
    return status


def _end_with_launcher() -> None:
    """The pipe closes when the launcher is gone, for whatever reason."""
    while os.read(0, 1024):
        pass
    os._exit(LOST)


if __name__ == "__main__":
    # Until a run begins, a signal ends the process, also while it imports or waits in C++.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    from experiments import train

    train.run_as_program(lambda: main(sys.argv[1:]))
