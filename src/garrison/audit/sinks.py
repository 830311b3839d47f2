"""Sinks that are made of others: several at once, and a function of the application's own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from secrets import token_bytes
from typing import TYPE_CHECKING, final

from .chain import AuditKey
from .contract import AuditFailed, Sink
from .record import Record, Recorder

if TYPE_CHECKING:
    from ..events import Event

__all__ = ["FunctionSink", "Tee", "tee"]


@final
class FunctionSink:
    """Gives each record to a function: bounded, redacted, with a digest in place of the arguments.

    Args:
        function: is called with one record at a time, numbered from 0. What it raises is an `AuditFailed`.
        key: of the digests; with None, they can be compared within one run.
        fields: tool -> names of arguments whose values are given as they are.

    Raises:
        ConfigurationError: a listed name is one that credentials have.
    """

    __slots__ = ("_closed", "_function", "_lock", "_recorder", "_seq")

    def __init__(
        self,
        function: Callable[[Record], object],
        *,
        key: AuditKey | None = None,
        fields: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self._function = function
        self._recorder = Recorder(token_bytes(32) if key is None else key.for_arguments(), fields)
        self._lock = threading.Lock()
        self._seq = 0
        self._closed = False

    def write(self, event: Event) -> None:
        """Call the function.

        Raises:
            AuditFailed: it failed.
        """
        with self._lock:
            if self._closed:
                raise AuditFailed("the sink is closed")
            record = self._recorder.record(event, self._seq)
            try:
                self._function(record)
            except Exception as exc:  # whatever the application's function raises, the event is not on record
                raise AuditFailed(f"the sink's function failed: {type(exc).__name__}") from exc
            self._seq += 1

    def sync(self) -> None:
        """Nothing: what the function has, it has."""

    def close(self) -> None:
        """Call it no more."""
        self._closed = True


@final
class Tee:
    """Writes to several sinks, each of them whatever the others do."""

    __slots__ = ("_sinks",)

    def __init__(self, sinks: tuple[Sink, ...]) -> None:
        self._sinks = sinks

    def write(self, event: Event) -> None:
        """Write to all.

        Raises:
            AuditFailed: one of them failed.
        """
        self._each(lambda sink: sink.write(event))

    def sync(self) -> None:
        """Make all durable.

        Raises:
            AuditFailed: one of them failed.
        """
        self._each(lambda sink: sink.sync())

    def close(self) -> None:
        """End all.

        Raises:
            AuditFailed: one of them failed; all are ended.
        """
        self._each(lambda sink: sink.close())

    def _each(self, act: Callable[[Sink], None]) -> None:
        failed: AuditFailed | None = None
        for sink in self._sinks:
            try:
                act(sink)
            except AuditFailed as exc:
                failed = failed or exc
        if failed is not None:
            raise failed


def tee(*sinks: Sink | Callable[[Record], object]) -> Tee:
    """One sink that writes to several.

    Args:
        sinks: sinks, or functions, each of which becomes a `FunctionSink`.
    """
    return Tee(tuple(FunctionSink(each) if callable(each) else each for each in sinks))
