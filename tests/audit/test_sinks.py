"""Where else records go: functions, syslog, OpenTelemetry, several at once. Everywhere redacted and on one line."""

from __future__ import annotations

import os
import re
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from garrison.audit import (
    AuditFailed,
    FunctionSink,
    OpenTelemetrySink,
    Record,
    SyslogSink,
    opentelemetry_metrics,
    tee,
)
from garrison.errors import ConfigurationError, InsecureConfigurationError
from tests.audit.scene import CALL, KEY, REFUSAL, checked, log_at

pytestmark = [pytest.mark.app]
EVIL = CALL._replace(target="a\n<34>1 forged \x1b[2J", text="key " + "ghp_" + "A1b2C3d4E5f6" * 3)
MESSAGE = re.compile(rb"<(\d+)>1 \d{4}-\d\d-\d\dT[\d:.]+Z [!-~]+ garrison \d+ - - (\{.*\})")


def test_a_function_gets_records() -> None:
    got: list[Record] = []
    sink = FunctionSink(got.append, key=KEY)
    sink.write(CALL)
    sink.write(EVIL)
    sink.sync()
    assert [record.seq for record in got] == [0, 1] and got[0].principal == "alice"
    assert "a.txt" not in repr(got) and "ghp_" not in repr(got)
    sink.close()
    with pytest.raises(AuditFailed):
        sink.write(CALL)


def test_what_a_function_raises_is_an_audit_failure() -> None:
    def broken(record: Record) -> None:
        raise ValueError("private")

    with pytest.raises(AuditFailed, match="ValueError") as info:
        FunctionSink(broken).write(CALL)
    assert "private" not in str(info.value)


def test_tee_writes_to_all_whatever_one_does(tmp_path: Path) -> None:
    got: list[Record] = []

    def broken(record: Record) -> None:
        raise OSError

    log = log_at(tmp_path / "audit.log")
    both = tee(broken, log, got.append)
    with pytest.raises(AuditFailed):
        both.write(CALL)
    both.sync()
    assert len(got) == 1
    both.close()
    assert checked(tmp_path / "audit.log", closed=True).records == 3
    tee(got.append).write(CALL)
    assert len(got) == 2


def test_syslog_over_a_local_socket(tmp_path: Path) -> None:
    place = os.fspath(tmp_path / "log")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(place)
        daemon.settimeout(5)
        sink = SyslogSink(place)
        sink.write(CALL)
        sink.write(REFUSAL)
        sink.write(EVIL)
        messages = [daemon.recv(65536) for _ in range(3)]
    found = [MESSAGE.fullmatch(message) for message in messages]
    assert [int(each[1]) for each in found if each] == [86, 84, 86]  # authpriv: informational and warning
    assert b"\n" not in messages[2] and b"\x1b" not in messages[2] and b"ghp_" not in messages[2]
    with pytest.raises(AuditFailed):
        sink.write(CALL)
    sink.close()


def test_a_syslog_that_is_not_there_is_an_error_and_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = os.fspath(tmp_path / "log")
    sink = SyslogSink(place)
    for _ in range(2):
        with pytest.raises(AuditFailed, match="syslog"):
            sink.write(CALL)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(place)
        with pytest.raises(AuditFailed, match="a moment ago"):
            sink.write(CALL)
        monkeypatch.setattr("garrison.audit.syslog._PAUSE", 0.0)
        sink.write(CALL)
        assert MESSAGE.fullmatch(daemon.recv(65536))
    sink.close()


def test_syslog_over_udp() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.settimeout(5)
        sink = SyslogSink(daemon.getsockname(), facility=13, app_name="garrison")
        sink.write(CALL)
        found = MESSAGE.fullmatch(daemon.recv(65536))
        assert found and found[1] == b"110"
        sink.close()


def test_syslog_over_tcp_is_framed_by_length_and_connects_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.audit.syslog._PAUSE", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as daemon:
        daemon.settimeout(5)
        sink = SyslogSink(daemon.getsockname()[:2], protocol="tcp")
        sink.write(CALL)
        sink.write(EVIL)
        first, _ = daemon.accept()
        data = first.recv(65536)
        while data:
            length, _, rest = data.partition(b" ")
            assert MESSAGE.fullmatch(rest[: int(length)])
            data = rest[int(length) :]
        first.close()
        for _ in range(3):  # the first may go where nobody reads any more
            sink.write(CALL)
        second, _ = daemon.accept()
        assert second.recv(65536)
        second.close()
        sink.close()


def test_records_leave_the_machine_through_tls_or_with_a_reason() -> None:
    with pytest.raises(InsecureConfigurationError, match="dangerously_plain"):
        SyslogSink(("192.0.2.1", 514))
    with pytest.raises(InsecureConfigurationError):
        SyslogSink(("syslog.example", 514), dangerously_plain="  ")
    careless = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    careless.check_hostname = False
    with pytest.raises(InsecureConfigurationError, match="verifies"):
        SyslogSink(("192.0.2.1", 6514), protocol="tcp", tls=careless)
    SyslogSink(("192.0.2.1", 6514), protocol="tcp", tls=ssl.create_default_context())
    SyslogSink(("192.0.2.1", 514), dangerously_plain="a network of its own")
    SyslogSink(("::1", 514))


@pytest.mark.parametrize(
    "settings",
    [{"protocol": "sctp"}, {"facility": 24}, {"app_name": "two words"}, {"tls": ssl.create_default_context()}],
)
def test_a_setting_of_syslog_that_is_not_of_its_form(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        SyslogSink(("127.0.0.1", 514), **settings)


def test_open_telemetry_logs() -> None:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

    exporter = InMemoryLogRecordExporter()
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    sink = OpenTelemetrySink(provider, key=KEY, fields={"read": ["count"]})
    sink.write(CALL)
    sink.write(EVIL._replace(decision="refused"))
    sink.sync()
    call, evil = (each.log_record for each in exporter.get_finished_logs())
    assert call.event_name == "call.ended" and call.timestamp == 1_790_000_000_250_000_000
    attributes = dict(call.attributes or {})
    assert attributes["garrison.principal"] == "alice" and attributes["garrison.fields.count"] == 2
    assert str(attributes["garrison.arguments"]).startswith("blake2b:")
    assert evil.severity_text is None and evil.severity_number is not None and evil.severity_number.value == 13
    assert "ghp_" not in str(evil.body)
    sink.close()
    provider.shutdown()
    with pytest.raises(AuditFailed):
        sink.write(CALL)


def test_open_telemetry_instruments() -> None:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    reader = InMemoryMetricReader()
    listener = opentelemetry_metrics(MeterProvider([reader], shutdown_on_exit=False), tools=["read"])
    listener(CALL)
    listener(CALL._replace(target="made up by a peer"))
    listener(REFUSAL)
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {each.name: each.data.data_points for each in data.resource_metrics[0].scope_metrics[0].metrics}
    assert sum(getattr(point, "value", 0) for point in metrics["garrison.events"]) == 3
    tools = {str((point.attributes or {})["tool"]) for point in metrics["garrison.call.duration"]}
    assert tools == {"read", "other"}
    assert "192.0.2.7" not in repr(metrics) and "alice" not in repr(metrics)


def test_without_open_telemetry_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("opentelemetry._logs", "opentelemetry.metrics"):
        monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ConfigurationError, match=r"garrison\[otel\]"):
        OpenTelemetrySink()
    with pytest.raises(ConfigurationError, match=r"garrison\[otel\]"):
        opentelemetry_metrics()


def test_an_event_of_every_member_passes_through_every_sink() -> None:
    event = CALL._replace(text="x", tenant="t", error="e", setting="s", duration=0.5)
    got: list[Record] = []
    tee(got.append).write(event)
    assert got[0].tenant == "t" and got[0].duration_ms == 500.0
