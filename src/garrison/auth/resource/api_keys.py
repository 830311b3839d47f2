"""API keys: for deployments that have no authorization server.

    key, hashed = ApiKeys.new()                      # the key for its owner, the hash for the configuration
    keys = ApiKeys({hashed: Grant("ci", ["tools:read"])})

Rules of this file:
- Only hashes are kept. A plain SHA-256 is enough because a key is random: there is no list of likely ones to try, which
  is what slow hashes are for. Keys that people made up are too short to be taken.
- A key is found by its hash, in a time that does not depend on how many there are. What such a look-up tells of the
  hashes helps nobody: to choose a key by its hash is what SHA-256 prevents.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from typing import Final, cast

from ...errors import ConfigurationError
from ...policy.secret import Secret
from .grants import Grant
from .verifier import MAX_CHARS, TokenRefused, Verified

__all__ = ["PREFIX", "ApiKeys"]

PREFIX: Final = "gk_"
"""With what the keys begin that are made here, so that they are recognised: by `accepts`, and by those who look for
keys that were published by mistake."""
_LEAST: Final = 32
_BYTES: Final = 32
_HASH: Final = re.compile(r"sha256:[0-9a-f]{64}")
_KIND: Final = "api-key"


class ApiKeys:
    """Checks API keys. A `TokenVerifier` of no issuer.

    Args:
        grants: what each key allows, by its hash, as `ApiKeys.hash` gives it.

    Raises:
        ConfigurationError: there is none, or a hash or grant is not of its form.
    """

    __slots__ = ("_known",)

    def __init__(self, grants: Mapping[str, Grant]) -> None:
        self._known: dict[str, Verified] = {}
        if not grants:
            raise ConfigurationError("ApiKeys: at least one key is needed; ApiKeys.new() makes one")
        for hashed, grant in grants.items():
            if not _HASH.fullmatch(hashed):
                raise ConfigurationError("ApiKeys: each name is sha256:HEX, as ApiKeys.hash(key) gives it; never a key")
            if type(cast("object", grant)) is not Grant:
                raise ConfigurationError("ApiKeys: each value is a Grant")
            self._known[hashed] = Verified(grant.principal(_KIND))

    @staticmethod
    def new() -> tuple[Secret, str]:
        """A new key of 256 random bits, and its hash. The key is shown to nobody but by its `reveal`."""
        key = PREFIX + secrets.token_urlsafe(_BYTES)
        return Secret(key), ApiKeys.hash(key)

    @staticmethod
    def hash(key: str | Secret) -> str:
        """The hash under which a key is configured.

        Raises:
            ConfigurationError: it has less than 32 characters. The message does not repeat it.
        """
        text = key.reveal() if isinstance(key, Secret) else key
        if len(text) < _LEAST:
            raise ConfigurationError(f"an API key has {_LEAST} characters at least; ApiKeys.new() makes one")
        return "sha256:" + hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def issuer(self) -> None:
        """None: the keys are our own."""
        return None

    def accepts(self, token: str) -> bool:
        """Whether it begins as keys made here do, or is one of the keys."""
        return token.startswith(PREFIX) or self._find(token) is not None

    def verify(self, token: str, now: float) -> Verified:
        """Check a key. What is configured does not end.

        Raises:
            TokenRefused: it is none of the keys.
        """
        found = self._find(token)
        if found is None:
            raise TokenRefused("it is none of the API keys")
        return found

    def revoke(self, hashed: str) -> bool:
        """Take a key back, from now on. False if there was none.

        Args:
            hashed: as it is configured. From there it has to be taken as well.
        """
        return self._known.pop(hashed, None) is not None

    def _find(self, token: str) -> Verified | None:
        return self._known.get(ApiKeys.hash(token)) if _LEAST <= len(token) <= MAX_CHARS else None

    def __repr__(self) -> str:
        return f"ApiKeys({len(self._known)} keys)"
