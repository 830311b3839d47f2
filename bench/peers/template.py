"""Copy for the new SDK: PEER.py http PORT MODE NTOOLS | PEER.py stdio 0 MODE NTOOLS"""

from _common import args, make_tool

transport, port, mode, ntools = args()
raise SystemExit("fill in: build the server, register add, echo and make_tool(i) for i in range(ntools), then serve")
