"""The audit log: who did what, what was decided and how it ended, in a file that shows when it was changed.

    with AuditLog("log/audit.log", key=AuditKey.read("audit.key")) as log:
        stop = events.listen(log.write)

Rules of this file:
- Importing this package loads none of it; a name's module is loaded when the name is first used (PEP 562).
- Every public name stands three times: in `__all__`, in `_NAMES` for the running program, and in the `TYPE_CHECKING`
  block for type checkers.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .chain import AuditKey
    from .contract import AuditFailed, Sink
    from .log import AuditLog
    from .metrics import Metrics
    from .otel import OpenTelemetrySink, opentelemetry_metrics
    from .record import Mark, Record
    from .sinks import FunctionSink, tee
    from .summary import Report, report
    from .syslog import SyslogSink
    from .verification import Problem, Verification, verify

__all__ = [
    "AuditFailed",
    "AuditKey",
    "AuditLog",
    "FunctionSink",
    "Mark",
    "Metrics",
    "OpenTelemetrySink",
    "Problem",
    "Record",
    "Report",
    "Sink",
    "SyslogSink",
    "Verification",
    "opentelemetry_metrics",
    "report",
    "tee",
    "verify",
]

_NAMES: dict[str, tuple[str, ...]] = {
    "chain": ("AuditKey",),
    "contract": ("AuditFailed", "Sink"),
    "log": ("AuditLog",),
    "metrics": ("Metrics",),
    "otel": ("OpenTelemetrySink", "opentelemetry_metrics"),
    "record": ("Mark", "Record"),
    "summary": ("Report", "report"),
    "sinks": ("FunctionSink", "tee"),
    "syslog": ("SyslogSink",),
    "verification": ("Problem", "Verification", "verify"),
}
"""The names that each module gives."""

_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names}

if not TYPE_CHECKING:  # a type checker would otherwise take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value: object = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
