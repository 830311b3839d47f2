"""How a client gets tokens: finds the authorization server, is known there, asks the person, exchanges, renews.

Rules of this room:
- Every address that a peer named is fetched by `SafeFetch`, and only the browser is handed one to open.
- What an identifier is compared with is what was recorded before anything was sent: nothing is learnt from an answer.
- A check that fails ends the attempt with `AuthorizationFailed`, and is a security event. No check is skipped for a
  server that does not support it; MCP names those that may be missing.
"""
