"""`garrison doctor`: how a server would be served, what it allows, where each setting came from, and what is doubtful.

Rules of this file:
- It loads the server and makes the plan as `garrison run` does, with the same checks and messages, and starts nothing.
- Tables and JSON show one report; what is in it is found out in `checkup`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, cast

from ..errors import ConfigurationError
from ..policy.rates import Rate
from .checkup import Report, examined, findings, kept_by, listener, settings, versions
from .plan import make_plan
from .run import audit_of, load_server
from .style import bold, dim, emit_json, green, red, safe, table

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

    from .checkup import Listener, Setting
    from .protection import Protection

__all__ = ["doctor"]


def doctor(options: Namespace) -> int:
    """Print everything.

    Returns:
        0 when the server would start, 1 when it would not.
    """
    quiet, log = logging.NullHandler(), logging.getLogger("garrison")
    log.addHandler(quiet)  # what the checks would record is in the report
    try:
        report = _report(options)
    finally:
        log.removeHandler(quiet)
    if options.json:
        emit_json(report)
    else:
        _show(report)
    return 0 if report.starts else 1


def _report(options: Namespace) -> Report:
    report = Report(versions=versions())
    try:
        server = load_server(options)
        if server is None:
            raise ConfigurationError(f"{options.target} could not be loaded")
        report.server = {"name": server.info.name, "version": server.info.version}
        plan = make_plan(options, server.policy)
        server.audit = audit_of(options, server)
    except ConfigurationError as exc:
        report.refusal = str(exc)
        return report
    server.policy = plan.policy
    report.listener = listener(server, plan)
    if plan.network is not None:
        from .protection import protection

        report.protection = protection(server)
    report.audit = kept_by(server.audit)
    report.policy = settings(plan)
    report.relaxations = dict(plan.policy.relaxations)
    report.findings = findings(server, plan, token_shown=options.token is not None)
    report.refusal = examined(server, plan)
    report.starts = report.refusal is None
    return report


def _show(report: Report) -> None:
    if report.server is not None:
        print(bold(safe(f"{report.server['name']} {report.server['version']}"), sys.stdout))
    if report.listener is not None:
        for label, text in _facts(report.listener):
            print(f"{label:<13}{safe(text)}")
        print(f"{'records':<13}{safe(report.audit or 'none')}\n")
    if report.protection is not None:
        table("Protection", ("setting", "value"), _protected(report.protection))
        print()
    if report.policy:
        rows = [[each.setting, _value(each), each.source, _MARKS[each.compared]] for each in report.policy]
        table("Policy", ("setting", "value", "from", ""), rows)
        print()
    if report.relaxations:
        table("Relaxations", ("setting", "reason"), [list(pair) for pair in report.relaxations.items()])
        print()
    elif report.policy:
        print("No relaxations.\n")
    if report.findings:
        table("Findings", ("", "what"), [[each.level, each.text] for each in report.findings])
        print()
    print(dim(", ".join(f"{name} {version}" for name, version in report.versions.items()), sys.stdout))
    if report.starts:
        print(green("It would start.", sys.stdout))
    else:
        print(red("It would not start:", sys.stdout), safe(report.refusal or ""))


_MARKS = {"same": "", "different": "changed", "tighter": "tighter", "looser": "looser"}


def _facts(found: Listener) -> list[tuple[str, str]]:
    """The lines about the listener."""
    facts = [("serves", " and ".join(found.transports) + (f" at {found.address}" if found.address else ""))]
    if found.path is not None:
        facts.append(("path", found.path))
    facts.append(("messages", f"up to {found.max_message_size:,} bytes"))
    if found.websocket is not None:
        ws = found.websocket
        text = f"subprotocol {ws.subprotocol}, messages up to {ws.max_message_size:,} bytes, "
        facts.append(("WebSocket", text + ("compressed" if ws.compression else "not compressed")))
    if found.path is not None:
        facts.append(("TLS", "no" if found.tls is None else f"{' and '.join(found.tls.versions)}"))
    if found.tls is not None:
        facts.append(("certificate", f"{found.tls.certificate}, until {found.tls.expires or '?'}"))
        facts.append(("its files", f"looked at every {found.tls.reload:g} s"))
        asked = f"asked for, of {found.tls.client_ca}" if found.client_certificates else "not asked for"
        facts.append(("of clients", asked))
    facts.append(("asks for", found.authentication))
    if found.public_url is not None:
        facts.append(("public URL", found.public_url))
    return facts


def _protected(found: Protection) -> list[list[str]]:
    """The lines about what protects the server."""
    asked = {True: "yes", False: "no"}
    every = found.hierarchy.items()
    return [
        ["resource", found.resource],
        ["issuers", ", ".join(found.issuers) or "none"],
        ["verifiers", ", ".join(found.verifiers) or "none"],
        ["certificates", asked[found.certificates]],
        ["metadata", found.metadata_url or "none"],
        ["scopes", " ".join(found.scopes) or "none"],
        ["scopes_supported", " ".join(found.scopes_supported) or "none"],
        ["hierarchy", ", ".join(f"{scope}: {' '.join(within)}" for scope, within in every) or "none"],
        ["dpop", found.dpop + (", with nonces" if found.dpop_nonce else "")],
        ["recheck", f"{found.recheck:g} s"],
        ["revoked", "asked" if found.revoked else "not asked"],
        ["exchange", asked[found.exchange]],
        ["failures_per_minute", str(found.failures_per_minute)],
        ["without a rule", "the server's own" if found.default_rule else "offered to nobody"],
    ]


def _value(found: Setting) -> str:
    """A setting's value for people."""
    value = found.value
    if isinstance(value, Rate):
        return f"{value.per_second:g} a second, {value.burst:,} at once"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple | Mapping):
        return ", ".join(cast("Iterable[str]", value)) or "none"
    if isinstance(value, int | float):
        return f"{value:g} s" if found.setting.startswith("timeouts.") else f"{value:,}"
    return "none" if value is None else str(value) or "none"
