"""How a `Launch` is carried out: through the supervisor where the system has what that needs, plainly elsewhere.

Rules of this file:
- Held by the supervisor, a program has nothing of this process but its three streams and its environment; all that came
  of it ends with it, and with this process, however that ends.
- Elsewhere (Windows, frozen programs) it has a process group of its own and the same environment, and is ended with its
  group by this process: no limits, no sandbox, and nothing ends it where this process is killed.
- The program is found once. A server that is started again is the same file.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, cast

from .. import events
from ..errors import ConnectionFailed
from ..transports.stdio_client import PlainStarter

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from ..policy import Timeouts
    from ..safe.held import HeldTransport
    from ..transports.stdio_client import Starter
    from .launching import Launch, Prepared

__all__ = ["HeldStarter", "UnheldStarter", "starter_for"]

_SETTINGS: Final = {
    "processes": "Launch.processes, LocalServer.processes",
    "memory": "Launch.memory, LocalServer.memory",
}


def starter_for(launch: Launch, timeouts: Timeouts) -> Starter:
    """What starts this launch on this system."""
    from ..safe.process import missing  # lazy: clients of servers elsewhere start nothing

    return UnheldStarter(launch) if missing() else HeldStarter(launch, timeouts.shutdown)


class _Once:
    """Prepares a launch at its first start."""

    def __init__(self, launch: Launch) -> None:
        self._launch = launch
        self._prepared: Prepared | None = None

    async def prepare(self) -> Prepared:
        launch = self._launch
        if launch.check is not None:
            await asyncio.to_thread(launch.check)  # it may read large files
        if self._prepared is None:
            # Whether a sandbox can be had is tried with a program of the system, and that is waited for.
            prepared = await asyncio.to_thread(launch.prepared) if launch.confined else launch.prepared()
            if launch.sandbox == "auto" and prepared.sandbox is None:
                self.record("is started without a sandbox: there is none to be had here", "Launch.sandbox", "noted")
            self._prepared = prepared
        return self._prepared

    def record(self, what: str, setting: str, decision: str = "") -> None:
        launch = self._launch
        about = events.Event("launch.limited", server=launch.name, target=launch.command[0])
        who = launch.name or launch.command[0]
        events.record("launch.limited", f"{who} {what}", setting=setting, decision=decision, about=about)


class HeldStarter(_Once):
    """Starts a program through the supervisor.

    Args:
        launch: what is started.
        grace: seconds between SIGTERM and SIGKILL, where this process has ended.
    """

    def __init__(self, launch: Launch, grace: float) -> None:
        super().__init__(launch)
        self._grace = grace

    async def start(self, child: asyncio.SubprocessProtocol) -> asyncio.SubprocessTransport:
        """Starts it.

        Raises:
            ConnectionFailed: it could not be started.
            ConfigurationError: its sandbox cannot be had.
        """
        from ..safe.held import start_held
        from ..safe.process import CommandFailed

        prepared = await self.prepare()
        try:
            return await start_held(prepared.plan(self._grace), child)
        except (CommandFailed, OSError) as exc:
            raise ConnectionFailed(f"{self._launch.command[0]}: {exc}") from exc

    def signal(self, transport: asyncio.SubprocessTransport, name: str) -> None:
        """SIGTERM to its group; SIGKILL to all that came of it."""
        if name == "SIGTERM":
            transport.terminate()
        else:
            transport.kill()

    def ending(self, transport: asyncio.SubprocessTransport) -> str:
        """Says how it ended."""
        held = cast("HeldTransport", transport)
        if held.passed:
            most = getattr(self._launch, held.passed)
            what = f"{most} processes" if held.passed == "processes" else f"{most} bytes of memory"
            return f"The server process was ended: it had more than {what} ({_SETTINGS[held.passed]})"
        return f"The server process ended (exit code {held.get_returncode()})"

    def over(self, transport: asyncio.SubprocessTransport) -> None:
        """Tells of a limit that ended it. Its folder is the supervisor's to remove."""
        held = cast("HeldTransport", transport)
        if held.passed:
            self.record(f"was ended: too much of {held.passed}", _SETTINGS[held.passed])


class UnheldStarter(_Once):
    """Starts a program as asyncio does."""

    def __init__(self, launch: Launch) -> None:
        super().__init__(launch)
        self._plain: PlainStarter | None = None
        self._folders: dict[asyncio.SubprocessTransport, TemporaryDirectory[str]] = {}

    async def start(self, child: asyncio.SubprocessProtocol) -> asyncio.SubprocessTransport:
        """Starts it.

        Raises:
            ConnectionFailed: it could not be started.
            ConfigurationError: its sandbox cannot be had.
        """
        prepared = await self.prepare()
        env, cwd, folder = dict(prepared.env), prepared.cwd, None
        if prepared.own_folder:
            from tempfile import TemporaryDirectory  # lazy: only a start with a folder of its own needs it

            folder = TemporaryDirectory(prefix="garrison-", ignore_cleanup_errors=True)
            env |= prepared.moved_to(folder.name)
            cwd = cwd or folder.name
        self._plain = PlainStarter((prepared.program, *prepared.argv[1:]), env=env, cwd=cwd)
        transport = await self._plain.start(child)
        if folder is not None:
            self._folders[transport] = folder
        return transport

    def signal(self, transport: asyncio.SubprocessTransport, name: str) -> None:
        """Sends a signal to its group."""
        if self._plain is not None:
            self._plain.signal(transport, name)

    def ending(self, transport: asyncio.SubprocessTransport) -> str:
        """Says how it ended."""
        return "" if self._plain is None else self._plain.ending(transport)

    def over(self, transport: asyncio.SubprocessTransport) -> None:
        """Removes its folder."""
        folder = self._folders.pop(transport, None)
        if folder is not None:
            folder.cleanup()
