"""Rates that several processes share: one count for all, in Valkey or Redis.

    shared = SharedRates("redis://127.0.0.1:6379/0")

Rules of this file:
- One script decides, with the clock of the store: nothing passes between looking and charging, and the clocks of the
  machines do not matter.
- Calls that come while an answer is awaited go together in the next question. So there is one question at a time.
- What is stored is a moment under a digest: no name, address or token. It expires when it says nothing any more.
- A store that does not answer in time decides nothing. It is left alone for `retry` seconds; whoever asks meanwhile is
  counted by their own process, or refused.

All keys of a namespace have one hash tag, since a script of a cluster sees one node: `{garrison}`.
"""

from __future__ import annotations

import asyncio
import time
from importlib import import_module
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, Protocol, final

from .. import events
from ..errors import ConfigurationError
from ..policy.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .rates import Charge

__all__ = ["SharedRates"]

_TOGETHER: Final = 64
"""Calls of one question."""
_REFUSED: Final = (1.0, "SharedRates.fail")
_SCRIPT: Final = """
-- Groups of limits. ARGV: for each group its size, and 1 where it is charged whatever it owes; then for each of its
-- limits interval, room, deepest and cost. Times are microseconds. What is stored is when all will have been paid.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local key, arg, answers = 0, 1, {}
while arg <= #ARGV do
  local size, forced = tonumber(ARGV[arg]), ARGV[arg + 1] == '1'
  arg = arg + 2
  local due, longest, which = {}, 0, 0
  for i = 1, size do
    local at = arg + 4 * (i - 1)
    local interval, room, deepest = tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
    local owed = math.max(tonumber(redis.call('GET', KEYS[key + i]) or 0), now)
    owed = math.min(owed, now + deepest) + tonumber(ARGV[at + 3]) * interval
    due[i] = math.min(owed, now + deepest)
    if owed - now - room > longest and not forced then
      longest, which = owed - now - room, i
    end
  end
  if which == 0 then
    for i = 1, size do
      if ARGV[arg + 4 * (i - 1) + 3] ~= '0' then
        local left = math.max(math.ceil((due[i] - now) / 1000), 0) + 1
        redis.call('SET', KEYS[key + i], string.format('%.3f', due[i]), 'PX', string.format('%.0f', left))
      end
    end
  end
  answers[#answers + 1] = which
  answers[#answers + 1] = math.ceil(longest)
  key, arg = key + size, arg + 4 * size
end
return answers
"""


class _Store(Protocol):
    """What is used of a client of the store."""

    async def execute_command(self, *words: str | float) -> list[int]: ...
    async def aclose(self) -> None: ...


class _Asked(NamedTuple):
    charges: Sequence[Charge]
    forced: bool
    answer: asyncio.Future[list[int] | None]
    """Which of them refuses, from 1, and in how many microseconds it would not; None: the store did not say."""


@final
class SharedRates:
    """Counts for all processes that name the same store and namespace. Belongs to one event loop at a time.

    Args:
        url: `redis://`, `rediss://` (TLS) or `unix://` of Valkey or Redis; a `Secret` where a password stands in it.
        namespace: what the keys begin with: letters, digits, `_`, `-` and `.`.
        timeout: seconds for an answer.
        fail: what holds while the store does not answer: `local`, each process counts for itself; `refuse`, nobody
            passes.
        retry: seconds until it is asked again.

    Raises:
        ConfigurationError: a value is not of its form, or the package is missing: `pip install garrison[redis]`.
    """

    __slots__ = (
        "_client",
        "_digest",
        "_down_until",
        "_fail",
        "_loop",
        "_prefix",
        "_redis",
        "_retry",
        "_sha",
        "_task",
        "_timeout",
        "_url",
        "_waiting",
    )

    def __init__(
        self,
        url: str | Secret,
        *,
        namespace: str = "garrison",
        timeout: float = 0.25,
        fail: Literal["local", "refuse"] = "local",
        retry: float = 1.0,
    ) -> None:
        from hashlib import blake2b, sha1

        plain = url.reveal() if isinstance(url, Secret) else url
        if not plain.startswith(("redis://", "rediss://", "unix://")):
            raise ConfigurationError("SharedRates.url must begin with redis://, rediss:// or unix://")
        if not namespace or not all(c.isascii() and (c.isalnum() or c in "_-.") for c in namespace):
            raise ConfigurationError("SharedRates.namespace: letters, digits, _ - and .")
        for name, value in (("timeout", timeout), ("retry", retry)):
            if type(value) not in (int, float) or not 0 < value < float("inf"):
                raise ConfigurationError(f"SharedRates.{name} must be a positive number of seconds")
        if fail not in ("local", "refuse"):
            raise ConfigurationError("SharedRates.fail must be local or refuse")
        try:
            self._redis = import_module("redis.asyncio")
        except ImportError:
            raise ConfigurationError("SharedRates needs a package: pip install garrison[redis]") from None
        self._url = plain
        self._prefix = f"{{{namespace}}}:"
        self._timeout = timeout
        self._fail = fail
        self._retry = retry
        self._digest = blake2b
        self._sha = sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()  # how EVALSHA names a script
        self._client: _Store | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[_Asked] = []
        self._down_until = 0.0

    def __repr__(self) -> str:
        return f"SharedRates({self._prefix!r})"

    def __reduce__(self) -> str:
        raise TypeError("SharedRates hold a credential and are not pickled")

    async def take(self, charges: Sequence[Charge]) -> tuple[float, str] | None:
        """Charge all of them, or none.

        Returns:
            Seconds until all would pass, 0.0 when they did, and the setting that makes it take so long. None: the store
            does not answer, and the process should count for itself.
        """
        answer = await self._ask(charges, forced=False)
        if answer is None:
            return None if self._fail == "local" else _REFUSED
        which, wait = answer
        return (0.0, "") if not which else (wait / 1e6, charges[which - 1].setting)

    async def charge(self, charges: Sequence[Charge]) -> None:
        """Charge them whether or not there is room. Nothing where the store does not answer."""
        await self._ask(charges, forced=True)

    async def close(self) -> None:
        """Close the connection. Whoever asks later opens another."""
        task, client, self._client = self._task, self._client, None
        if self._loop is asyncio.get_running_loop():
            if task is not None:
                task.cancel()
                await asyncio.wait([task])
            if client is not None:
                await client.aclose()

    async def _ask(self, charges: Sequence[Charge], *, forced: bool) -> list[int] | None:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._loop, self._client, self._task, self._waiting = loop, None, None, []
        if self._down_until and (self._task is not None or time.monotonic() < self._down_until):
            return None  # one of them finds out whether it is back, and the others do not wait for that
        asked = _Asked(charges, forced, loop.create_future())
        self._waiting.append(asked)
        if self._task is None:
            self._task = loop.create_task(self._run())
        return await asked.answer

    async def _run(self) -> None:
        """Ask for all that wait, until nobody does."""
        batch: list[_Asked] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:_TOGETHER], self._waiting[_TOGETHER:]
                answers = await self._answers(batch)
                if answers is None:
                    return
                for number, each in enumerate(batch):
                    if not each.answer.done():
                        each.answer.set_result(answers[2 * number : 2 * number + 2])
        finally:
            left, self._waiting, self._task = batch + self._waiting, [], None
            for each in left:
                if not each.answer.done():
                    each.answer.set_result(None)

    async def _answers(self, batch: list[_Asked]) -> list[int] | None:
        from redis.exceptions import NoScriptError, RedisError

        keys: list[str] = []
        words: list[float] = []
        for charges, forced, _ in batch:
            words += (len(charges), int(forced))
            for buckets, key, cost, setting in charges:
                keys.append(self._key(setting, key))
                words += (buckets.interval * 1e6, buckets.room * 1e6, buckets.deepest * 1e6, cost)
        try:
            async with asyncio.timeout(self._timeout):
                client = self._connected()
                try:
                    answers = await client.execute_command("EVALSHA", self._sha, len(keys), *keys, *words)
                except NoScriptError:
                    answers = await client.execute_command("EVAL", _SCRIPT, len(keys), *keys, *words)
        except (RedisError, OSError, TimeoutError) as exc:
            self._is_down(exc)
            return None
        self._down_until = 0.0
        return answers

    def _connected(self) -> _Store:
        if self._client is None:
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff

            # What is tried again here would be waited for: the next call tries.
            self._client = client = self._redis.Redis.from_url(
                self._url,
                socket_timeout=self._timeout,
                socket_connect_timeout=self._timeout,
                retry=Retry(NoBackoff(), 0),
            )
            return client
        return self._client

    def _is_down(self, exc: Exception) -> None:
        if not self._down_until:
            what = "this process counts for itself" if self._fail == "local" else "calls are refused"
            text = f"the store of rates does not answer ({type(exc).__name__}): {what}"
            events.record("limit.store_unavailable", text, setting="SharedRates.url", decision="failed")
        self._down_until = time.monotonic() + self._retry

    def _key(self, setting: str, key: str) -> str:
        text = f"{setting}\n{key}".encode(errors="surrogatepass")
        return self._prefix + self._digest(text, digest_size=16).hexdigest()
