"""A host: many servers for one model, and nothing that a person or a policy did not allow.

Rules of this file:
- A name's module is loaded when the name is first used (PEP 562).
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .adapters import ModelTools, anthropic_tools, generic_tools, openai_tools
    from .answers import ToolAnswer
    from .approvals import ApprovalPolicy, Rule
    from .console import terminal
    from .conversation import Conversation
    from .exposure import HostTool, Unshown
    from .host import Host
    from .labels import Label
    from .pins import Pins
    from .questions import Always, Question, Verdict
    from .sampling import SamplingBudget
    from .scanner import Finding, scan
    from .servers import LocalServer, OtherServer, RemoteServer
    from .state import FolderState, MemoryState, StateError

__all__ = [
    "Always",
    "ApprovalPolicy",
    "Conversation",
    "Finding",
    "FolderState",
    "Host",
    "HostTool",
    "Label",
    "LocalServer",
    "MemoryState",
    "ModelTools",
    "OtherServer",
    "Pins",
    "Question",
    "RemoteServer",
    "Rule",
    "SamplingBudget",
    "StateError",
    "ToolAnswer",
    "Unshown",
    "Verdict",
    "anthropic_tools",
    "generic_tools",
    "openai_tools",
    "scan",
    "terminal",
]

_MODULES = {
    "adapters": ("ModelTools", "anthropic_tools", "generic_tools", "openai_tools"),
    "answers": ("ToolAnswer",),
    "approvals": ("ApprovalPolicy", "Rule"),
    "exposure": ("HostTool", "Unshown"),
    "console": ("terminal",),
    "conversation": ("Conversation",),
    "host": ("Host",),
    "labels": ("Label",),
    "pins": ("Pins",),
    "questions": ("Always", "Question", "Verdict"),
    "sampling": ("SamplingBudget",),
    "scanner": ("Finding", "scan"),
    "servers": ("LocalServer", "OtherServer", "RemoteServer"),
    "state": ("FolderState", "MemoryState", "StateError"),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # a type checker would otherwise take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(f".{_MODULE_OF[name]}", __name__), name)
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
