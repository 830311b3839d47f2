"""A file that a resource's handler may not read is not found, as a URI that nothing answers to is."""

from __future__ import annotations

from pathlib import Path

import pytest

from garrison import Client, RemoteError, Server
from garrison.safe import SafeRoot


@pytest.mark.app
@pytest.mark.parametrize("uri", ["file:///..%2Fsecret", "file:///absent", "file:///link", "other:///x"])
async def test_what_may_not_be_read_is_not_found(tmp_path: Path, uri: str) -> None:
    (tmp_path / "secret").write_text("CANARY")
    root = tmp_path / "root"
    root.mkdir()
    (root / "plain").write_text("plain")
    (root / "link").symlink_to("../secret")
    files, server = SafeRoot(root), Server("files")

    @server.resource("file:///{+path}")
    def file(path: str) -> str:
        return files.read_text(path)

    async with Client(server) as client:
        contents = await client.read_resource("file:///plain")
        assert "plain" in repr(contents)
        with pytest.raises(RemoteError) as caught:
            await client.read_resource(uri)
    assert caught.value.code == -32602 and caught.value.message == "Resource not found"
    assert caught.value.data == {"uri": uri}
