"""`SafeRoot`: the files below one directory, and no others, whatever a path says and whatever becomes of the tree.

    docs = SafeRoot("docs")
    docs.read_text("guide/start.md")

Rules of this file:
- A file is opened below the directory in one step (`openat`), and judged by its descriptor. No path is resolved first
  and opened then.
- Only regular files and directories are had. What is refused and what is absent look the same (`files`).
- Bytes, entries and depth are bounded, and counted while they are read.
- An open directory lives as long as the last call that uses it: no call ever meets another's descriptor.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

from ..errors import ConfigurationError
from . import writing
from .files import NO_SUCH_FILE, FileInfo, PathRefused, Rule, SafeFile, refused
from .globs import Glob, is_pattern
from .openat import ABOUT, LIST, READ, opener
from .paths import SafePath, broken_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from types import TracebackType
    from typing import Self

    from ..gate.untrusted import Untrusted

    _Listing = list[FileInfo]
    _Entries = list[tuple[FileInfo, bool]]

__all__ = ["SafeRoot"]

_MIB: Final = 1024 * 1024
_CHUNK: Final = 65_536

_SYMLINK: Final = Rule("a symbolic link", "SafeRoot.follow")
_LOOP: Final = Rule("more symbolic links than are followed")
_OUTSIDE: Final = Rule("a way out of the root, or onto another device or mount")
_RESTLESS: Final = Rule("a tree that changes while it is walked")
_SPECIAL: Final = Rule("a FIFO, socket or device")
_DENIED: Final = Rule("what the system does not permit")
_HARD_LINK: Final = Rule("a file with more than one name", "SafeRoot.hard_links")
_TOO_LARGE: Final = Rule("more bytes than a file may have", "SafeRoot.max_bytes")
_TOO_MANY: Final = Rule("more entries than are looked at", "SafeRoot.max_entries")
_LINK_ITSELF: Final = Rule("a change of a symbolic link")
_READ_ONLY: Final = Rule("a change", "SafeRoot.write")
_TWIN: Final = Rule("a new name that differs from another only by case or by Unicode form")

_RULES: Final = {
    errno.EXDEV: _OUTSIDE,
    errno.EBUSY: _OUTSIDE,
    errno.EAGAIN: _RESTLESS,
    errno.ENXIO: _SPECIAL,
    errno.ENODEV: _SPECIAL,
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
}
_ABSENT: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.EILSEQ, errno.ESTALE})
_PLAIN_WORDS: Final = {
    errno.EISDIR: "is a directory",
    errno.EEXIST: "exists already",
    errno.ENOTEMPTY: "is not empty",
    errno.EINVAL: "cannot be moved there",
}
"""What may be said of what lies below the root."""


class _Directory:
    """A descriptor that is closed when nobody has this object any more."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.number)


class _Count:
    """Entries that may still be looked at."""

    __slots__ = ("left",)

    def __init__(self, most: int) -> None:
        self.left = most


class SafeRoot:
    """The files below a directory.

    Args:
        path: the directory. It is opened here, and stays the same one when it is renamed or another takes its name.
        write: files may be written, renamed and removed as well.
        follow: `"never"` refuses symbolic links; `"within"` follows those that lead to something below the root.
        hard_links: files with more than one name may be had: another name may lie outside the root.
        max_bytes: most bytes of a file, read or written.
        max_entries: most entries that one listing, walk or glob looks at, and that a directory may be filled up to.
        max_depth: how many directories deep a walk or glob goes; what is deeper is left out.

    Raises:
        ConfigurationError: there is no such directory, an argument is not of its form, or the system is Windows.

    Every path is a `SafePath` or its text. All methods block, and may be called from any thread. Every one that takes a
    path raises `PathRefused`, a `ToolError`: with one text for all that is absent or refused, and with plain words for
    what lies below the root but does not fit (a directory, too large, exists already). Errors of the machine, as a full
    disk, are `OSError`. On a closed root all raise `ValueError`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        write: bool = False,
        follow: Literal["never", "within"] = "never",
        hard_links: bool = False,
        max_bytes: int = 4 * _MIB,
        max_entries: int = 10_000,
        max_depth: int = 32,
    ) -> None:
        if follow not in ("never", "within"):
            raise ConfigurationError('SafeRoot.follow must be "never" or "within"')
        for name, value in (("max_bytes", max_bytes), ("max_entries", max_entries), ("max_depth", max_depth)):
            if type(value) is not int or value < 1:
                raise ConfigurationError(f"SafeRoot.{name} must be a positive integer")
        self._name = os.fspath(path)
        try:
            directory = _Directory(os.open(path, LIST))
        except OSError as exc:
            raise ConfigurationError(f"SafeRoot: {self._name}: {exc.strerror}") from None
        self._directory: _Directory | None = directory
        self._opener = opener(directory.number, follow=follow == "within")
        self._link = _LOOP if follow == "within" else _SYMLINK
        self._write = write
        self._hard_links = hard_links
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._max_depth = max_depth
        self._changing = threading.Lock()
        """Held while a name is looked for and then made."""

    def __repr__(self) -> str:
        return f"SafeRoot({self._name!r}{', write=True' if self._write else ''})"

    def close(self) -> None:
        """End the use of this root; calls under way end as they would."""
        self._directory = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Reading

    def read_bytes(self, path: str | SafePath) -> bytes:
        """The content of a file."""
        descriptor, about = self._file(self._text(path))
        try:
            return self._content(descriptor, about.st_size)
        finally:
            os.close(descriptor)

    def read_text(self, path: str | SafePath, encoding: str = "utf-8", errors: str = "strict") -> str:
        """The content of a file as text; line ends stay as they are. `PathRefused` also says that it is no such text.

        Args:
            path: which.
            encoding, errors: as of `bytes.decode`.
        """
        try:
            return self.read_bytes(path).decode(encoding, errors)
        except UnicodeDecodeError:
            raise PathRefused(f"is not {encoding} text") from None

    def read_untrusted(self, path: str | SafePath, encoding: str = "utf-8", errors: str = "strict") -> Untrusted[str]:
        """The content of a file as text that says where it comes from: `file:` and the path. As `read_text`."""
        from ..gate.untrusted import Untrusted

        return Untrusted(self.read_text(path, encoding, errors), source=f"file:{path}")

    def open(self, path: str | SafePath) -> SafeFile:
        """A file to read from, as a binary file and context manager. Close it."""
        text = self._text(path)
        descriptor, about = self._file(text)
        return SafeFile.of(descriptor, _info(text, about), self._max_bytes, self._too_large)

    def info(self, path: str | SafePath) -> FileInfo:
        """What a file or directory is."""
        text = self._text(path)
        descriptor = self._open(text, ABOUT)
        try:
            about = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        self._judge(about)
        return _info(text, about)

    def exists(self, path: str | SafePath) -> bool:
        """Whether there is a file or directory that may be had."""
        try:
            self.info(path)
        except PathRefused:
            return False
        return True

    # Looking around

    def list(self, path: str | SafePath | None = None) -> _Listing:
        """What is in a directory, by name. Without a path: in the root.

        What could not be opened by its name is left out: links and special files, and names that are no `SafePath`.
        """
        text = self._below(path)
        directory = self._open(text, LIST)
        try:
            return [info for info, _ in self._entries(directory, text, _Count(self._max_entries))]
        finally:
            os.close(directory)

    def walk(self, path: str | SafePath | None = None) -> Iterator[FileInfo]:
        """Everything below a directory: what is in it, by name, then what is below each of these. Without a path: below
        the root.

        No directory is entered through a link, and one that is refused is left out. It raises while it is iterated.
        """
        return self._tree(self._below(path), Glob("**"))

    def glob(self, pattern: str) -> Iterator[FileInfo]:
        """What matches a pattern: `*` for any characters of a name, `?` for one, `**` for any number of names.

        Case counts, a leading dot is a character like any other, and there are no brackets. What is in a directory that
        is absent or refused is nothing. Otherwise as `walk`.
        """
        rule = broken_rule(pattern.replace("*", "_").replace("?", "_"))
        if rule:
            raise self._refused(Rule(f"{rule} in a pattern"))
        names = pattern.split("/")
        fixed = 0
        while fixed < len(names) - 1 and not is_pattern(names[fixed]):
            fixed += 1
        return self._tree("/".join(names[:fixed]), Glob("/".join(names[fixed:])), missing_ok=True)

    # Changing

    def write_bytes(self, path: str | SafePath, data: bytes) -> None:
        """Write a file, whole or not at all: who reads it meanwhile has the old content or the new.

        A new file may be read and written by the program's user alone (0600); one that is replaced keeps its permission
        bits. Its directory has to be there. A name that differs from another one in it only by case or by Unicode form
        is refused.
        """
        if len(data) > self._max_bytes:
            raise self._too_large()
        with (
            self._place(path) as (directory, name),
            writing.temporary(directory, data) as (new, descriptor),
            self._changing,
        ):
            old = self._existing(directory, name)
            if old is None:
                self._check_new(directory, name)
            elif stat.S_ISDIR(old.st_mode):
                raise PathRefused("is a directory")
            else:
                os.fchmod(descriptor, old.st_mode & 0o777)
            os.rename(new, name, src_dir_fd=directory, dst_dir_fd=directory)

    def write_text(self, path: str | SafePath, text: str, encoding: str = "utf-8", errors: str = "strict") -> None:
        """Write a file from text; line ends stay as they are. As `write_bytes`."""
        try:
            data = text.encode(encoding, errors)
        except UnicodeEncodeError:
            raise PathRefused(f"is not {encoding} text") from None
        self.write_bytes(path, data)

    def mkdir(self, path: str | SafePath, *, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory, for the program's user alone (0700).

        Args:
            path: which.
            parents: those that it lies in are made as well.
            exist_ok: it may be there already.
        """
        names = self._text(path).split("/")
        for end in range(1 if parents else len(names), len(names) + 1):
            with self._place("/".join(names[:end])) as (directory, name), self._changing:
                old = writing.about(directory, name)
                if old is None:
                    self._check_new(directory, name)
                    os.mkdir(name, 0o700, dir_fd=directory)
                elif end == len(names) and not (exist_ok and stat.S_ISDIR(old.st_mode)):
                    raise PathRefused("exists already")

    def remove(self, path: str | SafePath) -> None:
        """Remove a file."""
        with self._place(path) as (directory, name):
            old = self._existing(directory, name)
            if old is None:
                raise PathRefused(NO_SUCH_FILE)
            if stat.S_ISDIR(old.st_mode):
                raise PathRefused("is a directory")
            os.unlink(name, dir_fd=directory)

    def rmdir(self, path: str | SafePath) -> None:
        """Remove an empty directory."""
        with self._place(path) as (directory, name):
            os.rmdir(name, dir_fd=directory)

    def rename(self, source: str | SafePath, target: str | SafePath) -> None:
        """Give a file or directory another path. Nothing of this program's is replaced: the path has to be free."""
        with self._place(source) as (here, name), self._place(target) as (there, new), self._changing:
            if self._existing(here, name) is None:
                raise PathRefused(NO_SUCH_FILE)
            if writing.about(there, new) is not None:
                raise PathRefused("exists already")
            stays = os.path.samestat(os.fstat(here), os.fstat(there))
            self._check_new(there, new, besides=name if stays else "")
            os.rename(name, new, src_dir_fd=here, dst_dir_fd=there)

    @contextmanager
    def _place(self, path: str | SafePath) -> Generator[tuple[int, str], None, None]:
        """The open directory of what is to be changed, and its name there."""
        text = self._text(path)
        if not self._write:
            raise self._refused(_READ_ONLY, "is read-only (SafeRoot.write)")
        folder, _, name = text.rpartition("/")
        directory = self._open(folder, LIST)
        try:
            yield directory, name
        except OSError as exc:
            raise self._translated(exc) from None
        finally:
            os.close(directory)

    def _existing(self, directory: int, name: str) -> os.stat_result | None:
        """What has a name now, judged; None where nothing has it. What is made anew never goes through it."""
        found = writing.about(directory, name)
        if found is not None:
            self._judge(found)
        return found

    def _check_new(self, directory: int, name: str, *, besides: str = "") -> None:
        """Whether a name may be made: there is room, and no twin of it but the name that it takes the place of."""
        count = _Count(self._max_entries)
        self._take(count)
        same = writing.folded(name)
        for each in writing.names(directory):
            if each != besides:
                self._take(count)
                if writing.folded(each) == same:
                    raise self._refused(_TWIN, "exists already, spelled otherwise")

    # How all of them are done

    def _text(self, path: str | SafePath) -> str:
        if isinstance(path, SafePath):
            return str(path)
        rule = broken_rule(path)
        if rule:
            raise self._refused(Rule(rule))
        return path

    def _below(self, path: str | SafePath | None) -> str:
        return "" if path is None else self._text(path)

    def _open(self, text: str, flags: int) -> int:
        directory = self._directory
        if directory is None:
            raise ValueError("the SafeRoot is closed")
        try:
            return self._opener(directory.number, text.encode() or b".", flags)
        except OSError as exc:
            raise self._translated(exc) from None

    def _file(self, text: str) -> tuple[int, os.stat_result]:
        """A regular file, open for reading."""
        descriptor = self._open(text, READ)
        try:
            about = os.fstat(descriptor)
            self._judge(about)
            if stat.S_ISDIR(about.st_mode):
                raise PathRefused("is a directory")
            if about.st_size > self._max_bytes:
                raise self._too_large()
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor, about

    def _judge(self, about: os.stat_result) -> None:
        """Let directories pass, and regular files."""
        rule = self._broken(about)
        if rule is not None:
            raise self._refused(rule)

    def _broken(self, about: os.stat_result) -> Rule | None:
        if stat.S_ISREG(about.st_mode):
            return _HARD_LINK if about.st_nlink > 1 and not self._hard_links else None
        if stat.S_ISDIR(about.st_mode):
            return None
        return _LINK_ITSELF if stat.S_ISLNK(about.st_mode) else _SPECIAL

    def _content(self, descriptor: int, size: int) -> bytes:
        """All of a file, which may grow or say that it has no size."""
        parts: list[bytes] = []
        total, want = 0, size + 1
        while part := os.read(descriptor, want):
            parts.append(part)
            total += len(part)
            if total > self._max_bytes:
                raise self._too_large()
            want = size + 1 - total if total <= size else _CHUNK
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _entries(self, directory: int, text: str, count: _Count) -> _Entries:
        """What is in an open directory, by name, and whether it is a link; only what could be opened by its name."""
        found: list[tuple[FileInfo, bool]] = []
        with os.scandir(directory) as entries:
            for entry in entries:
                self._take(count)
                path = f"{text}/{entry.name}" if text else entry.name
                if broken_rule(path):
                    continue
                try:
                    about = entry.stat(follow_symlinks=False)
                    is_link = stat.S_ISLNK(about.st_mode)
                    about = self._behind(path) if is_link else about
                except OSError:  # gone since, or a link that leads nowhere
                    continue
                if about is not None and self._broken(about) is None:
                    found.append((_info(path, about), is_link))
        found.sort(key=lambda each: each[0].path)
        return found

    def _tree(self, top: str, glob: Glob, *, missing_ok: bool = False) -> Iterator[FileInfo]:
        """What matches below a directory."""
        count = _Count(self._max_entries)
        waiting = [(top, glob.start, 1)]
        while waiting:
            text, state, depth = waiting.pop()
            try:
                directory = self._open(text, LIST)
            except PathRefused:
                if depth == 1 and not missing_ok:
                    raise
                continue
            try:
                entries = self._entries(directory, text, count)
            finally:
                os.close(directory)
            deeper: list[tuple[str, int, int]] = []
            for info, is_link in entries:
                here = glob.step(state, info.name)
                if glob.is_match(here):
                    yield info
                if info.is_dir and not is_link and depth < self._max_depth:
                    below = glob.step(here, "/")
                    if below:
                        deeper.append((info.path, below, depth + 1))
            waiting += reversed(deeper)

    def _behind(self, path: str) -> os.stat_result | None:
        """What a link leads to; None where links are not followed. Raises `OSError`."""
        if self._link is _SYMLINK or self._directory is None:
            return None
        descriptor = self._opener(self._directory.number, path.encode(), ABOUT)
        try:
            return os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def _take(self, count: _Count) -> None:
        count.left -= 1
        if count.left < 0:
            raise self._refused(_TOO_MANY, f"more than {self._max_entries} entries (SafeRoot.max_entries)")

    def _translated(self, error: OSError) -> Exception:
        """The error of the caller for an error of the system."""
        number = error.errno or 0
        if number in _ABSENT:
            return PathRefused(NO_SUCH_FILE)
        if number in (errno.ELOOP, errno.EMLINK):
            return self._refused(self._link)
        if number in _RULES:
            return self._refused(_RULES[number])
        return PathRefused(_PLAIN_WORDS[number]) if number in _PLAIN_WORDS else error

    def _refused(self, rule: Rule, said: str = NO_SUCH_FILE) -> PathRefused:
        return refused(rule, self._name, said)

    def _too_large(self) -> PathRefused:
        return self._refused(_TOO_LARGE, f"is larger than {self._max_bytes} bytes (SafeRoot.max_bytes)")


def _info(path: str, about: os.stat_result) -> FileInfo:
    is_dir = stat.S_ISDIR(about.st_mode)
    return FileInfo(path, is_dir, 0 if is_dir else about.st_size, about.st_mtime)
