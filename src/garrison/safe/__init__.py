"""What authors of tools call instead of the dangerous thing; each works on its own, without a server.

page = await SafeFetch(hosts=["api.example.com"]).get("https://api.example.com/v1/weather")
"""

from __future__ import annotations

from .fetch import Fetched, FetchRefused, SafeFetch

__all__ = ["FetchRefused", "Fetched", "SafeFetch"]
