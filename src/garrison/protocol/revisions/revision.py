"""One revision of the protocol as a value: what it knows, and how messages of the newest shape become its own.

Theory of operation: a message is a tree, and each of its objects has a kind: `tool`, `content`, `tools/list`. `PARTS`
says where in one kind the others stand. A revision is its newer neighbour and a table of changes by kind; `older` joins
the two tables once, so that a message is walked once, whatever the distance. Kinds in which nothing changes are not
entered, and what does not change is not copied.

Kinds at the top: a result has its method's name, as have an answer and a notification; a question of a server has
`?` before it, parameters of a client's request have `>` before it. `*`, `?*`, `>*` and `!*` stand for every server
result, question, request and notification, and are changed first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from ..methods import Methods
from .changes import Change, Object, as_list, as_object, in_turn

__all__ = ["PARTS", "Revision"]

PARTS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "initialize": (("serverInfo", "implementation"), ("capabilities", "serverCapabilities")),
    "tools/list": (("tools", "tool"),),
    "tools/call": (("content", "content"),),
    "resources/list": (("resources", "resource"),),
    "resources/templates/list": (("resourceTemplates", "resourceTemplate"),),
    "resources/read": (("contents", "contents"),),
    "prompts/list": (("prompts", "prompt"),),
    "prompts/get": (("messages", "promptMessage"),),
    "roots/list": (("roots", "root"),),
    "sampling/createMessage": (("content", "samplingContent"),),
    "?sampling/createMessage": (("messages", "samplingMessage"), ("tools", "tool")),
    "?elicitation/create": (("requestedSchema", "formSchema"),),
    ">initialize": (("clientInfo", "implementation"), ("capabilities", "clientCapabilities")),
    ">completion/complete": (("ref", "reference"),),
    "tool": (("annotations", "toolAnnotations"),),
    "resource": (("annotations", "annotations"),),
    "resourceTemplate": (("annotations", "annotations"),),
    "prompt": (("arguments", "promptArgument"),),
    "promptMessage": (("content", "content"),),
    "content": (("annotations", "annotations"), ("resource", "contents")),
    "samplingMessage": (("content", "samplingContent"),),
    "samplingContent": (("annotations", "annotations"), ("content", "content")),
}
"""Where the parts of a kind stand: member and kind of the part. A member that holds a list has such parts as items."""

ANSWERS = frozenset({"sampling/createMessage", "elicitation/create", "roots/list"})

Error = tuple[int, str, object]


def _same_error(error: Error) -> Error:
    return error


class Revision(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """A revision. The flags say what it knows; the methods translate and never alter what they are given."""

    version: str
    methods: Methods
    modern: bool = True
    """Stateless: no handshake, no session, capabilities in every request."""
    result_type: bool = True
    """Results carry `resultType`."""
    input_errors_in_result: bool = True
    """Arguments that break a tool's schema are answered with a result with `isError`, not with error -32602."""
    url_elicitation: bool = True
    sampling_tools: bool = True
    icons: bool = True
    elicitation: bool = True
    structured_content: bool = True
    resource_links: bool = True
    titles: bool = True
    audio: bool = True
    batches: bool = False
    changes: Mapping[str, Change] = msgspec.field(default_factory=dict[str, Change])
    upgrades: Mapping[str, Change] = msgspec.field(default_factory=dict[str, Change])
    error_change: Callable[[Error], Error] = _same_error
    error_upgrade: Callable[[Error], Error] = _same_error
    _entered: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return f"Revision({self.version!r})"

    def older(
        self,
        version: str,
        *,
        methods: Methods | None = None,
        changes: Mapping[str, Change] | None = None,
        upgrades: Mapping[str, Change] | None = None,
        error_change: Callable[[Error], Error] | None = None,
        error_upgrade: Callable[[Error], Error] | None = None,
        **flags: bool,
    ) -> Revision:
        """The revision before this one, given as what differs.

        Args:
            version: its date.
            methods: its tables; this revision's when not given.
            changes: by kind, from this revision's shape to the older.
            upgrades: by kind at the top, from the older shape to this revision's.
            error_change: code, message and data of an error, from this revision's to the older.
            error_upgrade: the other way.
            flags: those that differ.
        """
        joined = dict(self.changes)
        for kind, change in (changes or {}).items():
            joined[kind] = in_turn(joined[kind], change) if kind in joined else change
        raised = dict(self.upgrades)
        for kind, change in (upgrades or {}).items():
            raised[kind] = in_turn(change, raised[kind]) if kind in raised else change
        return msgspec.structs.replace(
            self,
            version=version,
            methods=methods or self.methods,
            changes=joined,
            upgrades=raised,
            error_change=error_change or self.error_change,
            error_upgrade=error_upgrade or self.error_upgrade,
            _entered=_entered(joined),
            **flags,
        )

    def result(self, method: str, result: Object) -> Object:
        """A result, or a client's answer, of the newest shape in this revision's.

        Args:
            method: of the request it answers.
            result: as `types.to_dict` makes it.
        """
        every = None if method in ANSWERS else self.changes.get("*")
        return self._walk(method, every(result) if every else result)

    def request(self, method: str, params: Object) -> Object:
        """Parameters of a client's request in this revision's shape."""
        every = self.changes.get(">*")
        return self._walk(">" + method, every(params) if every else params)

    def server_request(self, method: str, params: Object) -> Object:
        """Parameters of a server's question in this revision's shape.

        Raises:
            MissingCapability: this revision has no words for what is asked.
        """
        every = self.changes.get("?*")
        return self._walk("?" + method, every(params) if every else params)

    def notification(self, method: str, params: Object) -> Object:
        """Parameters of a notification in this revision's shape."""
        every = self.changes.get("!*")
        return self._walk(method, every(params) if every else params)

    def capabilities(self, capabilities: Object) -> Object:
        """Server capabilities in this revision's shape, as `InitializeResult` carries them."""
        return self._walk("serverCapabilities", capabilities)

    def error(self, code: int, message: str, data: object = None) -> Object:
        """An error object with this revision's code. `data` is left out when it is None."""
        code, message, data = self.error_change((code, message, data))
        error: Object = {"code": code, "message": message}
        if data is not None:
            error["data"] = data
        return error

    def upgrade_result(self, method: str, result: Object) -> Object:
        """A result or a client's answer that came in this revision's shape, in the newest."""
        if method not in ANSWERS and (change := self.upgrades.get("*")):
            result = change(result)
        change = self.upgrades.get(method)
        return change(result) if change else result

    def upgrade_params(self, method: str, params: Object) -> Object:
        """Parameters that came in this revision's shape, in the newest."""
        if change := self.upgrades.get(">*"):
            params = change(params)
        change = self.upgrades.get(">" + method)
        return change(params) if change else params

    def upgrade_error(self, code: int, message: str, data: object = None) -> Error:
        """Code, message and data of an error that came from a peer of this revision, as the newest has them."""
        return self.error_upgrade((code, message, data))

    def _walk(self, kind: str, value: Object) -> Object:
        if kind not in self._entered:
            return value
        if change := self.changes.get(kind):
            value = change(value)
        for name, part in PARTS.get(kind, ()):
            if part in self._entered and name in value:
                old = value[name]
                new = self._part(part, old)
                if new is not old:
                    value = {**value, name: new}
        return value

    def _part(self, kind: str, value: object) -> object:
        if (single := as_object(value)) is not None:
            return self._walk(kind, single)
        if (items := as_list(value)) is None:
            return value
        return [item if (one := as_object(item)) is None else self._walk(kind, one) for item in items]


def _entered(changes: Mapping[str, Change]) -> frozenset[str]:
    """The kinds that change, or that have a part that does."""
    entered = set(changes)
    size = 0
    while size != len(entered):
        size = len(entered)
        entered.update(kind for kind, parts in PARTS.items() if any(part in entered for _, part in parts))
    return frozenset(entered)
