"""An agent: a language model that uses the tools of two servers, as far as a rule or somebody allows it.

    uv run python examples/agent.py

The model follows a script and the servers are in this process, so that nothing else is needed. It reads a note, which
is allowed, and wants to delete it, which is not.
"""

import asyncio
from datetime import date
from typing import Any

from garrison import ApprovalPolicy, Host, Rule, Server
from garrison.host import MemoryState, OtherServer, Question
from garrison.host.adapters import openai_tools

Message = dict[str, Any]

MOST_TURNS = 10
SCRIPT = [
    ("clock__today", "{}"),
    ("notes__read_note", '{"name": "plan"}'),
    ("notes__delete_note", '{"name": "plan"}'),
]

notes = Server("notes")
clock = Server("clock")
kept = {"plan": "Paint the shed on Saturday."}


@notes.tool()
def read_note(name: str) -> str:
    """Read a note."""
    return kept[name]


@notes.tool()
def delete_note(name: str) -> str:
    """Delete a note."""
    del kept[name]
    return "deleted"


@clock.tool()
def today() -> str:
    """Tell the date."""
    return date.today().isoformat()


def approve(question: Question) -> bool:
    """Somebody who lets tools be shown, and notes be read but not deleted; `terminal()` asks a person instead."""
    allowed = question.kind == "tools" or question.target == "notes.read_note"
    print(f"? {question.heading()} {'yes' if allowed else 'no'}")
    return allowed


async def scripted_model(messages: list[Message], tools: list[Message]) -> Message:
    """The next message of the conversation, as OpenAI's Chat Completions gives it. Here stands the call of a model."""
    results = [message["content"] for message in messages if message["role"] == "tool"]
    if len(results) == len(SCRIPT):
        return {"role": "assistant", "content": f"I have read the plan. Deleting it came to this: {results[-1]}"}
    name, arguments = SCRIPT[len(results)]
    if name not in [tool["function"]["name"] for tool in tools]:
        return {"role": "assistant", "content": f"I am shown no tool {name}."}
    call = {"id": f"call_{len(results)}", "type": "function", "function": {"name": name, "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


async def agent(host: Host, task: str) -> str:
    """Lets the model work on a task until it has an answer."""
    tools = openai_tools(host)
    messages: list[Message] = [{"role": "user", "content": task}]
    for _ in range(MOST_TURNS):
        message = await scripted_model(messages, tools.definitions())
        results = await tools.answer(message)
        if not results:
            return message["content"]
        for call, result in zip(message["tool_calls"], results, strict=True):
            print(f"> {call['function']['name']} {call['function']['arguments']}\n{result['content']}")
        messages += [message, *results]
    return "It took too long."


async def main() -> None:
    servers = {
        "notes": OtherServer(notes, labels=["private"], tools={"delete_note": ["destructive"]}),
        "clock": OtherServer(clock, labels=[]),
    }
    policy = ApprovalPolicy([Rule(action="allow", server="clock", tool="today")])
    async with Host(servers, approve=approve, policy=policy, state=MemoryState()) as host:
        print(await agent(host, "What is the plan? You may delete the note then."))
    print(f"The notes are {kept}.")


if __name__ == "__main__":
    asyncio.run(main())
