"""Counts for Prometheus: right, well formed, and with labels that no peer can multiply."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from garrison import events
from garrison.audit import Metrics
from garrison.events import Event
from tests.audit.scene import CALL, REFUSAL

pytestmark = [pytest.mark.app]


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    """Name and values of labels -> value, as Prometheus reads it."""
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(metrics.prometheus_text())
        for sample in family.samples
    }


def test_events_and_calls_are_counted() -> None:
    metrics = Metrics(tools=["read"])
    for duration in (0.0005, 0.002, 0.002, 70.0):
        metrics(CALL._replace(duration=duration))
    metrics(CALL._replace(name="call.begun", outcome=""))
    metrics(REFUSAL)
    found = samples(metrics)
    assert found["garrison_events_total", ("host.refused", "refused")] == 1
    assert found["garrison_events_total", ("call.ended", "allowed")] == 4
    labels = ("tools/call", "read", "ok")
    name = "garrison_call_duration_seconds"
    assert found[f"{name}_count", labels] == 4 and found[f"{name}_sum", labels] == pytest.approx(70.0045)
    assert found[f"{name}_bucket", (*labels, "0.001")] == 1
    assert found[f"{name}_bucket", (*labels, "0.0025")] == 3
    assert found[f"{name}_bucket", (*labels, "60.0")] == 3
    assert found[f"{name}_bucket", (*labels, "+Inf")] == 4


def test_peers_and_principals_are_no_labels_and_make_no_series() -> None:
    metrics = Metrics(tools=["read"])
    for number in range(500):
        metrics(
            CALL._replace(
                target=f"made-up-{number}", method=f"m{number}" if number % 2 else "tools/call", outcome=f"o{number}",
                decision=f"d{number}", principal=f"p{number}", peer=f"10.0.0.{number}", name="call.ended",
            )
        )  # fmt: skip
        metrics(Event(f"made.up.{number}"))
        metrics(CALL._replace(method="resources/read", target=f"file:///{number}"))
    text = metrics.prometheus_text()
    assert "made-up" not in text and "10.0.0" not in text and "p7" not in text and "file:" not in text
    assert len(samples(metrics)) < 300
    assert 'method="tools/call",tool="other",outcome="other"' in text
    assert 'method="resources/read",tool="",outcome="ok"' in text


def test_tools_of_the_moment() -> None:
    names = ["one"]
    metrics = Metrics(tools=lambda: names)
    metrics(CALL._replace(target="two"))
    names.append("two")
    metrics(CALL._replace(target="two"))
    text = metrics.prometheus_text()
    assert 'tool="other"' in text and 'tool="two"' in text


def test_a_label_is_escaped() -> None:
    metrics = Metrics(tools=['a"b\\c\nd'])
    metrics(CALL._replace(target='a"b\\c\nd'))
    assert any('a"b\\c\nd' in labels for _, labels in samples(metrics))


def test_without_events_the_text_is_well_formed() -> None:
    assert not samples(Metrics())


def test_it_is_a_listener() -> None:
    metrics = Metrics()
    stop = events.listen(metrics)
    try:
        events.record("host.refused", "text")
    finally:
        stop()
    events.record("host.refused", "text")
    assert samples(metrics)["garrison_events_total", ("host.refused", "refused")] == 1
