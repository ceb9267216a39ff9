"""A courier and the files of a node, which talk to each other in one process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_pool.agent.files import NodeFiles
from gpu_pool.cluster.courier import Courier, SpanFiles
from gpu_pool.cluster.messages import Bring, Made, Pass, Piece, Wants
from gpu_pool.types import Done, Failed, RunSpan
from gpu_pool.wire import decode_command

RUN = RunSpan("task", 0, 5, {})


class Pair:
    """A daemon with the folders `work` and `cache`, and a node that sees neither."""

    def __init__(self, folder: Path, content_bytes: int = 1 << 30) -> None:
        self.work, self.cache, self.far = folder / "state" / "work", folder / "state" / "cache", folder / "far"
        for made in (self.work, self.cache):
            made.mkdir(parents=True, exist_ok=True)
        roots = {"work": self.work, "cache": self.cache}
        self.span_files = SpanFiles()
        self.courier = Courier(roots, lambda _: self.span_files)
        self.node = NodeFiles(self.far, {name: str(path) for name, path in roots.items()}, content_bytes)
        self.sent: list[Any] = []

    def deliver(self, files: SpanFiles, device: str = "cpu:0", run: RunSpan = RUN) -> dict[str, Any] | None:
        """Take a span there; return its payload as its worker gets it, None if it never does."""
        self.span_files = files
        self.courier.send(device, run)
        while self.courier.has_step:
            match message := self.courier.take_step():
                case Bring():
                    self.courier.on_wants(Wants(message.number, self.node.bring(message)))
                case Piece():
                    self.node.add(message)
                case Pass(line=line):
                    self.node.lay_out(device)
                    command = decode_command(line.encode())
                    assert isinstance(command, RunSpan)
                    payload: dict[str, Any] = self.node.localise(device, dict(command.payload))
                    return payload
            self.sent.append(message)
        return None

    def bring_back(
        self, device: str = "cpu:0", alter: Callable[[Made], Made] = lambda made: made, run: RunSpan = RUN
    ) -> Done | Failed:
        """Take what it made back, and return how the span ends here."""
        for message in self.node.collect(device):
            if isinstance(message, Made):
                self.courier.on_made(alter(message))
            elif message is not None:
                self.courier.on_piece(message)
        return self.courier.finish(device, Done(run.task, run.start, run.stop, 1.0))

    def count_sent(self) -> int:
        """Return how many pieces have gone to the node, and forget them."""
        count = sum(isinstance(message, Piece) for message in self.sent)
        self.sent.clear()
        return count


def rename(path: str) -> Callable[[Made], Made]:
    return lambda made: replace(made, path=path)
