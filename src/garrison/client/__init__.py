"""The client's side: `Client` and what it hands out."""

from __future__ import annotations

from .client import Client
from .handlers import accept_defaults
from .launching import Launch
from .subscriptions import (
    Change,
    PromptListChanged,
    ResourceListChanged,
    ResourceUpdated,
    Subscription,
    ToolListChanged,
)
from .transport import Call, ClientTransport, Receiver

__all__ = [
    "Call",
    "Change",
    "Client",
    "ClientTransport",
    "Launch",
    "PromptListChanged",
    "Receiver",
    "ResourceListChanged",
    "ResourceUpdated",
    "Subscription",
    "ToolListChanged",
    "accept_defaults",
]
