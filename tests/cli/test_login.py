"""`garrison login`, `logout` and `whoami`, and the commands that use a sign-in; no token is ever seen."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from garrison import SecurityPolicy, Server
from garrison.auth.store import CredentialStore, FileStore, MemoryStore, decode_tokens, encode_tokens
from garrison.auth.tokens import CredentialKey, TokenSet
from garrison.cli import main, signins
from garrison.policy.secret import Secret
from garrison.testing import Reply, Request

from .signing_in import SECRET, Place, consented, place, served_alone

KEY = "ab" * 32


@dataclass
class Terminal:
    """Runs commands in this process, and remembers everything that was printed."""

    capfd: pytest.CaptureFixture[str]
    caplog: pytest.LogCaptureFixture
    home: Path
    printed: list[str] = field(default_factory=lambda: list[str]())

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self.capfd.readouterr()
        status = main(words)
        out, err = self.capfd.readouterr()
        self.printed += [out, err]
        return status, out, err

    @property
    def store(self) -> FileStore:
        return FileStore(self.home / "garrison" / "credentials", bytes.fromhex(KEY))

    @property
    def kept(self) -> list[CredentialKey]:
        """The keys of all tokens."""
        every = self.store.keys()
        return [key for key in every if key.kind == "token"]

    def tokens(self, account: str = "default") -> tuple[CredentialKey, TokenSet]:
        """The tokens that are kept."""
        (key,) = [key for key in self.kept if key.account == account]
        return key, decode_tokens(self.store.load(key) or b"")


@pytest.fixture
def run(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> Generator[Terminal]:
    monkeypatch.setenv("GARRISON_STORE", "file")  # never the keyring of who runs the tests
    monkeypatch.setenv("GARRISON_STORE_KEY", KEY)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    for name in ("GARRISON_TOKEN", "GARRISON_CLIENT_SECRET", "GARRISON_STORE_PASSPHRASE"):
        monkeypatch.delenv(name, raising=False)
    terminal = Terminal(capfd, caplog, tmp_path)
    with caplog.at_level("DEBUG"):
        yield terminal


@pytest.fixture
def there(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> Generator[Place]:
    """Both servers, and alice at the browser. At the end no secret of theirs was seen anywhere."""
    with place() as made:
        monkeypatch.setattr("garrison.cli.login.open_browser", made.person())
        secrets = overheard(made)
        yield made
        unseen(secrets, run)


def overheard(made: Place) -> set[str]:
    """Every token, code and verifier of the authorization server, from now on."""
    secrets: set[str] = {SECRET}

    def on_reply(request: Request, reply: Reply) -> Reply:
        if request.endpoint == "token" and reply.status == 200:
            members = json.loads(reply.body)
            secrets.update(members[name] for name in ("access_token", "refresh_token") if name in members)
            form = parse_qs(request.body.decode())
            secrets.update(*(form[name] for name in ("code", "code_verifier") if name in form))
        return reply

    made.authorization.on_reply = on_reply
    return secrets


def unseen(secrets: set[str], run: Terminal) -> None:
    everything = "\n".join([*run.printed, *run.capfd.readouterr(), run.caplog.text]).encode()
    everything += b"".join(path.read_bytes() for path in run.home.rglob("*") if path.is_file())
    assert not [secret for secret in secrets if secret.encode() in everything]


def signed_in(run: Terminal, there: Place, *words: str) -> None:
    status, out, err = run("login", there.url, "--client-id", "desktop", *words)
    assert status == 0, out + err


@pytest.mark.attack("ATK-264")
def test_a_sign_in_is_kept_and_used_and_shown_and_ended(run: Terminal, there: Place) -> None:
    status, out, err = run("login", there.url, "--client-id", "desktop")
    assert status == 0 and out.startswith(f"Signed in to {there.url}\n"), out + err
    for text in (there.authorization.issuer, "desktop", "notes:read", "in 5 min, renewed by itself", "encrypted file"):
        assert text in out
    assert run("call", there.url, "me")[:2] == (0, "alice\n")
    assert len(there.pages) == 1
    status, out, _ = run("whoami")
    assert status == 0 and there.url in out and "desktop" in out and "notes:read" in out
    status, out, _ = run("logout", there.url)
    assert (status, out) == (0, f"Signed out of {there.url}: its tokens are revoked and deleted\n")
    assert run.store.keys() == ()
    assert [request.endpoint for request in there.authorization.asked("revoke")] == ["revoke"] * 2
    status, out, err = run("call", there.url, "me")
    assert status == 6 and out == "" and f"garrison login {there.url}" in err


def test_one_sign_in_is_for_http_and_websocket(run: Terminal, there: Place) -> None:
    websocket = there.url.replace("http", "ws", 1)
    assert run("login", websocket, "--client-id", "desktop")[0] == 0
    assert run("call", websocket, "me")[:2] == run("call", there.url, "me")[:2] == (0, "alice\n")
    assert len(there.pages) == 1


def test_without_a_sign_in_the_command_is_named(run: Terminal, there: Place) -> None:
    for words in (("call", there.url, "me"), ("list", there.url), ("whoami", there.url), ("logout", there.url)):
        status, out, err = run(*words)
        assert status == 6 and out == "" and f"garrison login {there.url}" in err.splitlines()[-1]
    assert not there.pages
    assert run("whoami")[0] == 0


def test_the_report_as_json(run: Terminal, there: Place) -> None:
    status, out, _ = run("login", there.url, "--client-id", "desktop", "--json")
    made = json.loads(out)
    assert status == 0 and out.count("\n") == 1
    (listed,) = json.loads(run("whoami", "--json")[1])
    assert made == listed == json.loads(run("whoami", there.url, "--json")[1])[0]
    assert listed.keys() == {
        "server", "issuer", "account", "client_id", "scopes", "expires_at", "renewable", "bound", "readable", "store",
    }  # fmt: skip
    assert (listed["server"], listed["scopes"], listed["renewable"], listed["bound"]) == (
        there.url, ["notes:read"], True, True,
    )  # fmt: skip
    status, out, _ = run("logout", there.url, "--json")
    assert (status, json.loads(out)["revoked"]) == (0, True)


def test_a_token_on_the_command_line_wins(run: Terminal, there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    signed_in(run, there)
    bob = there.authorization.issue("bob", audience=there.url)
    assert run("call", there.url, "me", "--token", bob)[:2] == (0, "bob\n")
    monkeypatch.setenv("GARRISON_TOKEN", bob)
    assert run("call", there.url, "me")[:2] == (0, "bob\n")
    assert run("call", there.url, "me", "--token", bob + "x")[0] == 6
    monkeypatch.delenv("GARRISON_TOKEN")
    assert run("call", there.url, "me")[:2] == (0, "alice\n")


def open_to_all() -> Server:
    server = Server("open", policy=SecurityPolicy(dangerously_allow_unauthenticated="a test"))
    server.tool("me")(lambda: "nobody")
    return server


def test_no_store_is_opened_for_a_server_that_asks_for_nothing(
    run: Terminal, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in(run, there)
    opened: list[str] = []

    def noted(option: str | None) -> Iterator[CredentialStore]:
        opened.append("opened")
        return stores(option)

    stores = signins.stores
    monkeypatch.setattr(signins, "stores", noted)
    with served_alone(open_to_all()) as url:
        assert run("call", url, "me")[:2] == (0, "nobody\n")
    token = there.authorization.issue("bob", audience=there.url)
    assert run("call", there.url, "me", "--token", token)[0] == 0
    assert not opened
    assert run("call", there.url, "me")[0] == 0 and opened


def ended(run: Terminal, **changes: Any) -> None:
    """Have the kept token end."""
    key, tokens = run.tokens()
    run.store.save(key, encode_tokens(replace(tokens, expires_at=time.time() - 60, **changes)))


def test_an_ended_token_is_renewed_without_a_page(run: Terminal, there: Place) -> None:
    signed_in(run, there)
    _, before = run.tokens()
    ended(run)
    assert "renewed at the next use" in run("whoami")[1]
    assert run("call", there.url, "me")[:2] == (0, "alice\n")
    assert run.tokens()[1].access_token != before.access_token
    assert "in 5 min" in run("whoami")[1] and len(there.pages) == 1


def test_where_it_cannot_be_renewed_no_page_opens(run: Terminal, there: Place) -> None:
    signed_in(run, there)
    ended(run, refresh_token=None, access_token=Secret("ended"))
    assert re.search(r"ended 6\d s ago", run("whoami")[1])
    status, out, err = run("call", there.url, "me")
    assert status == 6 and out == "" and f"garrison login {there.url}" in err and err.count("\n") == 1
    assert len(there.pages) == 1
    assert run("login", there.url)[0] == 0, "the client is known"
    assert run("call", there.url, "me")[0] == 0


def test_further_scopes_are_named_and_asked_for_by_a_login_only(run: Terminal, there: Place) -> None:
    signed_in(run, there)
    status, out, err = run("call", there.url, "write", "text=x")
    assert status == 6 and out == "" and len(there.pages) == 1
    words = err.strip().partition("sign in with them: garrison ")[2].split()
    assert words == ["login", there.url, "--scope", "notes:read", "--scope", "notes:write"]
    assert run(*words)[0] == 0
    assert run("call", there.url, "write", "text=x")[:2] == (0, "wrote x\n")
    assert run.tokens()[1].scopes == {"notes:read", "notes:write"}


def test_accounts_are_apart(run: Terminal, there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    signed_in(run, there)
    monkeypatch.setattr("garrison.cli.login.open_browser", there.person("bob"))
    signed_in(run, there, "--account", "work")
    assert run("call", there.url, "me")[1] == "alice\n"
    assert run("call", there.url, "me", "--account", "work")[1] == "bob\n"
    status, _, err = run("call", there.url, "me", "--account", "other")
    assert status == 6 and "--account default or --account work" in err
    assert run("logout", there.url)[0] == 0
    assert run("call", there.url, "me", "--account", "work")[1] == "bob\n"
    status, _, err = run("call", there.url, "me")
    assert status == 6 and "--account work" in err


def test_a_new_sign_in_takes_the_place_of_the_old_one(run: Terminal, there: Place) -> None:
    signed_in(run, there)
    old_key, _ = run.tokens()
    run.store.save(replace(old_key, client_id="office"), run.store.load(old_key) or b"")
    status, _, err = run("login", there.url, "--client-id", "desktop")
    assert status == 0 and "client office" in err
    assert run.tokens()[0].client_id == "desktop"


def test_of_several_sign_ins_the_newest_is_used_and_ended(run: Terminal, there: Place) -> None:
    """As other programs of the same person leave them."""
    signed_in(run, there)
    key, tokens = run.tokens()
    older = replace(key, client_id="office")
    run.store.save(older, encode_tokens(replace(tokens, expires_at=time.time() - 60, access_token=Secret("older"))))
    assert run("call", there.url, "me")[:2] == (0, "alice\n")
    assert len(json.loads(run("whoami", "--json")[1])) == 2
    assert run("logout", there.url)[0] == 0
    assert run.kept == [older]


def test_a_view_shows_what_it_is_for() -> None:
    one, two = (CredentialKey("https://auth.example.com", "https://mcp.example.com", name) for name in ("a", "b"))
    key = CredentialKey("https://auth.example.com", kind="key")
    whole = MemoryStore()
    for each in (one, two, key):
        whole.save(each, b"kept")
    view = signins.View(whole, [one])
    assert set(view.keys()) == {one, key}
    assert [view.load(each) for each in (one, two, key)] == [b"kept", None, b"kept"]
    assert not view.delete(two) and whole.load(two) == b"kept"
    view.save(two, b"new")
    assert view.load(two) == whole.load(two) == b"new" and view.delete(two) and whole.load(two) is None


@pytest.mark.parametrize("how", ["environment", "prompt"])
def test_the_secret_of_a_confidential_client(
    how: str, run: Terminal, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["login", there.url, "--client-id", "office"]
    if how == "prompt":
        monkeypatch.setattr("getpass.getpass", lambda *args, **options: SECRET)
        words.append("--ask-client-secret")
    else:
        assert run(*words)[0] == 6
        monkeypatch.setenv("GARRISON_CLIENT_SECRET", SECRET)
    assert run(*words)[0] == 0
    monkeypatch.delenv("GARRISON_CLIENT_SECRET", raising=False)
    ended(run)
    assert run("call", there.url, "me")[:2] == (0, "alice\n")
    assert run("logout", there.url)[0] == 0 and run.store.keys() == ()


def test_a_secret_is_no_word_of_the_command(run: Terminal, there: Place) -> None:
    status, _, err = run("login", there.url, "--client-id", "office", "--client-secret", "x" * 20)
    assert status == 2 and "unrecognized" in err
    status, _, err = run("login", there.url, "--ask-client-secret")
    assert status == 2 and "--client-id" in err


def test_a_client_that_registers_itself_is_asked_for(run: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with place(registration=True) as made:
        monkeypatch.setattr("garrison.cli.login.open_browser", made.person())
        status, _, err = run("login", made.url)
        assert status == 6 and "--client-id" in err and "--allow-dynamic-registration" in err
        assert run("login", made.url, "--allow-dynamic-registration")[0] == 0
        ended(run)
        assert run("call", made.url, "me")[:2] == (0, "alice\n")
        assert run("login", made.url)[0] == 0, "it is registered"
        assert len(made.authorization.asked("register")) == 1
        assert run("logout", made.url)[0] == 0 and run.store.keys() == ()


def test_the_person_says_no(run: Terminal, there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.cli.login.open_browser", there.person(deny=True))
    status, out, err = run("login", there.url, "--client-id", "desktop")
    assert status == 6 and out == "" and "access_denied" in err and "the person said no" in err
    assert not run.kept


def test_a_failed_sign_in_leaves_the_old_one(run: Terminal, there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    signed_in(run, there)
    monkeypatch.setattr("garrison.cli.login.open_browser", there.person(deny=True))
    assert run("login", there.url)[0] == 6
    assert run("call", there.url, "me")[:2] == (0, "alice\n")


def test_a_server_that_wants_no_token_is_nothing_to_sign_in_to(run: Terminal) -> None:
    with served_alone(open_to_all()) as url:
        status, _, err = run("login", url, "--client-id", "desktop")
    assert status == 2 and "asks for no token" in err


@pytest.mark.attack("ATK-217")
@pytest.mark.parametrize("broken", ["refuses", "has no way", "has gone"])
def test_a_revocation_that_fails_is_said_and_the_tokens_are_deleted(
    broken: str, run: Terminal, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed_in(run, there)
    if broken == "refuses":
        there.authorization.fail("revoke", status=503, times=9)
    elif broken == "has no way":
        there.authorization.metadata["revocation_endpoint"] = None
    else:
        key, _ = run.tokens()
        gone = replace(key, issuer="http://127.0.0.1:9")
        run.store.save(gone, run.store.load(key) or b"")
        run.store.save(CredentialKey(gone.issuer, kind="key"), run.store.load(replace_key(key)) or b"")
        run.store.delete(key)
    status, out, err = run("logout", there.url)
    assert status == 1 and out == f"Signed out of {there.url}: its tokens are deleted here\n"
    assert "revoke" in err
    assert not run.kept


def replace_key(key: CredentialKey) -> CredentialKey:
    """Where the DPoP key of a token is."""
    return CredentialKey(key.issuer, account=key.account, kind="key")


def test_a_token_whose_key_is_lost_is_deleted_all_the_same(run: Terminal, there: Place) -> None:
    signed_in(run, there)
    key, _ = run.tokens()
    run.store.delete(replace_key(key))
    status, _, err = run("logout", there.url)
    assert status == 1 and "not revoked" in err and not there.authorization.asked("revoke")
    assert run.store.keys() == ()


def test_an_entry_that_is_damaged_is_shown_and_can_be_ended(run: Terminal, there: Place) -> None:
    signed_in(run, there)
    key, _ = run.tokens()
    run.store.save(key, b"{}")
    status, out, _ = run("whoami")
    assert status == 0 and "not readable" in out
    assert json.loads(run("whoami", "--json")[1])[0]["readable"] is False
    assert run("logout", there.url)[0] == 1
    assert run.store.keys() == ()


def test_nowhere_to_keep_tokens_is_an_error_before_any_page(
    run: Terminal, there: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GARRISON_STORE_KEY")
    status, _, err = run("login", there.url, "--client-id", "desktop")
    assert status == 6 and "GARRISON_STORE_PASSPHRASE" in err and not there.pages
    monkeypatch.setenv("GARRISON_STORE", "attic")
    status, _, err = run("login", there.url, "--client-id", "desktop")
    assert status == 2 and "keyring or file" in err
    monkeypatch.setenv("GARRISON_STORE", "file")
    monkeypatch.setenv("GARRISON_STORE_KEY", "zz")
    assert run("login", there.url, "--client-id", "desktop")[0] == 2


def test_a_file_that_is_locked_is_said(run: Terminal, there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    signed_in(run, there)
    monkeypatch.delenv("GARRISON_STORE_KEY")
    for words in (("call", there.url, "me"), ("whoami",), ("logout", there.url)):
        status, out, err = run(*words)
        assert status == 6 and out == "" and "is locked" in err and "GARRISON_STORE_PASSPHRASE" in err
    monkeypatch.setenv("GARRISON_STORE_KEY", "cd" * 32)
    status, out, err = run("call", there.url, "me")
    assert status == 6 and out == "" and "wrong" in err


def test_a_passphrase_is_asked_for_at_a_terminal(run: Terminal, there: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GARRISON_STORE_KEY")
    monkeypatch.setattr("garrison.cli.signins._can_ask", lambda: True)
    answers: list[str] = []
    monkeypatch.setattr("getpass.getpass", lambda *args, **options: answers.pop(0))
    answers[:] = ["one of twelve characters", "another"]
    status, _, err = run("login", there.url, "--client-id", "desktop")
    assert status == 2 and "differ" in err
    answers[:] = ["short", "short"]
    assert run("login", there.url, "--client-id", "desktop")[0] == 2
    answers[:] = ["one of twelve characters"] * 2
    assert run("login", there.url, "--client-id", "desktop")[0] == 0
    answers[:] = ["one of twelve characters"]
    assert run("call", there.url, "me")[:2] == (0, "alice\n")
    assert not answers and not there.pages[1:]


def test_a_sign_in_goes_to_no_other_server(run: Terminal, there: Place) -> None:
    signed_in(run, there)
    with place() as other:
        status, out, err = run("call", other.url, "me")
        assert status == 6 and out == "" and f"garrison login {other.url}" in err
        assert all("authorization" not in request.headers for request in other.authorization.requests)


def test_the_wrong_words(run: Terminal) -> None:
    for words in (
        ["login"],
        ["login", "http://example.com/mcp"],
        ["login", "ftp://x/"],
        ["login", "https://example.com/mcp", "--timeout", "0"],
        ["login", "https://example.com/mcp", "--store", "memory"],
        ["login", "https://example.com/mcp", "--client-metadata-url", "http://example.com/"],
        ["call", "server.py", "x", "--account", "work"],
    ):
        status, out, err = run(*words)
        assert status == 2 and out == "" and err, words


def test_the_page_is_followed_by_a_person(there: Place) -> None:
    """The helper of these tests is a real user agent: what it is given is a code."""
    url = (
        f"{there.authorization.issuer}/authorize?response_type=code&client_id=desktop"
        f"&redirect_uri=http%3A%2F%2F127.0.0.1%2Fcallback&state=s&code_challenge={'x' * 43}"
        f"&code_challenge_method=S256&resource={there.url}"
    )
    address = consented(url)
    assert address.startswith("http://127.0.0.1/callback?") and "code=" in address
