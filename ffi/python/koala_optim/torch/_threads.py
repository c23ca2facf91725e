"""Threads that share the work of a step."""

from __future__ import annotations

import os
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any, Callable


class Threads(Executor):
    """Runs calls on that many threads of the process that it is used in: those of a process are not in its fork."""

    def __init__(self, count: int) -> None:
        self._count, self._process = count, 0

    def submit(self, function: Callable[..., Any], /, *args: Any, **options: Any) -> Future[Any]:
        """See `Executor.submit`."""
        if self._process != os.getpid():
            self._pool, self._process = ThreadPoolExecutor(self._count, "koala"), os.getpid()
        return self._pool.submit(function, *args, **options)
