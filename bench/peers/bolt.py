"""bolt-mcp: Django + django-bolt (actix) + the official Rust MCP SDK (rmcp) embedded; Python only runs the tool."""

import os
import sys
from _common import args, make_tool

transport, port, mode, ntools = args()
os.environ["BOLT_BENCH_MODE"] = mode
os.environ["BOLT_BENCH_NTOOLS"] = str(ntools)
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "boltproj.settings")
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from django.core.management import execute_from_command_line

execute_from_command_line(["manage.py", "runbolt", "--host", "127.0.0.1", "--port", str(port), "--processes", "1"])
