"""Words by which a form asks for what nobody should type into one: `asks_for_secret`.

    asks_for_secret("Your 2FA code")        # "2fa code"
    asks_for_secret("p a s s w 0 r d")      # "password"
    asks_for_secret("max_tokens")           # ""

Rules of this file:
- Spelling does not count: case, camelCase, separators, spaced letters, hidden characters, accents, look-alikes of other
  scripts and digits for letters are all the same text.
- A phrase is a run of whole words. Only words that mean one thing are looked for inside others (`_WITHIN`), and those
  of scripts that are written without spaces or with endings.
- A phrase that stands inside one of `_HARMLESS` ("token limit") is none.
- What is looked for is what grants access or moves money, and never what merely is personal.

It is a table of words: whoever avoids them all is not found. Spec: 2026-07-28 client/elicitation "Form Mode Security".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import product
from typing import Final, NamedTuple
from unicodedata import category, name, normalize

from .confusables import hidden, skeleton

__all__ = ["asks_for_secret"]

_SECRETS: Final = """
password, passwd, passcode, passphrase, pass phrase, pwd, pw, psk, pre shared key, passkey, user pass, db pass,
pin, pin code, pin number, personal identification number, one time code, one time pin, otp, totp, hotp, 2fa, mfa,
2fa code, mfa code, two factor code, two factor authentication code, authenticator code, verification code,
security code, authentication code, authorization code, authorisation code, auth code, access code, login code,
sign in code, sms code, text message code, email code, backup code, recovery code, reset code, unlock code,
device code, digit code, digits code, code we sent, code we just sent, code sent to, code you received,
code you got, code from your phone, code from your authenticator, code from your app, code from your email,
code in your app, code from the sms, code from the text, magic link, sign in link, reset link, token, bearer,
api key, apikey, access key, private key, secret key, encryption key, decryption key, signing key, ssh key,
pgp key, gpg key, rsa key, license key, licence key, recovery key, master key, auth key, account key, storage key,
service account key, service account json, webhook key, hmac key, client key, wallet key, deploy key, security key,
server key, session key, subscription key, admin key, root key, key file, keyfile, id rsa, kubeconfig, keystore,
openai key, anthropic key, aws key, gcp key, azure key, github key, stripe key, secret, credential, creds,
login data, session id, session cookie, auth cookie, login cookie, jsessionid, phpsessid, jwt, auth header,
authorization header, connection string, env file, dot env, seed phrase, seed words, recovery phrase,
recovery words, backup phrase, wallet phrase, mnemonic phrase, mnemonic words, mnemonic seed, mnemonic,
wallet seed, twelve words, twenty four words, 12 words, 24 words, card number, card no, credit card, debit card,
bank card, card verification, card security, card expiry, cvv, cvc, cvv2, cvc2, iban, bank account number,
routing number, bank login, ssn, social security, national insurance number, security question, security answer,
memorable word, maiden name,
passwort, kennwort, losungswort, geheimzahl, geheimnummer, zugangsdaten, anmeldedaten, zugangscode,
sicherheitscode,
bestatigungscode, kreditkarte, kartennummer, kartenprufnummer, prufziffer, privater schlussel,
geheimer schlussel,
api schlussel, sozialversicherungsnummer, pushtan, mtan, wiederherstellungsphrase,
mot de passe, code secret, code pin, carte bancaire, carte de credit, numero de carte, cle api, cle d api,
cle privee,
cle secrete, phrase secrete, phrase de recuperation, cryptogramme, jeton d acces, code de verification,
code de securite,
numero de securite sociale,
contrasena, clave privada, clave secreta, clave de acceso, clave de api, clave api, tarjeta de credito,
tarjeta de debito, numero de tarjeta, codigo de seguridad, codigo de verificacion, frase semilla,
frase de recuperacion,
senha, palavra passe, chave privada, chave secreta, chave de api, cartao de credito, numero do cartao,
codigo de seguranca, codigo de verificacao, frase de recuperacao,
chiave privata, chiave segreta, chiave api, carta di credito, numero di carta, numero della carta,
codice di sicurezza, codice di verifica, codice segreto, frase di recupero,
wachtwoord, pincode, toegangscode, creditcardnummer, beveiligingscode, geheime sleutel,
haslo, klucz prywatny, klucz api, karta kredytowa, karty kredytowej, numer karty, kod weryfikacyjny,
heslo, soukromy klic, losenord, adgangskode, passord, salasana, tunnusluku, jelszo, sifre, sifreniz, parolasi,
parolaniz,
parola de acces, mat khau, kata sandi, lozinka, zaporka, slaptazodis, parool
"""
"""Phrases in Latin letters without accents, commas between them; a plural in s is one too."""

_WITHIN: Final = """
password, passwort, passwd, passcode, passphrase, kennwort, apikey, privatekey, secretkey, accesskey,
accesstoken,
authtoken, seedphrase, creditcard, kreditkarte, cardnumber, wachtwoord, contrasena, mnemonic, credential
"""
"""What is found inside a longer word."""

_ENDINGS: Final = ("token", "tokens", "secret", "secrets", "pwd", "creds", "senha", "pincode")
"""What is found at the end of a longer word."""

_OTHER_SCRIPTS: Final = """
парол, секретный ключ, секретное слово, секретная фраза, пин-код, пинкод, токен доступа, апи-ключ, ключ апи,
закрытый ключ,
ключ api, приватный ключ, номер карт, кредитн, код подтвержд, код из смс, код безопасности, сид-фраз, мнемонич,
приватний ключ,
номер картк, код підтвердж,
κωδικός πρόσβασης, κωδικό πρόσβασης, συνθηματικό, πιστωτικής κάρτας, парола,
密码, 密碼, 口令, 验证码, 驗證碼, 密钥, 密鑰, 私钥, 私鑰, 助记词, 助記詞, 银行卡, 銀行卡, 信用卡, 身份证号,
身分證號, 令牌,
パスワード, パスフレーズ, パスコード, 暗証番号, 秘密鍵, 秘密の鍵, クレジットカード, 認証コード, 確認コード,
カード番号, シードフレーズ, apiキー,
トークン,
비밀번호, 암호를, 암호는, 패스워드, 인증번호, 인증 코드, 보안 코드, 카드 번호, 주민등록번호, 개인 키, api 키,
시드 문구, 토큰을,
كلمة المرور, كلمة السر, كلمة مرور, رمز التحقق, رقم البطاقة, المفتاح الخاص, الرقم السري,
סיסמה, סיסמא, קוד אימות, מספר כרטיס, מפתח פרטי,
पासवर्ड, ओटीपी, कार्ड नंबर, पिन कोड, পাসওয়ার্ড, கடவுச்சொல்,
รหัสผ่าน, รหัสลับ, หมายเลขบัตรเครดิต, mật khẩu, գաղտնաբառ, პაროლი
"""
"""What is found anywhere, spaces or not."""

_COUNTED: Final = ("max", "maximum", "min", "minimum", "total", "number of", "count of", "how many", "num", "new")
_MEASURE: Final = (
    *("limit", "limits", "count", "counts", "budget", "budgets", "usage", "size", "length", "window", "per", "price"),
    *("cost", "costs", "symbol", "bucket", "ring", "ttl", "lifetime", "expiry", "expiration"),
)
_HARMLESS: Final = (
    *(f"{much} {kind} tokens" for much, kind in product(_COUNTED, ("", "input", "output", "prompt", "completion"))),
    *(f"{much} token" for much in ("max", "min", "maximum", "minimum")),
    *(f"{token} {what}" for token, what in product(("token", "tokens"), _MEASURE)),
    *(f"{kind} token {what}" for kind, what in product(("max", "input", "output", "prompt"), ("count", "limit"))),
    *(f"password {what}" for what in ("length", "policy", "strength", "rotation", "expiry", "expiration", "manager")),
    *(f"{factor} {what}" for factor, what in product(("2fa", "mfa"), ("method", "status", "enabled", "provider"))),
    *(f"{kind} pin" for kind in ("gpio", "map", "drop", "safety", "rolling", "lapel", "header")),
    *(f"pin {what}" for what in ("color", "colour", "message", "post", "tab", "version", "dependency", "dependencies")),
    *(f"pin to {what}" for what in ("top", "board", "dashboard", "version", "home", "sidebar", "taskbar", "start")),
    *("secret santa", "secret menu", "security key type", "passwordless"),
)

_SHORT: Final = 4
"""Phrases up to this length are one word, or single letters: `p in` is no `pin`."""
_LETTERS: Final = re.compile(r"[^\W_]+")
_CAMEL: Final = re.compile(
    r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])"
)
_DIGITS: Final = str.maketrans("013457@$", "oieastas")
_LATIN: Final = re.compile(r"LATIN (?:SMALL |CAPITAL )?LETTER (?:SMALL CAPITAL |SCRIPT |OPEN )*([A-Z])(?: WITH .*)?\Z")

_Form = Callable[[str], str]


class _Table(NamedTuple):
    """The phrases in one form, each as one run of letters with what a person calls it."""

    secrets: dict[str, str]
    harmless: frozenset[str]
    beginnings: frozenset[str]
    """Of both: a run that is none of these begins no phrase."""
    inside: re.Pattern[str]
    anywhere: dict[str, str]


_tables: dict[_Form, _Table] = {}


def asks_for_secret(text: str) -> str:
    """The phrase by which a text speaks of a password, a key, a code or a card; empty when it speaks of none."""
    for words, form in _readings(text):
        found = _found(words, _table(form))
        if found:
            return found
    return ""


def _readings(text: str) -> Iterator[tuple[list[str], _Form]]:
    """The words of a text, in every way of reading it that a person might."""
    plain = _seen(text)
    for reading in (plain, plain.translate(_DIGITS)):
        for split in (reading, _CAMEL.sub(" ", reading)):
            yield _words(split, _folded), _folded
            if not text.isascii():
                yield _words(split, _small), _small
                yield _words(split, _large), _large


def _seen(text: str) -> str:
    """The characters that are seen, in their ordinary forms."""
    if text.isascii():
        return text
    seen = "".join(each for each in normalize("NFKC", text) if each in " \n\t" or not hidden(each))
    return "".join(_letter(each) for each in seen)


def _letter(character: str) -> str:
    """A letter without what was added to it, where Unicode calls it a Latin one."""
    if character.isascii():
        return character
    found = _LATIN.match(name(character, ""))
    if found is None:
        return character
    return found[1] if character.isupper() else found[1].lower()


def _words(text: str, form: _Form) -> list[str]:
    return _LETTERS.findall(form(_without_marks(text)))


def _folded(text: str) -> str:
    return text.casefold()


def _small(text: str) -> str:
    """What it looks like in small letters."""
    return _without_marks(skeleton(text.casefold())).casefold()


def _large(text: str) -> str:
    """What it looks like in capitals."""
    return _without_marks(skeleton(text.upper())).casefold()


def _without_marks(text: str) -> str:
    if text.isascii():
        return text
    return normalize("NFC", "".join(each for each in normalize("NFKD", text) if category(each) != "Mn"))


def _table(form: _Form) -> _Table:
    table = _tables.get(form)
    if table is None:

        def squeezed(phrases: Iterator[str]) -> dict[str, str]:
            return {"".join(_words(_seen(phrase), form)): phrase for phrase in phrases}

        secrets = squeezed(_listed(_SECRETS))
        harmless = frozenset(squeezed(iter(_HARMLESS)))
        within = "|".join(map(re.escape, squeezed(_listed(_WITHIN))))
        endings = "|".join(map(re.escape, squeezed(iter(_ENDINGS))))
        table = _tables[form] = _Table(
            secrets,
            harmless,
            frozenset(phrase[:end] for phrase in (*secrets, *harmless) for end in range(1, len(phrase) + 1)),
            re.compile(rf"{within}|(?:{endings})\Z"),
            squeezed(_listed(_OTHER_SCRIPTS)),
        )
    return table


def _listed(text: str) -> Iterator[str]:
    return (phrase for phrase in (each.strip() for each in text.replace("\n", " ").split(",")) if phrase)


def _found(words: list[str], table: _Table) -> str:
    """The first phrase that is not part of a harmless one."""
    hits: list[tuple[int, int, str]] = []
    harmless: list[tuple[int, int]] = []
    for begin in range(len(words)):
        run = ""
        for end in range(begin, len(words)):
            run += words[end]
            if run in table.harmless:
                harmless.append((begin, end))
            phrase = table.secrets.get(run) or (table.secrets.get(run[:-1]) if run.endswith("s") else None)
            if phrase and (len(run) > _SHORT or begin == end or all(len(word) == 1 for word in words[begin : end + 1])):
                hits.append((begin, end, phrase))
            if run not in table.beginnings:
                break
        inside = table.inside.search(words[begin])
        if inside:
            hits.append((begin, begin, inside[0]))
    for begin, end, phrase in hits:
        if not any(first <= begin and end <= last for first, last in harmless):
            return phrase
    whole = "".join(words)
    return "" if whole.isascii() else next((phrase for part, phrase in table.anywhere.items() if part in whole), "")
