"""Processes of torch.distributed, which stay for several tests; those that hang are ended, which is an error."""

from __future__ import annotations

import multiprocessing
import pathlib
import pickle
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

# A step takes milliseconds, and importing PyTorch seconds, if the machine is busy.
_TIMEOUT = 120


class Processes:
    """That many processes on the CPU, which talk by gloo. Use: `with Processes(2) as processes`."""

    def __init__(self, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        # Its file is where they find each other, so that no port has to be free.
        self._folder = tempfile.TemporaryDirectory()
        store = pathlib.Path(self._folder.name) / "store"
        self._pipes, self._processes = [], []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, count, str(store), theirs), daemon=True)
            process.start()
            self._pipes.append(ours)
            self._processes.append(process)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: Any) -> None:
        for process in self._processes:
            process.kill()
            process.join()
        self._folder.cleanup()

    def run(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        """Calls `function(rank, *arguments)` in each of them, and returns what each call returned."""
        for pipe in self._pipes:
            pipe.send_bytes(pickle.dumps((function, arguments)))
        found = []
        for rank, pipe in enumerate(self._pipes):
            if not pipe.poll(_TIMEOUT):
                self.__exit__()
                raise TimeoutError(f"rank {rank} did not come back")
            found.append(pickle.loads(pipe.recv_bytes()))
        for rank, (_, error) in enumerate(found):
            if error:
                raise AssertionError(f"on rank {rank}:\n{error}")
        return [result for result, _ in found]


def _serve(rank: int, count: int, store: str, pipe: Any) -> None:
    import torch

    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    while True:
        function, arguments = pickle.loads(pipe.recv_bytes())
        try:
            answer = function(rank, *arguments), None
        except Exception:
            answer = None, traceback.format_exc()
        pipe.send_bytes(pickle.dumps(answer))
