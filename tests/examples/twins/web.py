"""VULNERABLE ON PURPOSE: the web server without its protections, for the tests to attack. Run it for nobody."""

import urllib.request

from garrison import Server


def serve(host: list[str] | None = None, private_host: list[str] | None = None, timeout: float = 10.0) -> Server:
    server = Server("web-vulnerable")
    # UNSAFE: files, every host and port, whatever a name or a redirect leads to. No proxy, so that tests stay here.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    @server.tool()
    def fetch(url: str, start: int = 0) -> str:
        with opener.open(url, timeout=timeout) as answer:
            return answer.read().decode(errors="replace")[start:]  # UNSAFE: any size, any type, as it is

    return server
