"""Work in a thread of its own, so that the kernel goes on answering and the work can be called off.

    job = Job(lambda report: model.generate(..., progress=report), on_progress, on_end)
    job.cancel()        # the next `report` raises Cancelled inside the work

Notebook: 00_quickstart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

Report = Callable[[int, int], None]  # (done, in all)
EVERY_S = 0.1  # between two reports: more would fill the line to the browser


class Cancelled(Exception):
    """Raised in the work by `report` after `cancel`."""


class Job:
    """One piece of work, running from the start on.

    Args:
        work: gets `report(done, in_all)`, to be called often; its result goes to `on_end`.
        on_progress: gets (done, in_all), ten times a second at most, and at the end of the count.
        on_end: gets (result, None), or (None, what was raised: Cancelled, StageLiteError, ...).
            Both are called in the job's thread.
    """

    def __init__(
        self,
        work: Callable[[Report], Any],
        on_progress: Report,
        on_end: Callable[[Any, BaseException | None], None],
    ):
        self._work, self._on_progress, self._on_end = work, on_progress, on_end
        self._called_off = threading.Event()
        self._told = 0.0
        # A daemon: a kernel that is shut down does not wait for it.
        self._thread = threading.Thread(target=self._run, name="stage-widgets-job", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """False once `on_end` has returned."""
        return self._thread.is_alive()

    @property
    def cancelled(self) -> bool:
        """Was `cancel` called?"""
        return self._called_off.is_set()

    def cancel(self) -> None:
        """Stop at the next report. Returns at once."""
        self._called_off.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; False if it has not come in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def report(self, done: int, in_all: int) -> None:
        """For the work: how far it is."""
        if self._called_off.is_set():
            raise Cancelled
        now = time.monotonic()
        if done >= in_all or now - self._told >= EVERY_S:
            self._told = now
            self._on_progress(done, in_all)

    def _run(self) -> None:
        try:
            result, error = self._work(self.report), None
        except BaseException as caught:  # the thread's end is told in every case
            result, error = None, caught
        if error is None and self._called_off.is_set():
            result, error = None, Cancelled()  # called off after the last report
        self._on_end(result, error)
