#!/bin/sh
# Installs the peers into $BENCH_HOME (bench/.home when unset; git ignores it) and builds the load generator.
# Needs: Python 3.13 (or $PY; one version for all, the one Garrison is measured with), uv, node >= 20, npm, cc.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
BENCH_HOME=${BENCH_HOME:-$here/.home}
PY=${PY:-$(for c in python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.13*/bin/python3.13 python3; do "$c" -c '' 2>/dev/null && echo "$c" && break; done)}
mkdir -p "$BENCH_HOME/v" "$BENCH_HOME/node"
venv() { n=$1; shift; [ -x "$BENCH_HOME/v/$n/bin/python" ] || "$PY" -m venv "$BENCH_HOME/v/$n"; uv pip install -q --override "$BENCH_HOME/override" --python "$BENCH_HOME/v/$n/bin/python" "$@" || echo "left out: $n" >&2; }
echo certifi >"$BENCH_HOME/override"  # a peer may ask for a newer certifi than can be had; nothing measured depends on it
TOOLS="uvicorn uvloop httptools py-spy"
venv mcp2 'mcp==2.3.0' $TOOLS
venv mcp1 'mcp==1.30.0' $TOOLS
venv fastmcp 'fastmcp==4.1.6' $TOOLS
venv ceil uvicorn uvloop httptools granian hypercorn msgspec orjson picows websockets wsproto starlette anyio pydantic jsonschema jsonschema-rs fastjsonschema py-spy
venv bolt-mcp 'bolt-mcp==0.2.3'
venv anodize-mcp 'anodize-mcp==0.8.0'
venv mcpatom 'mcpatom==0.3.0'
venv zeromcp 'zeromcp==1.10.3'
venv aiomcp 'aiomcp==0.0.13'
cd "$BENCH_HOME/node"
[ -f package.json ] || npm init -y >/dev/null
npm install --no-audit --no-fund @modelcontextprotocol/sdk@1.32.2 @modelcontextprotocol/server@2.4.0 @modelcontextprotocol/node@2.1.2 @modelcontextprotocol/client@2.4.0
cc -O2 -w -o "$BENCH_HOME/mcpload" "$here/load/mcpload.c"
