"""Serving: `Server` and what its handlers use."""

from .app import PromptOptions, ResourceOptions, Server, ServerOptions, ToolOptions
from .classes import completion, mcp_server, prompt, resource, tool
from .context import Context, Elicited
from .depends import Depends
from .results import ResourceContents, ToolOutput

__all__ = [
    "Context",
    "Depends",
    "Elicited",
    "PromptOptions",
    "ResourceContents",
    "ResourceOptions",
    "Server",
    "ServerOptions",
    "ToolOptions",
    "ToolOutput",
    "completion",
    "mcp_server",
    "prompt",
    "resource",
    "tool",
]
