"""Audit records and counts for OpenTelemetry: a log record for each event, and instruments. Needs `garrison[otel]`.

Rules of this file:
- What leaves is what an audit file has: bounded, redacted, with a digest in place of the arguments.
- Instruments have the bounded labels of `Metrics`, so that no peer makes new series.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from secrets import token_bytes
from typing import TYPE_CHECKING, Final, final

import msgspec

from ..errors import ConfigurationError
from .chain import AuditKey
from .contract import AuditFailed
from .metrics import BUCKETS, Labels
from .record import Recorder

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider

    from ..events import Event

__all__ = ["OpenTelemetrySink", "opentelemetry_metrics"]

_SEVERITIES: Final = {"refused": 13, "failed": 17}
"""Decision -> WARN or ERROR of the log data model; the rest is INFO."""
_INFO: Final = 9
_MISSING: Final = "OpenTelemetry is not installed: pip install 'garrison[otel]'"


@final
class OpenTelemetrySink:
    """Emits a log record for each event, whose name is its `event_name` and whose attributes are the record's members.

    Args:
        provider: of loggers; the process's own when not given.
        key, fields: as for `AuditLog`.

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """

    __slots__ = ("_closed", "_emit", "_lock", "_provider", "_recorder", "_seq", "_severity")

    def __init__(
        self,
        provider: LoggerProvider | None = None,
        *,
        key: AuditKey | None = None,
        fields: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        try:
            from opentelemetry._logs import SeverityNumber, get_logger_provider
        except ImportError:
            raise ConfigurationError(_MISSING) from None
        self._provider = get_logger_provider() if provider is None else provider
        self._emit = self._provider.get_logger("garrison.audit").emit
        self._severity = SeverityNumber
        self._recorder = Recorder(token_bytes(32) if key is None else key.for_arguments(), fields)
        self._lock = threading.Lock()
        self._seq = 0
        self._closed = False

    def write(self, event: Event) -> None:
        """Emit an event. Its way from the provider's processors on is theirs.

        Raises:
            AuditFailed: it could not be emitted.
        """
        with self._lock:
            if self._closed:
                raise AuditFailed("the OpenTelemetry sink is closed")
            record = self._recorder.record(event, self._seq)
            attributes: dict[str, str | int | float | bool] = {}
            for name, value in msgspec.to_builtins(record).items():
                if name == "fields":
                    attributes |= {
                        f"garrison.fields.{field}": each for field, each in value.items() if each is not None
                    }
                elif name not in ("event", "text", "time"):
                    attributes[f"garrison.{name}"] = value
            try:
                self._emit(
                    timestamp=int(event.time * 1e6) * 1000 or None,
                    severity_number=self._severity(_SEVERITIES.get(record.decision, _INFO)),
                    body=record.text or None,
                    attributes=attributes,
                    event_name=record.event,
                )
            except Exception as exc:  # processors and exporters are anybody's code
                raise AuditFailed(f"OpenTelemetry: {type(exc).__name__}") from exc
            self._seq += 1

    def sync(self) -> None:
        """Have the provider export what it holds, where it can.

        Raises:
            AuditFailed: it says that it could not.
        """
        flush: Callable[[], object] | None = getattr(self._provider, "force_flush", None)
        if flush is not None and flush() is False:
            raise AuditFailed("OpenTelemetry: not everything was exported")

    def close(self) -> None:
        """Emit no more. The provider belongs to the application, which ends it."""
        self._closed = True


def opentelemetry_metrics(
    provider: MeterProvider | None = None, *, tools: Collection[str] | Callable[[], Collection[str]] = ()
) -> Callable[[Event], None]:
    """A listener that counts events and measures calls with OpenTelemetry's instruments.

    Args:
        provider: of meters; the process's own when not given.
        tools: names that may be labels, as for `Metrics`.

    Returns:
        For `events.listen`. Instruments: `garrison.events` (counter) and `garrison.call.duration` (histogram, seconds).

    Raises:
        ConfigurationError: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.metrics import get_meter_provider
    except ImportError:
        raise ConfigurationError(_MISSING) from None
    meter = (get_meter_provider() if provider is None else provider).get_meter("garrison")
    events = meter.create_counter("garrison.events", unit="{event}", description="Security events.")
    durations = meter.create_histogram(
        "garrison.call.duration",
        unit="s",
        description="Durations of calls.",
        explicit_bucket_boundaries_advisory=BUCKETS,
    )
    labels = Labels(tools)

    def listener(event: Event) -> None:
        name, decision = labels.of_event(event)
        events.add(1, {"event": name, "decision": decision})
        if event.name == "call.ended":
            method, tool, outcome = labels.of_call(event)
            durations.record(event.duration, {"method": method, "tool": tool, "outcome": outcome})

    return listener
