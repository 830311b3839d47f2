"""Serving: `Server` and what its handlers use."""

from .app import Server
from .classes import completion, mcp_server, prompt, resource, tool
from .context import Context, Elicited
from .depends import Depends
from .handles import Handles
from .options import PromptOptions, ResourceOptions, ServerOptions, ToolOptions
from .results import ResourceContents, ToolOutput

__all__ = [
    "Context",
    "Depends",
    "Elicited",
    "Handles",
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
