"""The encrypted file: who may touch it, what opens it, and what is left of it when something goes wrong."""

from __future__ import annotations

import base64
import errno
import json
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from garrison import ConfigurationError
from garrison.auth.store import FileStore, StoreError
from garrison.auth.store.sealing import Keyholder
from garrison.auth.tokens import CredentialKey
from garrison.policy.secret import Secret

from .conftest import DEFAULT_COST, KEY, A, B

CANARY = b"canary-refresh-token-7f3a"
PASSPHRASE = Secret("correct horse battery staple")
SOURCES = str(Path(__file__).resolve().parents[3] / "src")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the file store is for POSIX")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store" / "credentials"


@pytest.fixture
def store(path: Path) -> FileStore:
    return FileStore(path, KEY)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def spellings(secret: bytes) -> list[bytes]:
    """A secret as it could stand in a file."""
    encoded = [base64.b64encode(b"x" * shift + secret)[4:-4] for shift in range(3)]
    return [secret, secret.hex().encode(), secret[::-1], secret.decode().encode("utf-16-le"), *encoded]


def holders(top: Path, secret: bytes) -> list[str]:
    """The files below a folder that have a secret in them or in their names."""
    forms = spellings(secret)
    found = [
        place
        for folder, _, names in os.walk(top)
        for place in (os.path.join(folder, name) for name in names)
        if any(form in os.fsencode(place) or form in Path(place).read_bytes() for form in forms)
    ]
    return sorted(found)


# Who may touch it


@pytest.mark.attack("ATK-265")
@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o027])
def test_modes_do_not_depend_on_the_umask(tmp_path: Path, umask: int) -> None:
    path = tmp_path / "made" / "store" / "credentials"
    before = os.umask(umask)
    try:
        store = FileStore(path, KEY)
        with store.lock(A):
            store.save(A, b"value")
    finally:
        os.umask(before)
    assert mode(path.parent) == mode(path.parent.parent) == 0o700
    assert {mode(file) for file in path.parent.iterdir()} == {0o600}
    assert store.load(A) == b"value"


@pytest.mark.attack("ATK-265")
@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o602, 0o610])
def test_a_file_that_others_could_touch_is_refused(store: FileStore, path: Path, bits: int) -> None:
    store.save(A, b"value")
    path.chmod(bits)
    for use in (lambda: store.load(A), lambda: store.save(A, b"new"), lambda: store.delete(A), store.keys):
        with pytest.raises(StoreError, match="chmod 600"):
            use()
    path.chmod(0o600)
    assert store.load(A) == b"value"


@pytest.mark.attack("ATK-265")
@pytest.mark.parametrize(("bits", "taken"), [(0o700, True), (0o755, True), (0o770, False), (0o702, False)])
def test_a_folder_that_others_can_write_to_is_refused(store: FileStore, path: Path, bits: int, taken: bool) -> None:
    path.parent.mkdir()
    path.parent.chmod(bits)
    if taken:
        store.save(A, b"value")
        assert store.load(A) == b"value"
        return
    for use in (lambda: store.load(A), lambda: store.save(A, b"new"), lambda: store.lock(A).__enter__()):
        with pytest.raises(StoreError, match="chmod 700"):
            use()
    assert list(path.parent.iterdir()) == []


@pytest.mark.attack("ATK-265")
def test_a_folder_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("other")
    store = FileStore(tmp_path / "link" / "credentials", KEY)
    for use in (lambda: store.load(A), lambda: store.save(A, b"value"), lambda: store.lock(A).__enter__()):
        with pytest.raises(StoreError, match="symbolic link"):
            use()
    assert list((tmp_path / "other").iterdir()) == []
    FileStore(tmp_path / "other" / "credentials", KEY).save(A, b"value")


@pytest.mark.attack("ATK-265")
@pytest.mark.parametrize("name", ["credentials", "credentials.lock", "credentials.new"])
def test_a_link_in_the_folder_is_never_followed(store: FileStore, path: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    victim.chmod(0o600)
    path.parent.mkdir(mode=0o700)
    (path.parent / name).symlink_to(victim)
    if name == "credentials.new":  # nobody's file by now: it is put away
        store.save(A, b"value")
        assert store.load(A) == b"value"
    else:
        with pytest.raises(StoreError, match="symbolic link"):
            store.save(A, b"value")
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_refused_at_once(store: FileStore, path: Path, kind: str) -> None:
    path.parent.mkdir(mode=0o700)
    if kind == "pipe":
        os.mkfifo(path, 0o600)
    else:
        path.mkdir(mode=0o700)
    for use in (lambda: store.load(A), lambda: store.save(A, b"value")):
        with pytest.raises(StoreError, match="not a regular file"):
            use()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away")
@pytest.mark.parametrize("which", ["file", "folder"])
def test_what_belongs_to_another_user_is_refused(store: FileStore, path: Path, which: str) -> None:
    store.save(A, b"value")
    os.chown(path if which == "file" else path.parent, 12345, -1)
    with pytest.raises(StoreError, match="another user"):
        store.load(A)
    os.chown(path if which == "file" else path.parent, os.geteuid(), -1)
    assert store.load(A) == b"value"


def test_looking_makes_nothing(store: FileStore, path: Path) -> None:
    assert (store.load(A), store.keys(), store.delete(A)) == (None, (), False)
    assert not path.parent.exists()


def test_no_descriptor_is_left_open(store: FileStore, path: Path) -> None:
    store.save(A, b"value")

    def count() -> int:
        return len(os.listdir("/dev/fd"))

    before = count()
    for bits in (0o600, 0o644):
        path.chmod(bits)
        for _ in range(3):
            try:
                with store.lock(A):
                    store.save(A, b"value")
            except StoreError:
                pass
    path.unlink()
    path.mkdir()
    path.with_name("credentials.lock").chmod(0o644)
    for use in (lambda: store.load(A), lambda: FileStore(path, KEY)._changing().__enter__()):
        with pytest.raises(StoreError, match=r"regular file|chmod 600"):
            use()
    path.parent.chmod(0o777)
    with pytest.raises(StoreError, match="chmod 700"):
        store.load(A)
    assert count() == before


# What is on the disk


@pytest.mark.attack("ATK-264")
def test_nothing_on_the_disk_says_what_is_kept_or_for_whom(home: Path) -> None:
    plain = home / "plain"
    plain.write_bytes(CANARY)
    assert holders(home, CANARY) == [str(plain)]  # the search finds what is there
    plain.unlink()
    store = FileStore(home / "store" / "credentials", PASSPHRASE)
    key = CredentialKey(
        "https://canary-issuer.example", "https://canary-resource.example", "canary-client", "canary-me"
    )
    with store.lock(key):
        store.save(key, CANARY)
        store.save(A, CANARY)
        store.delete(A)
    assert store.load(key) == CANARY
    assert [len(list(home.rglob("credentials"))), holders(home, CANARY)] == [1, []]
    for word in (b"canary-issuer", b"canary-resource", b"canary-client", b"canary-me", PASSPHRASE.reveal().encode()):
        assert holders(home, word) == []


def test_lengths_do_not_say_which_server_it_is(store: FileStore, path: Path) -> None:
    for issuer in ("https://a.example", "https://a-much-longer-name.example"):
        store.save(CredentialKey(issuer), b"value")
    entries = json.loads(path.read_bytes())["entries"]
    assert len({len(entry["name"]) for entry in entries}) == 1


def test_the_same_value_is_never_sealed_the_same_way(store: FileStore, path: Path) -> None:
    seen: set[str] = set()
    for _ in range(5):
        store.save(A, b"value")
        (entry,) = json.loads(path.read_bytes())["entries"]
        seen |= {entry["name"][:16], entry["value"][:16], entry["value"]}
    assert len(seen) == 15


# What opens it


def test_another_store_with_the_same_key_opens_it(path: Path) -> None:
    FileStore(path, PASSPHRASE).save(A, b"value")
    assert FileStore(path, Secret(PASSPHRASE.reveal())).load(A) == b"value"


def test_a_passphrase_is_the_same_however_its_letters_are_composed(path: Path) -> None:
    FileStore(path, Secret("pass\u00e9-phrase-long")).save(A, b"value")
    assert FileStore(path, Secret("passe\u0301-phrase-long")).load(A) == b"value"


@pytest.mark.parametrize(
    ("made", "given", "says"),
    [
        (KEY, bytes(32), "key or passphrase is wrong"),
        (PASSPHRASE, Secret("correct horse battery stable"), "key or passphrase is wrong"),
        (PASSPHRASE, KEY, "made with a passphrase"),
        (KEY, PASSPHRASE, "made with a key"),
    ],
    ids=["key", "passphrase", "key for passphrase", "passphrase for key"],
)
def test_a_wrong_key_is_said_and_changes_nothing(
    path: Path, made: bytes | Secret, given: bytes | Secret, says: str
) -> None:
    FileStore(path, made).save(A, b"value")
    before, other = path.read_bytes(), FileStore(path, given)
    for use in (lambda: other.load(A), lambda: other.save(A, b"new"), lambda: other.delete(A), other.keys):
        with pytest.raises(StoreError, match=says) as caught:
            use()
        assert "horse" not in str(caught.value)
    assert path.read_bytes() == before
    assert FileStore(path, made).load(A) == b"value"


@pytest.mark.parametrize("key", [b"", b"short", bytes(33), Secret("eleven char"), "a" * 32, bytearray(32)], ids=repr)
def test_a_weak_key_is_no_key(path: Path, key: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:
        FileStore(path, key)
    assert "eleven" not in str(caught.value)


@pytest.mark.attack("ATK-267")
@pytest.mark.parametrize("part", ["name", "value", "both"])
def test_swapped_entries(store: FileStore, path: Path, part: str) -> None:
    store.save(A, b"token of a")
    store.save(B, b"token of b")
    file = json.loads(path.read_bytes())
    one, two = file["entries"]
    for member in ("name", "value") if part == "both" else (part,):
        one[member], two[member] = two[member], one[member]
    path.write_bytes(json.dumps(file).encode())
    if part == "both":  # only their order changed
        assert (store.load(A), store.load(B)) == (b"token of a", b"token of b")
        return
    for key in (A, B):
        with pytest.raises(StoreError, match="changed or moved; delete it and log in again"):
            store.load(key)
        with pytest.raises(StoreError):
            store.save(key, b"new")  # not written over in silence
    before = json.loads(path.read_bytes())["entries"]
    store.save(CredentialKey("https://c.example"), b"token of c")  # the others are carried on as they are
    assert json.loads(path.read_bytes())["entries"][:2] == before
    assert store.delete(A) is True
    store.save(A, b"after a new login")
    assert store.load(A) == b"after a new login"


@pytest.mark.attack("ATK-267")
def test_entries_of_another_file_with_the_same_key_and_doubles(store: FileStore, path: Path, tmp_path: Path) -> None:
    store.save(A, b"mine")
    FileStore(tmp_path / "other" / "credentials", KEY).save(A, b"theirs")
    mine, theirs = (json.loads(file.read_bytes()) for file in (path, tmp_path / "other" / "credentials"))
    for entries in (theirs["entries"], mine["entries"] * 2, mine["entries"] + theirs["entries"]):
        path.write_bytes(json.dumps({**mine, "entries": entries}).encode())
        with pytest.raises(StoreError, match="damaged or changed"):
            store.load(A)
    path.write_bytes(json.dumps(mine).encode())
    assert store.load(A) == b"mine"


def test_a_file_that_is_too_large_is_not_read_to_its_end(store: FileStore, path: Path) -> None:
    store.save(A, b"value")
    whole = path.read_bytes()
    path.write_bytes(whole + b" " * (4 * 1024 * 1024 - len(whole)))  # white space does not count, but its length does
    assert store.load(A) == b"value"
    with path.open("ab") as file:
        file.write(b" ")
    with pytest.raises(StoreError, match="larger than 4096 KiB"):
        store.load(A)


def test_a_seal_opens_for_its_purpose_only() -> None:
    holder = Keyholder(KEY)
    seals = holder.seals(holder.new_header(), "file")
    for made in ("check", "name", "value"):
        seal = seals.close(made, b"plain", b"bound")
        for used in ("check", "name", "value"):
            assert seals.open(used, seal, b"bound") == (b"plain" if used == made else None)
        assert seals.open(made, seal) is None
    other = holder.seals(holder.new_header(), "file")
    assert other.open("value", seals.close("value", b"plain")) is None


# What is left when something goes wrong


def changed(whole: bytes) -> Iterator[bytes]:
    """Files that somebody, or a failing disk, made of a good one."""
    file = json.loads(whole)
    yield b""
    yield b"{}"
    yield b"null"
    yield whole[:-1]
    yield whole + b"x"
    yield whole.replace(b'"version":1', b'"version":2')
    yield whole.replace(b'"header":', b'"header":{},"header":')
    yield json.dumps({**file, "more": 1}).encode()
    yield json.dumps({**file, "header": {**file["header"], "salt": ""}}).encode()
    yield json.dumps({**file, "header": {**file["header"], "salt": base64.b64encode(bytes(16)).decode()}}).encode()
    yield json.dumps({**file, "header": {**file["header"], "cost": 1}}).encode()
    yield json.dumps({**file, "check": ""}).encode()
    yield json.dumps({**file, "entries": [{"name": "", "value": ""}]}).encode()
    yield json.dumps({**file, "entries": file["entries"] * 2000}).encode()


def test_a_damaged_file_is_an_error_and_stays_as_it_is(store: FileStore, path: Path) -> None:
    store.save(A, b"value")
    whole = path.read_bytes()
    for data in changed(whole):
        path.write_bytes(data)
        for use in (lambda: store.load(A), lambda: store.save(A, b"new"), lambda: store.delete(A), store.keys):
            with pytest.raises(StoreError):
                use()
        assert path.read_bytes() == data
    path.write_bytes(whole)
    assert store.load(A) == b"value"


def test_every_changed_byte_is_noticed(store: FileStore, path: Path) -> None:
    store.save(A, b"value")
    whole = path.read_bytes()
    for index in range(len(whole)):
        if whole[index + 1 : index + 2] == b"=":  # its last bits are not part of what is encoded
            continue
        path.write_bytes(whole[:index] + bytes([whole[index] ^ 1]) + whole[index + 1 :])
        with pytest.raises(StoreError):
            store.load(A)


def test_a_passphrase_is_stretched_as_is_recommended(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.auth.store.sealing._COST", DEFAULT_COST)
    FileStore(path, PASSPHRASE).save(A, b"value")
    assert json.loads(path.read_bytes())["header"]["cost"] == 17  # OWASP: N = 2^17, r = 8, p = 1
    assert FileStore(path, PASSPHRASE).load(A) == b"value"


def test_unreasonable_work_is_not_done(path: Path) -> None:
    FileStore(path, PASSPHRASE).save(A, b"value")
    file = json.loads(path.read_bytes())
    for cost in (0, 1, 14, 20, 30, 10**6, -1):
        file["header"]["cost"] = cost
        path.write_bytes(json.dumps(file).encode())
        with pytest.raises(StoreError, match="unreasonable"):
            FileStore(path, PASSPHRASE).load(A)


def test_a_refusal_is_a_security_event(store: FileStore, path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store.save(A, b"value")
    assert caplog.records == []
    path.write_bytes(b"{}")
    with pytest.raises(StoreError):
        store.load(A)
    (event,) = caplog.records
    assert (event.name, event.__dict__["event"]) == ("garrison.security", "credentials.refused")
    assert str(path) in event.getMessage()


@pytest.mark.attack("ATK-266")
@pytest.mark.parametrize("call", ["write", "fsync", "replace", "fchmod"])
def test_a_full_disk_leaves_the_old_version(
    store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    store.save(A, b"old")
    before = path.read_bytes()

    def full(*arguments: object, **keywords: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StoreError, match="No space left"):
            store.save(A, CANARY)
        with pytest.raises(StoreError, match="No space left"):
            store.delete(A)
    assert path.read_bytes() == before
    assert not path.with_name("credentials.new").exists()
    store.save(A, b"new")
    assert store.load(A) == b"new"


@pytest.mark.attack("ATK-266")
def test_a_write_that_is_cut_short_is_continued(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, data: write(descriptor, bytes(data)[:100]))
        store.save(A, b"value" * 100)
    assert store.load(A) == b"value" * 100


ROTATE = """
import sys
from garrison.auth.store import FileStore
from garrison.auth.tokens import CredentialKey
store = FileStore(sys.argv[1], bytes(range(32)))
key = CredentialKey("https://a.example", "https://mcp.a.example", "client-a")
store.load(key)
print("ready", flush=True)
number = int(sys.argv[2])
while True:
    number += 1
    store.save(key, b"canary-refresh-token-7f3a %d " % number + b"x" * 20_000)
"""

COUNT = """
import sys
from garrison.auth.store import FileStore
from garrison.auth.tokens import CredentialKey
store, key = FileStore(sys.argv[1], bytes(range(32))), CredentialKey("https://a.example")
for index in range(20):
    with store.lock(key):
        store.save(key, b"%d" % (int(store.load(key) or b"0") + 1))
    store.save(CredentialKey("https://" + sys.argv[2], account=str(index)), b"mine")
"""


def program(text: str, *arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", text, *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": SOURCES}, stdout=subprocess.PIPE)


@pytest.mark.attack("ATK-266")
def test_a_program_that_is_killed_leaves_the_old_or_the_new_version(store: FileStore, path: Path) -> None:
    store.save(A, CANARY + b" 0 " + b"x" * 20_000)
    number, moved = 0, 0
    chance = random.Random(7)
    for _ in range(20):
        with program(ROTATE, path, number) as rotating:
            assert rotating.stdout is not None and rotating.stdout.readline() == b"ready\n"
            time.sleep(chance.uniform(0, 0.03))
            rotating.kill()
        value = store.load(A) or b""
        token, count, rest = value.split(b" ")
        assert (token, rest) == (CANARY, b"x" * 20_000)
        assert int(count) >= number
        moved += int(count) > number
        number = int(count)
        assert store.keys() == (A,)
        assert holders(path.parent, CANARY) == []
        assert len(list(path.parent.iterdir())) <= 3  # the file, its lock, and at most one that was being written
    assert moved > 3  # the kills came in the middle of work
    store.save(A, b"after")
    assert sorted(file.name for file in path.parent.iterdir()) == ["credentials", "credentials.lock"]


@pytest.mark.attack("ATK-265")
def test_programs_that_write_at_once_lose_nothing(store: FileStore, path: Path) -> None:
    running = [program(COUNT, path, name) for name in ("a", "b", "c")]
    for each in running:
        with each:
            assert each.wait(30) == 0
    assert store.load(CredentialKey("https://a.example")) == b"60"
    assert len(store.keys()) == 61


def test_a_lock_ends_with_the_program_that_held_it(store: FileStore, path: Path) -> None:
    text = ROTATE.replace("number = int(sys.argv[2])", "store.lock(key).__enter__(); print('held', flush=True)")
    text = text[: text.index("while")] + "import time; time.sleep(60)\n"
    text = text.replace("store.lock(key).__enter__()", "held = store.lock(key); held.__enter__()")
    with program(text, path) as holding:
        assert holding.stdout is not None
        assert [holding.stdout.readline(), holding.stdout.readline()] == [b"ready\n", b"held\n"]
        holding.kill()
    begun = time.monotonic()
    with store.lock(A):
        assert time.monotonic() - begun < 1


def test_a_file_has_an_end(store: FileStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("garrison.auth.store.sealing._MOST_ENTRIES", 2)
    store.save(A, b"value")
    store.save(B, b"value")
    with pytest.raises(StoreError, match="2 entries are the most"):
        store.save(CredentialKey("https://c.example"), b"value")
    store.save(A, b"new")
    assert (store.load(A), store.load(B)) == (b"new", b"value")
    monkeypatch.setattr("garrison.auth.store.sealing.MAX_FILE_BYTES", 1_000)
    with pytest.raises(StoreError, match="are the most"):
        store.save(A, b"value" * 500)
    assert store.load(A) == b"new"
