"""Rules: what allows matches what is sure, what refuses matches what is possible."""

from __future__ import annotations

import fnmatch
import time
import tomllib
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garrison.errors import ConfigurationError
from garrison.host.patterns import ArgumentPattern, NamePattern
from garrison.host.rules import ApprovalPolicy, Rule

TODAY = date(2026, 6, 1)


def surely(pattern: object, value: object) -> bool:
    return ArgumentPattern({"x": pattern}).surely({"x": value})


def perhaps(pattern: object, value: object) -> bool:
    return ArgumentPattern({"x": pattern}).perhaps({"x": value})


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("/data/**", "/data/a/b c.txt"),
        ("/data/**", "/data/"),
        ("/data/**", "/data/.hidden/..a/a..b"),
        ("/data/**", "/data/données/日本.txt"),
        ("/data/*", "/data/a.txt"),
        ("/data/*/x", "/data/b/x"),
        ("/data/**/x", "/data/a/b/x"),
        ("report-*", "report-7"),
        ("**", "anything\n/../\x00 at all"),
        ("select **", "select a\nfrom b"),
        ("https://example.com/**", "https://example.com/a/b?c=d#e"),
        ("https://*.example.com/**", "https://www.example.com/"),
        ("https://*/robots.txt", "https://example.com:8443/robots.txt"),
        ("a.b+c", "a.b+c"),
        (True, True),
        (1, 1.0),
        (None, None),
        (["a", {"b": 1}], ["a", {"b": 1}]),
    ],
)
def test_what_matches(pattern: object, value: object) -> None:
    assert surely(pattern, value)
    assert perhaps(pattern, value)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        *(("/data/**", f"/data/{rest}") for rest in ("../etc", "a/../../etc", "./x", "a/..", "..", "../", "..;/etc")),
        *(
            ("/data/**", f"/data/{rest}")
            for rest in ("%2e%2e/x", "%u002e%u002e/x", "a%2fb", "%252e", "%00", "..%5cx", "a\\..\\x", "a\\b")
        ),
        *(
            ("/data/**", f"/data/{rest}")
            for rest in ("a\x00", "a\nb", "\u202ea", "a\u200b", "\x1b[2J", "a\u2028b", "\ud800")
        ),
        *(
            ("/data/**", f"/data/{rest}")
            for rest in ("．．/x", "a／b", "․․/x", "..．/x", "a//b", ".. /x", ". ./x", "…")
        ),
        *(("/data/**", value) for value in ("/data", "/DATA/a", "/database/a", "data/a", " /data/a", "//data/a")),
        *(("/data/**", value) for value in (None, 1, ["/data/a"], {"/data/a": 1}, b"/data/a")),
        ("/data/*", "/data/a/b"),
        ("/data/*", "/data/.."),
        ("/data/*", "/data/a\\b"),
        ("/data/**", "/data/" + "a" * 70_000),
        *(("*", value) for value in ("..", "a/b", "a\\b", "%2e%2e", "a\nb", "\u202e")),
        *(("report-**", value) for value in ("report-/../x", "report-a/..", "report-\\..\\x", "report-/%2e%2e/x")),
        *(
            ("https://*.example.com/**", value)
            for value in (
                "https://evil.com?.example.com/",
                "https://evil.com#.example.com/",
                "https://evil.com\\.example.com/",
                "https://u:p@x.example.com/",
                "https://evil.com/.example.com/",
                "https://.example.com.evil.org/",
                "http://a.example.com/",
            )
        ),
        *(
            ("https://example.com/**", value)
            for value in ("https://example.com.evil.org/", "https://example.com@evil.org/")
        ),
        ("https://*/x", "https://evil@other/x"),
        *((True, value) for value in (1, "true", None)),
        *((1, value) for value in (True, "1", 2)),
        (["a*"], ["ab"]),
        (["a"], "a"),
        ({"a": 1}, {"a": 1, "b": 2}),
    ],
)
def test_what_is_not_surely_a_match(pattern: object, value: object) -> None:
    assert not surely(pattern, value)


def test_arguments_are_all_named() -> None:
    pattern = ArgumentPattern({"path": "/data/**", "depth": 1})
    assert pattern.surely({"depth": 1, "path": "/data/a"})
    assert not pattern.surely({"path": "/data/a"})
    assert not pattern.surely({"path": "/data/a", "depth": 1, "follow": True})
    assert ArgumentPattern({}).surely({}) and not ArgumentPattern({}).surely({"a": 1})


@pytest.mark.parametrize(
    "value",
    [
        *(
            "/etc/passwd",
            "/ETC/Passwd",
            "/data/../etc/passwd",
            "/data/%2e%2e/etc/x",
            "/%65tc/x",
            "/%2565tc/x",
            "//etc//x",
        ),
        *("/./etc/x", "\\etc\\x", "/e\u200btc/x", "/ｅtc/x", "/etc", "../../etc/x", "..\\..\\x", "file:///etc/x"),
        *("/ etc/x", "/data/.. /etc/x", "x" * 70_000, ["/tmp", "/etc/x"], {"to": {"from": "/etc/x"}}, {"/etc/x": 1}),
    ],
)
def test_what_refuses_sees_through_spellings(value: object) -> None:
    assert perhaps("/etc/**", value)
    assert (
        not perhaps("/etc/**", "/data/etc/x") and not perhaps("/etc/**", "/etcetera") and not perhaps("/etc/**", None)
    )


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("*rm -rf*", "\x1b]rm -rf .\x07"),
        ("*rm -rf*", "\x9dRM -R\u200bf .\x9c"),
        ("*rm -rf*", "rm\x1b[0m -rf ."),
        ("/data/*", "/data/\u2100"),
        ("/data/*", "/DATA/\u2100"),
        ("/data/e*", "/data/e\u0301"),
    ],
)
def test_what_refuses_sees_what_stands_there_and_what_a_terminal_shows(pattern: str, text: str) -> None:
    assert ArgumentPattern({"a": pattern}).perhaps({"a": text})
    assert not ArgumentPattern({"a": pattern}).perhaps({"a": "other"})
    if "/" not in pattern:
        assert NamePattern(pattern, "tool").perhaps(text)


def test_what_refuses_sees_through_types_hosts_and_further_arguments() -> None:
    assert perhaps(True, "True") and perhaps(7, "7") and perhaps("7", 7) and perhaps("id-*", ["x", "ID-1"])
    assert not perhaps(True, False) and not perhaps(7, 70) and not perhaps({"a": 1}, {"a": 2})
    for url in ("https://evil.com/x", "https://u:p@EVIL.com:443/x", "https://evil.com./a/../x", "https://evil.com"):
        assert perhaps("https://evil.com/**", url)
    assert not perhaps("https://evil.com/**", "https://good.com/a%20b?u=evil")
    pattern = ArgumentPattern({"force": True})
    assert pattern.perhaps({"force": True, "more": 1}) and not pattern.perhaps({"more": 1})


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_stars_without_slashes_mean_what_they_mean_to_a_shell(pattern: str, text: str) -> None:
    assert surely(pattern, text) == (pattern == text if "*" not in pattern else fnmatch.fnmatchcase(text, pattern))


@given(st.text("ab/*", max_size=8), st.text("ab/", max_size=12))
def test_one_star_stays_between_slashes_and_two_do_not(pattern: str, text: str) -> None:
    import re

    parts = re.findall(r"\*+|[^*]", pattern)
    meaning = "".join(".*" if len(p) > 1 else "[^/]*" if p == "*" else re.escape(p) for p in parts)
    expected = re.fullmatch(meaning, text, re.DOTALL) is not None
    if "*" in pattern and pattern != "**" and ("//" in text and ("/" in pattern or "*" in re.findall(r"\*+", pattern))):
        expected = False  # an empty part is roundabout
    assert surely(pattern, text) == (text == pattern if "*" not in pattern else expected)


@given(st.text("ab/*.", max_size=8), st.text("ab/.%\\AB", max_size=12))
def test_what_is_sure_is_possible(pattern: str, text: str) -> None:
    if surely(pattern, text):
        assert perhaps(pattern, text)


def test_no_text_makes_a_pattern_slow() -> None:
    started = time.perf_counter()
    surely("**a" * 20 + "b", "a" * 60_000)
    surely("*a" * 20 + "b", "a" * 60_000)
    perhaps("/**/" * 20, "/a" * 30_000)
    assert time.perf_counter() - started < 3


@pytest.mark.parametrize(
    "pattern", ["https://example.com**", "https://example.com*", "https://ex*.com/", "*://x/", "http*://x/"]
)
def test_a_url_that_is_open_where_its_host_ends_is_an_error(pattern: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Rule.arguments.url"):
        Rule(action="allow", server="web", tool="get", arguments={"url": pattern})


def rule(action: Any = "allow", server: str = "files", tool: str = "read_*", **other: Any) -> Rule:
    return Rule(action=action, server=server, tool=tool, **other)


def decide(policy: ApprovalPolicy, server: str = "files", tool: str = "read_file", **arguments: object) -> str:
    return policy.decide(server, tool, arguments, TODAY).action


def test_the_first_rule_that_matches_decides() -> None:
    policy = ApprovalPolicy([rule("deny", tool="read_secret"), rule(), rule("deny", "*", "*")])
    assert (decide(policy), decide(policy, tool="read_secret"), decide(policy, "mail")) == ("allow", "deny", "deny")
    assert decide(ApprovalPolicy()) == "ask" and decide(ApprovalPolicy(default="deny")) == "deny"
    assert "rule 2 (allow files read_*)" in policy.decide("files", "read_file", {}, TODAY).by


def test_server_and_tool_are_two_patterns() -> None:
    policy = ApprovalPolicy([rule(tool="*")], default="deny")
    assert decide(policy, "files", "anything") == "allow"
    for server in ("files2", "my-files", "file", "filess"):
        assert decide(policy, server, "files.read_file") == "deny"
    assert decide(ApprovalPolicy([rule(server="files*")]), "files-evil") == "allow"  # as it says
    assert decide(ApprovalPolicy([rule(tool="Read_*")])) == "ask"


def test_a_star_allows_no_resources_and_denies_them() -> None:
    assert decide(ApprovalPolicy([rule(tool="*")]), tool="resources/read") == "ask"
    assert decide(ApprovalPolicy([rule(tool="resources/read")]), tool="resources/read") == "allow"
    assert decide(ApprovalPolicy([rule("deny", tool="*")]), tool="resources/read") == "deny"


def test_what_denies_looks_at_the_name_in_every_form() -> None:
    for pattern in ("delete_*", "DELETE_*", "files.delete_*"):
        policy = ApprovalPolicy([rule("deny", tool=pattern), rule(tool="*")])
        assert decide(policy, tool="delete_all") == decide(policy, tool="Delete_All") == "deny"
        assert decide(policy, tool="undelete_all") == "allow"


def test_a_rule_that_asks_is_not_evaded_by_one_that_allows() -> None:
    policy = ApprovalPolicy(
        [rule("ask", arguments={"path": "/data/private/**"}), rule(arguments={"path": "/data/**"})], default="deny"
    )
    assert decide(policy, path="/data/a") == "allow"
    assert decide(policy, path="/data/Private/a") == "ask"
    assert decide(policy, path="/data/x/../private/a") == "ask"
    assert decide(policy, path="/data/private/a", extra=1) == "ask"
    assert decide(policy, path="/data/x/../y") == "deny"


def test_until_is_the_last_day() -> None:
    policy = ApprovalPolicy([rule(until=TODAY)])
    assert policy.decide("files", "read_file", {}, TODAY).action == "allow"
    assert policy.decide("files", "read_file", {}, date(2026, 6, 2)).action == "ask"


def test_toml() -> None:
    table = tomllib.loads(
        """
        default = "deny"
        [[rules]]
        server = "files"
        tool = "read_*"
        action = "allow"
        arguments = { path = "/data/**" }
        until = "2026-12-31"
        [[rules]]
        server = "web"
        tool = "get"
        action = "allow"
        until = 2026-12-31
        dangerously_ignore_flow = "only our own pages"
        """
    )
    policy = ApprovalPolicy.from_table(table)
    assert policy.default == "deny" and policy.rules == (
        rule(arguments={"path": "/data/**"}, until=date(2026, 12, 31)),
        rule(server="web", tool="get", until=date(2026, 12, 31), dangerously_ignore_flow="only our own pages"),
    )
    assert decide(policy, path="/data/x") == "allow"
    assert ApprovalPolicy.from_table({}) == ApprovalPolicy()


GOOD = {"server": "files", "tool": "read", "action": "allow"}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"rule": []}, "rule: there is no such setting; did you mean rules?"),
        ({"rules": {}}, "must be a list of tables"),
        ({"rules": ["x"]}, r"rules\[1\]: must be a table"),
        ({"rules": [GOOD, {**GOOD, "argument": {}}]}, r"rules\[2\]\.argument: .* did you mean arguments\?"),
        ({"rules": [{**GOOD, "_names": 1}]}, "_names: there is no such setting"),
        ({"rules": [{"server": "files", "tool": "read"}]}, r"rules\[1\]\.action: must be given"),
        ({"rules": [{"tool": "read", "action": "allow"}]}, r"rules\[1\]\.server: must be given"),
        ({"rules": [{**GOOD, "action": "alow"}]}, "Rule.action is"),
        ({"rules": [{**GOOD, "server": "files.read"}]}, "Rule.server must be an alias"),
        ({"rules": [{**GOOD, "server": 7}]}, "Rule.server"),
        ({"rules": [{**GOOD, "tool": ""}]}, "Rule.tool"),
        ({"rules": [{**GOOD, "arguments": "x"}]}, "Rule.arguments"),
        ({"rules": [{**GOOD, "arguments": {"on": date(2030, 1, 1)}}]}, r"Rule\.arguments\.on: is no JSON"),
        ({"rules": [{**GOOD, "arguments": {"n": [{"x": float("nan")}]}}]}, r"Rule\.arguments\.n: is no JSON"),
        ({"rules": [{**GOOD, "arguments": {"n": 16**3700}}]}, r"Rule\.arguments\.n: is no JSON"),
        ({"rules": [{**GOOD, "until": "tomorrow"}]}, "until: must be a day"),
        ({"rules": [{**GOOD, "until": 7}]}, "until must be a day"),
        ({"rules": [{**GOOD, "dangerously_ignore_flow": True}]}, "says why"),
        ({"rules": [{**GOOD, "action": "ask", "dangerously_ignore_flow": "x"}]}, "means nothing"),
        ({"default": "allow"}, "what is allowed is a rule"),
    ],
)
def test_what_is_not_a_rule_is_an_error(table: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ApprovalPolicy.from_table(table)
