"""The commands that are clients: `discover`, `list`, `call`, `read` and `prompt`.

Rules of this file:
- A command connects, asks, prints and ends. Results go to standard output; everything else to standard error.
- With `--json` the result is printed as it is named on the wire.
- A sign-in that is kept is looked for when the server asks for one: no keyring is opened for servers that do not. The
  command then begins anew; what a server refused it has not done.
"""

from __future__ import annotations

import asyncio
import sys
from io import TextIOWrapper
from typing import TYPE_CHECKING, cast

from ..errors import AuthenticationRequired, ConfigurationError, GarrisonError
from ..protocol import types as t
from .failures import OK, TOOL_FAILED, report
from .progress import Progress
from .reach import Reached, sign_in_for
from .show import show_contents, show_discovery, show_lists, show_prompt, show_result
from .style import emit_json
from .values import json_object, pairs, typed

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Awaitable, Callable

    from ..client import Client

__all__ = ["call", "discover", "list_", "prompt", "read"]


def _perform(options: Namespace, command: Callable[[Client, Namespace], Awaitable[int]]) -> int:
    """Connect, run one command, and turn whatever ends it into an exit status."""

    async def main(reached: Reached) -> int:
        async with reached.client as client:
            return await command(client, options)

    output: object = sys.stdout
    if isinstance(output, TextIOWrapper):
        # A server's text may have characters that the encoding of the output has not.
        cast("TextIOWrapper", output).reconfigure(errors="backslashreplace")
    reached: Reached | None = None
    try:
        reached = Reached(options)
        try:
            return asyncio.run(main(reached))
        except AuthenticationRequired as exc:
            auth = sign_in_for(options) if exc.status == 401 else None
            if auth is None:
                raise
        reached = Reached(options, auth)
        return asyncio.run(main(reached))
    except GarrisonError as exc:
        log = "" if reached is None else reached.log
        return report(exc, as_json=options.json, log=log, target=options.target)


def discover(options: Namespace) -> int:
    """`garrison discover TARGET`"""
    return _perform(options, _discover)


def list_(options: Namespace) -> int:
    """`garrison list TARGET`"""
    return _perform(options, _list)


def call(options: Namespace) -> int:
    """`garrison call TARGET TOOL [name=value ...]`"""
    return _perform(options, _call)


def read(options: Namespace) -> int:
    """`garrison read TARGET URI`"""
    return _perform(options, _read)


def prompt(options: Namespace) -> int:
    """`garrison prompt TARGET NAME [name=value ...]`"""
    return _perform(options, _prompt)


async def _discover(client: Client, options: Namespace) -> int:
    found = await client.discover()
    info = client.server_info
    if options.json:
        facts: dict[str, object] = {"protocolVersion": client.protocol_version, **t.to_dict(found)}
        facts["serverInfo"] = None if info is None else t.to_dict(info)
        emit_json(facts)
    else:
        show_discovery(client.protocol_version, info, found)
    return OK


async def _list(client: Client, options: Namespace) -> int:
    offered = client.server_capabilities
    tools = [tool async for tool in client.tools()] if offered.tools is not None else []
    resources = [resource async for resource in client.resources()] if offered.resources is not None else []
    templates = [item async for item in client.resource_templates()] if offered.resources is not None else []
    prompts = [prompt async for prompt in client.prompts()] if offered.prompts is not None else []
    if options.json:
        lists: dict[str, list[t.Tool] | list[t.Resource] | list[t.ResourceTemplate] | list[t.Prompt]] = {
            "tools": tools,
            "resources": resources,
            "resourceTemplates": templates,
            "prompts": prompts,
        }
        emit_json({name: [t.to_dict(item) for item in items] for name, items in lists.items()})
    else:
        show_lists(tools, resources, templates, prompts)
    return OK


async def _call(client: Client, options: Namespace) -> int:
    arguments = await _arguments(client, options)
    progress = Progress(lines=options.progress)
    try:
        result = await client.call_tool(options.name, arguments, on_progress=progress)
    finally:
        progress.clear()
    if options.json:
        emit_json(t.to_dict(result))
    else:
        show_result(result)
    return TOOL_FAILED if result.is_error else OK


async def _arguments(client: Client, options: Namespace) -> dict[str, object]:
    """The call's arguments: the object of `--json-args`, and the words beside it."""
    given = {} if options.json_args is None else json_object(options.json_args)
    words = pairs(options.arguments)
    twice = given.keys() & words.keys()
    if twice:
        raise ConfigurationError(f"argument {min(twice)!r} is given twice")
    if not words:
        return given
    names: list[str] = []
    async for tool in client.tools():
        if tool.name == options.name:
            return given | typed(words, tool.input_schema)
        names.append(tool.name)
    if client.whoami is not None:  # what is not listed may be there for further scopes: the server says so
        return given | typed(words, {})
    raise ConfigurationError(f"the server lists no tool {options.name!r}{_near(options.name, names)}")


def _near(name: str, names: list[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, names, n=3)
    return f" (did you mean {' or '.join(close)}?)" if close else " (garrison list shows them)"


async def _read(client: Client, options: Namespace) -> int:
    result = await client.read_resource(options.uri)
    if options.json:
        emit_json(t.to_dict(result))
    else:
        show_contents(result.contents)
    return OK


async def _prompt(client: Client, options: Namespace) -> int:
    result = await client.get_prompt(options.name, pairs(options.arguments) or None)
    if options.json:
        emit_json(t.to_dict(result))
    else:
        show_prompt(result)
    return OK
