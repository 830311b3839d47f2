"""An authorization server for development and tests (OAuth 2.1), in small parts.

`http` carries requests, `wire` reads and refuses them. `people` is whom the server knows; `clients`, `documents` and
`redirects` find and authenticate programs. `consent` and `pages` ask people. `grants` and `tokens` give tokens,
`ledger` remembers them, `signing` signs them, `assertions` reads what others signed. `settings` says how, and
`server` joins all.

Rules of this room:
- It listens on loopback and nowhere else. It keeps everything in memory, and forgets it at the end.
- It is as strict as a good authorization server: what it lets pass may be relied upon, and what it refuses is wrong.
"""
