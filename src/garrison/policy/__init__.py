"""What is allowed: frozen values with secure defaults. TLS, the transports' own settings and TOML are loaded on use.

`limits` how much and how long, `security` who and what, `tls` and `transports` the settings of one listener or client,
`toml` the same from a file.
"""

from .limits import Limits, Timeouts
from .security import SecurityPolicy

__all__ = ["Limits", "SecurityPolicy", "Timeouts"]
