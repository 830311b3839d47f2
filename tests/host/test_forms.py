"""Forms of servers: which are put to a person, and what of the answer is sent."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garrison.errors import NotApproved
from garrison.host.forms import MAX_CHOICES, MAX_FIELDS, MAX_MESSAGE, MAX_TEXT, check_form
from garrison.host.secret_words import asks_for_secret

Json = dict[str, Any]

SECRETS = [
    *("password", "Password", "PASSWORD", "user_password", "userPassword", "user-password", "pass word", "pass-word"),
    *("pwd", "dbPwd", "passcode", "Pass Phrase", "credentials", "creds", "client_secret", "Shared secret", "bearer"),
    *("api_key", "apiKey", "API-Key", "APIKEY", "x-api-key", "private key", "PrivateKey", "ssh_key", "encryption key"),
    *("token", "tokens", "access_token", "accessToken", "githubtoken", "oauth2Token", "session id", "session_cookie"),
    *("Your 2FA code", "2fa", "twoFactorCode", "one-time code", "OTP", "TOTP", "verification code", "backup codes"),
    *(
        "Enter the 6-digit code",
        "the code we sent you",
        "SMS code",
        "PIN",
        "P.I.N.",
        "pin_code",
        "your PIN to continue",
    ),
    *("card number", "cardNumber", "card_no", "CVV", "cvv2", "cardCVC", "credit card", "iban", "bank account number"),
    *("seed phrase", "recovery_phrase", "12 words", "mnemonic", "SSN", "social security number", "maiden name"),
]
OTHER_SPELLINGS = [
    *("p a s s w o r d", "p.a.s.s.w.o.r.d", "p4ssw0rd", "pa$$word", "p@ssw0rd", "t0ken", "p1n", "pa55word"),
    *("\u0440assword", "\u0440\u0430\u0455\u0455w\u043erd", "\u0422\u041e\u041a\u0415N", "\u0410\u0420\u0406 KEY"),
    *("pass\u200bword", "pass\u00adword", "pass\u2060word", "p\u0336a\u0336s\u0336s\u0336w\u0336o\u0336r\u0336d\u0336"),
    *("\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44", "\u24df\u24d0\u24e2\u24e2\u24e6\u24de\u24e1\u24d3"),
    *("\U0001d429\U0001d41a\U0001d42c\U0001d42c\U0001d430\U0001d428\U0001d42b\U0001d41d", "p\u00e1ssw\u00f8rd"),
    "\u1d18\u1d00\ua731\ua731\u1d21\u1d0f\u0280\u1d05",
]
OTHER_LANGUAGES = [
    *("Passwort", "Kennwort", "Geheimzahl", "Kreditkartennummer", "Prüfziffer", "Bestätigungscode"),
    *(
        "mot de passe",
        "Mot-de-passe",
        "numéro de carte",
        "clé privée",
        "contraseña",
        "Contrasena",
        "tarjeta de crédito",
    ),
    *("senha", "chave privada", "carta di credito", "wachtwoord", "hasło", "heslo", "lösenord", "salasana", "şifreniz"),
    *("Пароль", "введите паролем", "ключ API", "номер карты", "κωδικός πρόσβασης", "סיסמה", "كلمة المرور"),
    *("密码", "请输入验证码", "パスワードを入力", "暗証番号", "비밀번호", "पासवर्ड", "รหัสผ่าน", "mật khẩu"),
]
HARMLESS = [
    *(
        "token limit",
        "max_tokens",
        "maxTokens",
        "Maximum output tokens",
        "Number of tokens",
        "token_count",
        "tokenizer",
    ),
    *("key", "Map key", "keyboard", "keyword", "primary_key", "sort key", "public key", "monkey", "turkey", "hockey"),
    *("passport country", "passenger name", "compass", "bypass", "pass rate", "boarding pass", "compass word"),
    *(
        "secretary",
        "secret santa",
        "country code",
        "zip code",
        "postal_code",
        "promo code",
        "error code",
        "code review",
    ),
    *("pin color", "map pin", "GPIO pin", "Pin to top", "spinning", "opinion", "shipping address", "p in"),
    *("business card", "trello card", "SIM card", "seed", "random seed", "password length", "Passwordless login"),
    *("name", "Your full name", "email", "username", "GitHub username", "date of birth", "phone number", "login name"),
    *("account name", "order number", "cookie preferences", "2fa method", "access level", "room 101", "version 2.0.1"),
    *(
        "parola chiave",
        "clave",
        "Straße",
        "prénom",
        "numéro de téléphone",
        "Schlüsselwort",
        "секретарь",
        "ключевое слово",
    ),
    *(
        "名前",
        "メールアドレス",
        "キーボード",
        "이름",
        "author",
        "laptop",
        "Describe the issue",
        "Deploy to production?",
    ),
]


def form(field: Json | None = None, name: str = "value", **more: Any) -> Json:
    return {"type": "object", "properties": {name: field or {"type": "string"}}, **more}


def refused(schema: Json, message: str = "Please answer") -> str:
    with pytest.raises(NotApproved) as caught:
        check_form(message, schema)
    return str(caught.value)


# Secrets


@pytest.mark.parametrize("text", SECRETS + OTHER_SPELLINGS + OTHER_LANGUAGES)
def test_a_form_for_a_secret_is_refused_wherever_the_word_stands(text: str) -> None:
    choice = {"type": "string", "oneOf": [{"const": "a", "title": text}]}
    several = {"type": "array", "items": {"anyOf": [{"const": "a", "title": text}]}}
    for schema in (
        form({"type": "string", "title": text}),
        form({"type": "integer", "description": f"Please enter: {text}"}),
        form({"type": "string", "default": text}),
        form({"type": "string", "enum": ["a", text]}),
        form({"type": "string", "enum": ["a"], "enumNames": [text]}),
        form(choice),
        form(several),
        form(title=text),
        form(description=text),
    ):
        assert "secret" in refused(schema)
    assert "secret" in refused(form(), f"We need your {text} to go on")
    if not any(ord(each) in (0x200B, 0xAD, 0x2060) for each in text):
        assert "secret" in refused(form(name=text))


@pytest.mark.parametrize("text", HARMLESS)
def test_a_form_for_something_else_is_put_to_the_person(text: str) -> None:
    check_form(f"Please give the {text}", form({"type": "string", "title": text, "description": f"The {text}."}, text))


def test_a_name_with_hidden_characters_is_refused() -> None:
    assert "hidden" in refused(form(name="pass\u200bword"))
    assert "hidden" in refused(form(name="city\u202e"))
    check_form("", form(name="città"))


def test_a_format_that_forms_do_not_have_is_refused() -> None:
    assert "format" in refused(form({"type": "string", "format": "password"}))
    for known in ("email", "uri", "date", "date-time"):
        check_form("", form({"type": "string", "format": known}))


def test_yes_and_no_may_speak_of_secrets_and_text_beside_it_may_not() -> None:
    revoke = {"confirm": {"type": "boolean", "title": "Revoke the API key 'ci'?"}}
    check_form("Revoke the token?", {"type": "object", "properties": revoke})
    check_form("Reset the password?", {"type": "object", "properties": {}})
    assert "secret" in refused({"type": "object", "properties": {**revoke, "note": {"type": "string"}}})


# Form


@pytest.mark.parametrize(
    "field",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"type": "array", "items": {"type": "object"}},
        {"type": "array", "items": {"type": "string"}},
        {"type": "array"},
        {"type": ["string", "null"]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "string", "$ref": "#/x"},
        {"type": "string", "not": {}},
        {"type": "string", "oneOf": [{"type": "string"}]},
        {"type": "string", "oneOf": [{"const": 1, "title": "one"}]},
        {"type": "string", "enum": [1]},
        {"type": "string", "title": {"a": 1}},
        {"type": "string", "default": {"a": 1}},
        {"type": "array", "items": {"type": "string", "enum": ["a"]}, "default": [{"your password": 1}]},
        {"type": "string", "pattern": "(a+)+\\1"},
        {"type": "string", "minLength": "your password"},
        {},
        "string",
        None,
    ],
)
def test_what_is_not_flat_is_refused(field: Any) -> None:
    refused({"type": "object", "properties": {"value": field}})


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"type": "string"},
        {"type": "object"},
        {"type": "object", "properties": []},
        {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]},
        {"type": "object", "properties": {}, "required": "a"},
        {"type": "object", "properties": {}, "allOf": [{}]},
        {"type": "object", "properties": {}, "$defs": {}},
        {"type": "object", "properties": {}, "patternProperties": {}},
        {"type": "object", "properties": {}, "additionalProperties": {"title": "your password"}},
        {"type": "object", "properties": {}, "title": ["your password"]},
        {"type": "object", "properties": {}, "$schema": "https://evil.example/schema"},
    ],
)
def test_what_is_no_form_is_refused(schema: Json) -> None:
    refused(schema)


def test_the_forms_of_the_specification_are_put_to_the_person() -> None:
    fields: Json = {
        "name": {"type": "string", "title": "Name", "minLength": 3, "maxLength": 50, "pattern": "^[a-z]+$"},
        "email": {"type": "string", "format": "email", "default": "user@example.com"},
        "age": {"type": "number", "minimum": 18, "maximum": 100},
        "count": {"type": "integer", "default": 5},
        "sure": {"type": "boolean", "default": False},
        "color": {"type": "string", "enum": ["Red", "Green"], "default": "Red"},
        "old": {"type": "string", "enum": ["r"], "enumNames": ["Red"]},
        "titled": {"type": "string", "oneOf": [{"const": "#FF0000", "title": "Red"}], "default": "#FF0000"},
        "many": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string", "enum": ["a", "b"]}},
        "several": {"type": "array", "items": {"anyOf": [{"const": "a", "title": "A"}]}, "default": ["a"]},
    }
    form = check_form("Who are you?", {"type": "object", "properties": fields, "required": ["name"]})
    assert form.fields == tuple(fields)
    assert form.reasons == ()
    assert form.content({"name": "abc", "many": ["a"]}) == {"name": "abc", "many": ["a"]}


def test_a_form_that_is_too_large_is_refused() -> None:
    many = {f"f{i}": {"type": "boolean"} for i in range(MAX_FIELDS)}
    check_form("", {"type": "object", "properties": many})
    assert "fields" in refused({"type": "object", "properties": {**many, "one": {"type": "boolean"}}})
    check_form("a" * MAX_MESSAGE, form())
    assert "message" in refused(form(), "a" * (MAX_MESSAGE + 1))
    check_form("", form({"type": "string", "description": "a" * MAX_TEXT}))
    assert "characters" in refused(form({"type": "string", "description": "a" * (MAX_TEXT + 1)}))
    assert "choices" in refused(form({"type": "string", "enum": [str(i) for i in range(MAX_CHOICES + 1)]}))
    titles = {f"f{i}": {"type": "boolean", "description": "a" * MAX_TEXT} for i in range(MAX_FIELDS)}
    assert "bytes" in refused({"type": "object", "properties": titles})
    assert "name" in refused(form(name="a" * 65))


def test_addresses_and_hidden_characters_are_pointed_out() -> None:
    assert check_form("Go to https://evil.example", form()).reasons == (
        "its words hold an address, which nobody has checked",
    )
    assert "hidden" in check_form("Hello\u202e", form()).reasons[0]
    assert check_form("Hello\nthere", form()).reasons == ()


# The answer


def test_only_what_was_filled_in_is_sent_and_only_if_it_fits() -> None:
    fields = {
        "city": {"type": "string", "default": "Ulm", "minLength": 2},
        "day": {"type": "string", "format": "date", "default": "2026-01-01"},
        "nights": {"type": "integer", "minimum": 1},
    }
    asked = check_form("", {"type": "object", "properties": fields, "required": ["city"]})
    assert asked.content({"city": "Bonn"}) == {"city": "Bonn"}  # the default of `day` is not an answer
    for wrong in (
        None,
        True,
        "Bonn",
        {},
        {"city": "B"},
        {"city": 1},
        {"city": "Bonn", "nights": 0},
        {"city": "Bonn", "nights": True},
        {"city": "Bonn", "day": "tomorrow"},
        {"city": "Bonn", "more": "not asked"},
    ):
        with pytest.raises(NotApproved) as caught:
            asked.content(wrong)
        assert "Bonn" not in str(caught.value)


def test_a_form_without_fields_needs_no_content() -> None:
    assert check_form("Go on?", {"type": "object", "properties": {}}).content(None) == {}
    with pytest.raises(NotApproved):
        check_form("", form()).content(None)


def test_what_the_schema_says_of_other_members_does_not_count() -> None:
    asked = check_form("", {**form(), "additionalProperties": True})
    with pytest.raises(NotApproved):
        asked.content({"other": "x"})


# Any bytes at all


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["string", "object", "a", "\u202e", "", "#/x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "properties", "required", "enum", "oneOf", "items", "title", "const", "$ref"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["type", "properties", "required", "title"]), VALUES, max_size=4), VALUES)
def test_any_schema_is_judged_and_left_as_it_was(schema: Json, field: Any) -> None:
    for each in (schema, {"type": "object", "properties": {"a": field}}):
        before = copy.deepcopy(each)
        with contextlib.suppress(NotApproved):
            assert isinstance(check_form("", each).fields, tuple)
        assert each == before


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_a_secret_is_found_between_any_words(before: str, after: str) -> None:
    assert asks_for_secret(f"{before}\n| password |\n{after}")


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_separators_and_case_hide_nothing(data: st.DataObject) -> None:
    spelled = ""
    for letter in "password":
        spelled += data.draw(st.sampled_from((letter, letter.upper()))) + data.draw(
            st.sampled_from(("", "\u200b", "\u2063", "\u00ad", "\u0301", "\ufe0f"))
        )
    assert asks_for_secret(spelled)
    assert asks_for_secret(data.draw(st.sampled_from((" ", "_", "-", ".", " / "))).join("password"))


@pytest.mark.parametrize("kind", ["integer", "string"])
def test_a_warning_against_secrets_asks_for_none(kind: str) -> None:
    said = "Your favourite one (do not give us your phone number, pin, or other sensitive info)"
    fields = {"favourite": {"type": kind, "description": said}}
    check_form("Please fill this in", {"type": "object", "properties": fields})
    for asks in (f"{said}. Then your PIN.", "Do not give up: enter your PIN", "do not wait, enter your pin"):
        fields["favourite"]["description"] = asks
        with pytest.raises(NotApproved, match="asks for a secret"):
            check_form("Please fill this in", {"type": "object", "properties": fields})
    with pytest.raises(NotApproved, match="asks for a secret"):
        check_form("Do not give us your pin", {"type": "object", "properties": {"a": {"type": kind}}})
