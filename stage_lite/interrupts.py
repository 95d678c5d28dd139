"""Ctrl-C that never falls between two halves of a step.

One process: the interrupt is immediate but while the optimizer moves the weights. Several: each
notes it and all stop after the same step, since none can go on without the others.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupts:
    """What Ctrl-C (SIGINT), and SIGTERM where the caller treats it alike, have asked for.

    Args:
        together: note it only, in `asked`; the processes agree on when to stop.
    """

    def __init__(self, together: bool):
        self.together = together
        self.asked = False
        self._holding = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle signals inside; outside of the main thread there are none to handle."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = [signal.SIGINT]
        if self.together or signal.getsignal(signal.SIGTERM) is signal.default_int_handler:
            wanted.append(signal.SIGTERM)
        before = {number: signal.signal(number, self._note) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside, an interrupt waits; it comes at the end."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self.asked and not self.together:
            raise KeyboardInterrupt

    def _note(self, *_: object) -> None:
        self.asked = True
        if not (self.together or self._holding):
            raise KeyboardInterrupt
