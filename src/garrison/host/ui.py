"""`ui://` resources: HTML of a server, which is data here, and what an application sends with it if it shows it at all.

Rules of this file:
- Nothing of Garrison renders, runs or fetches what is in such a resource: it is read like any other.
- The policy lets it lay itself out, and do nothing: no scripts, no requests, no forms, no frames, no origin.

Spec: the MCP Apps extension; Content Security Policy Level 3; HTML, "sandboxing".
"""

from __future__ import annotations

__all__ = ["ui_headers"]


def ui_headers(*, scripts: bool = False) -> dict[str, str]:
    """HTTP headers for the HTML of a `ui://` resource, to be served from an origin that nothing else is served from.

    Args:
        scripts: let its inline scripts run, in an origin of their own and without any network.
    """
    script = "script-src 'unsafe-inline'; " if scripts else ""
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": f"sandbox{' allow-scripts' if scripts else ''}; default-src 'none'; {script}"
        "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Permissions-Policy": "camera=(), microphone=(), geolocation=(), clipboard-read=(), clipboard-write=()",
        "Cache-Control": "no-store",
    }
