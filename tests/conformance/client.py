"""The client that the official conformance suite starts: `python tests/conformance/client.py URL`.

The suite says in the environment which scenario it plays. One function plays each scenario; a scenario without one
lists the tools and calls the first. Which revision the server speaks, the client finds out by itself.

Scenarios named `auth/` have settings too, those that a user of such a server would give. The person at the browser is
a program that follows where the authorization server leads.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import ProxyHandler, build_opener

from garrison import Client, types
from garrison.auth import (
    ClientCredentials,
    EnterpriseAuthorization,
    MemoryStore,
    OAuth,
    ProtectedResourceMetadata,
    WorkloadIdentity,
)
from garrison.client import accept_defaults
from garrison.safe import SafeFetch

Play = Callable[[Client], Awaitable[None]]
Context = Mapping[str, str]
Auth = OAuth | ClientCredentials | WorkloadIdentity | EnterpriseAuthorization


async def only_list(client: Client) -> None:
    """Look at the tools."""
    await client.list_tools()


async def call_first(client: Client) -> None:
    """Call the first tool without arguments."""
    tools = (await client.list_tools()).tools
    if tools:
        await client.call_tool(tools[0].name, {})


async def add(client: Client) -> None:
    """Call a tool with numbers."""
    await client.list_tools()
    await client.call_tool("add_numbers", {"a": 5, "b": 3})


async def answer_with_defaults(client: Client) -> None:
    """Call the tool that asks for a form."""
    await client.list_tools()
    await client.call_tool("test_client_elicitation_defaults", {})


async def reconnect(client: Client) -> None:
    """Call the tool whose result comes on another stream."""
    await client.list_tools()
    await client.call_tool("test_reconnection", {})


async def everything_once(client: Client) -> None:
    """Use each method that has a header with a name."""
    for tool in (await client.list_tools()).tools:
        await client.call_tool(tool.name, {})
    for resource in (await client.list_resources()).resources:
        await client.read_resource(resource.uri)
    for prompt in (await client.list_prompts()).prompts:
        await client.get_prompt(prompt.name)


async def calls_of_the_context(client: Client) -> None:
    """Call the tools with the arguments that the suite gives."""
    await client.list_tools()
    for call in json.loads(os.environ["MCP_CONFORMANCE_CONTEXT"])["toolCalls"]:
        await client.call_tool(call["name"], call["arguments"])


async def call_what_is_offered(client: Client) -> None:
    """Call every tool that the client lists, which leaves out the ones with wrong headers."""
    for tool in (await client.list_tools()).tools:
        await client.call_tool(tool.name, {"region": "us-east1"})


async def several_rounds(client: Client) -> None:
    """Call the tools that ask back, and the ones that do not."""
    await client.list_tools()
    for name in ("test_mrtr_echo_state", "test_mrtr_unrelated", "test_mrtr_no_state", "test_mrtr_no_result_type"):
        await client.call_tool(name, {})


async def echo_the_schema(client: Client) -> None:
    """Send a schema back as it was received."""
    for tool in (await client.list_tools()).tools:
        if tool.name == "json_schema_2020_12_tool":
            await client.call_tool("json_schema_echo", {"schema": tool.input_schema})


PLAYS: dict[str, Play] = {
    "initialize": only_list,
    "tools_call": add,
    "elicitation-sep1034-client-defaults": answer_with_defaults,
    "sse-retry": reconnect,
    "request-metadata": only_list,
    "http-standard-headers": everything_once,
    "http-custom-headers": calls_of_the_context,
    "http-invalid-tool-headers": call_what_is_offered,
    "json-schema-ref-no-deref": only_list,
    "sep-2322-client-request-state": several_rounds,
    "json-schema-2020-12-preservation": echo_the_schema,
    "sep-2640-client-no-prefetch": only_list,
}


async def browse(url: str) -> bool:
    """Sign in: follow the authorization server to the redirect URI, where the client listens."""

    def follow() -> None:
        try:
            build_opener(ProxyHandler({})).open(url, timeout=10).close()
        except HTTPError as exc:
            exc.close()  # the client's own page about an answer that it refused

    await asyncio.to_thread(follow)
    return True


def person(context: Context, *, legacy: bool = False) -> OAuth:
    """A person at a desktop. Where the client was not registered beforehand, it may register itself."""
    return OAuth(
        context.get("client_id"),
        context.get("client_secret"),
        issuer=context.get("issuer"),
        client_metadata_url="https://conformance-test.local/client-metadata.json",
        client_name="garrison-conformance",
        allow_dynamic_registration=True,
        legacy_discovery=legacy,
        browser=browse,
        store=MemoryStore(),
        timeout=20,
    )


def person_at_an_old_server(context: Context) -> OAuth:
    """A person at a server of 2025-03-26, which publishes no metadata of the resource."""
    return person(context, legacy=True)


def program_with_a_key(context: Context) -> ClientCredentials:
    """A program that signs."""
    return ClientCredentials(
        context["client_id"], key=context["private_key_pem"], algorithm=context["signing_algorithm"]
    )


def program_with_a_secret(context: Context) -> ClientCredentials:
    """A program that shows a secret."""
    return ClientCredentials(context["client_id"], secret=context["client_secret"])


def workload(context: Context) -> WorkloadIdentity:
    """A program whose platform says who it is."""
    return WorkloadIdentity(lambda: context["valid_jwt"], client_id=context["client_id"])


def employee(context: Context) -> EnterpriseAuthorization:
    """A person whom a company vouches for."""
    return EnterpriseAuthorization(
        issuer=asyncio.run(looked_up(sys.argv[-1])),
        idp=context["idp_token_endpoint"],
        id_token=lambda: context["idp_id_token"],
        idp_client_id=context["idp_client_id"],
        client_id=context["client_id"],
        secret=context["client_secret"],
    )


async def looked_up(resource: str) -> str:
    """The authorization server of a resource. The client takes it from its administrator, whom the suite does not tell
    either; so this does what an administrator does once, and reads the metadata."""
    url = urlsplit(resource)
    document = f"{url.scheme}://{url.netloc}/.well-known/oauth-protected-resource{url.path}"
    page = await SafeFetch(private_hosts=[url.netloc]).get(document)
    return ProtectedResourceMetadata.read(page.body, resource).authorization_servers[0]


AUTH: dict[str, Callable[[Context], Auth]] = {
    "auth/2025-03-26-oauth-metadata-backcompat": person_at_an_old_server,
    "auth/2025-03-26-oauth-endpoint-fallback": person_at_an_old_server,
    "auth/client-credentials-jwt": program_with_a_key,
    "auth/client-credentials-basic": program_with_a_secret,
    "auth/enterprise-managed-authorization": employee,
    "auth/wif-jwt-bearer": workload,
}


def auth_for(scenario: str) -> Auth | None:
    """The settings of a scenario; those of a person where it has none of its own."""
    if not scenario.startswith("auth/"):
        return None
    return AUTH.get(scenario, person)(json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}")))


def confirm(params: types.ElicitFormParams | types.ElicitUrlParams) -> types.ElicitResult:
    """Say yes where the form asks for nothing but that; fill in the defaults otherwise."""
    fields = params.requested_schema.get("properties") if isinstance(params, types.ElicitFormParams) else None
    if isinstance(fields, dict) and "confirmed" in fields:
        return types.ElicitResult(action="accept", content={"confirmed": True})
    return accept_defaults(params)


def say_hello(params: types.CreateMessageParams) -> types.CreateMessageResult:
    """Stand in for a language model."""
    return types.CreateMessageResult(role="assistant", content=types.TextContent("Hello"), model="none")


async def main(scenario: str, auth: Auth | None) -> None:
    """Play a scenario against the server of the command line."""
    async with Client(
        sys.argv[-1],
        name="garrison-conformance",
        auth=auth,
        on_elicit=confirm,
        on_sample=say_hello,
        on_roots=[],
    ) as client:
        await PLAYS.get(scenario, call_first)(client)


if __name__ == "__main__":
    playing = os.environ.get("MCP_CONFORMANCE_SCENARIO", "")
    asyncio.run(main(playing, auth_for(playing)))
