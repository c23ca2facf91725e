"""Threads that share the work of a step."""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from operator import index
from typing import Any, Callable

# As many as libkoala starts, koala_config's threads.
_MOST = 512


def counted(threads: int) -> int:
    """How many threads that number stands for: 0 is as many as there are processors for this process.

    Raises:
        TypeError: It is no whole number.
        ValueError: It is out of range.
    """
    try:
        threads = index(threads)
    except TypeError:
        raise TypeError(f"threads is {threads!r}, expected a whole number") from None
    if not 0 <= threads <= _MOST:
        raise ValueError(f"threads is {threads}, expected 0, for all processors, or a number from 1 to {_MOST}")
    if threads:
        return threads
    # Not everywhere a process can be kept from some processors.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads(Executor):
    """Runs calls on that many threads of the process that it is used in: those of a process are not in its fork."""

    def __init__(self, count: int) -> None:
        self._count, self._process = count, 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """See `Executor.submit`."""
        if self._process != os.getpid():
            self._pool, self._process = ThreadPoolExecutor(self._count, "koala"), os.getpid()
        return self._pool.submit(function, *args, **options)
