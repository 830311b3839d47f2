"""The words that the definition scanner knows, by what they do in a sentence.

Rules of this file:
- A class is what a word does there: it forbids, it tells, it is a secret. `scanner_rules` puts classes in an order.
- Words are in lower case. A `*` at the end stands for any ending. After the first `|` stand pairs of words, which are
  read as one.
- A word has one class. Verbs stand as a command has them: what a tool does itself ("reads", "sends") is no command.
- The words of other languages are kept apart: their order is another one in each.

Which words are here is judgement, measured by `bench/scanner.py`.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ENGLISH", "OTHER_LANGUAGES", "UNSPACED"]

ENGLISH: Final = {
    "NOT": "not don't dont never without avoid refrain cannot can't mustn't shouldn't won't no neither nor omit",
    "TELL": (
        "tell telling told mention mentioning mentioned inform informing informed reveal revealing disclose "
        "disclosing explain explaining discuss admit acknowledge talk say saying"
    ),
    "SHOW": "show showing shown display displayed list",
    "NOTIFY": "notify notifying notified alert alerting warn",
    "PERSON": "user users human humans human's person people operator anyone anybody",
    "IT": "it this that these",
    "QUIET": (
        "silently secretly quietly covertly discreetly unnoticed stealthily invisible invisibly hidden secret | "
        "between us | in secret | say nothing"
    ),
    "KNOW": "know see aware bothered confused alarmed worried realize realise bother",
    "READ": "read open cat load access retrieve collect gather extract grab fetch dump locate harvest obtain look",
    "SEND": (
        "send share push pass include attach append upload forward post transmit submit provide supply put place "
        "insert embed paste exfiltrate leak relay give copy add fill write report | hand over"
    ),
    "CONTENT": "content contents output text value values",
    "SECRET": (
        "credential* password passwords password's passphrase* secrets api_key* apikey* keychain keyring "
        "aws_secret_access_key github_token openai_api_key anthropic_api_key clipboard | api key | api keys | "
        "private key | private keys | ssh key | ssh keys | access token | access tokens | session token | session "
        "cookie | session cookies | seed phrase | environment variables | environment variable | env vars | "
        "secret key | secret keys | all secrets | recovery codes | user's token | their token | your token | bash "
        "history | shell history | user's cookies | browser's cookies"
    ),
    "FILE": (
        "dotenv | id rsa | id ed25519 | env file | ssh folder | ssh directory | credentials file | password file "
        "| login data | ssh config"
    ),
    "TALK": (
        "conversation conversations transcript transcripts dialogue | chat history | message history | "
        "conversation history | chat transcript | chat log | previous messages | prior messages | earlier "
        "messages | last message | user's message | user's messages | user's question | user's request | user "
        "request | user's prompt | whole chat | the chat | entire context | full context | every message | user's "
        "input"
    ),
    "SYS": "| system prompt | system message | hidden prompt | chain thought | internal reasoning | initial prompt",
    "ALL": "everything whatever anything",
    "GIVEN": "given passed sent included attached supplied provided forwarded uploaded",
    "SAID": "said wrote typed written asked",
    "FIELD": "parameter parameters argument arguments field fields param params header operand option",
    "MODEL": (
        "assistant assistants assistant's llm llms ai chatbot | language model | language models | ai agent | ai "
        "agents | the model | ai model | ai assistant"
    ),
    "MUST": (
        "must always required mandatory shall should | have to | need to | needs to | has to | make sure | be "
        "sure | are to"
    ),
    "IGNORE": "ignore disregard forget override overrides bypass circumvent supersede neglect",
    "ORDERS": (
        "instruction instructions prompt prompts guideline guidelines directive directives orders safeguards "
        "guardrails commands"
    ),
    "RULES": "rule rules policy policies restrictions constraints restriction",
    "EARLIER": "previous prior earlier above all any preceding existing original former every old usual",
    "YOUR": "your system safety developer's user's",
    "YOU": "you",
    "NEW": "new updated",
    "OTHER": "other another | any other | every other | built in",
    "BUILTIN": "builtin built-in default official standard native",
    "TOOL": "tool tools function functions plugin",
    "SERVER": "server servers server's",
    "HERE": "| this server | same server",
    "BEFORE": "before | prior to",
    "FIRST": "first initially",
    "AFTER": "after afterwards",
    "WHEN": "when if unless until while where",
    "EVERY": "whenever each regardless irrespective | every time | each time | every turn | on every | any time",
    "TURN": (
        "turn turns message messages reply replies answer answers response responses request requests question "
        "questions topic"
    ),
    "USE": "use call invoke run execute using calling invoking running prefer choose",
    "USED": "used called invoked executed",
    "REPLACE": (
        "replace replaces replacing replacement supersedes deprecated broken unsafe insecure obsolete compromised "
        "vulnerable unreliable stale manipulated outdated incomplete wrong | prefer over | instead of | rather "
        "than | in place | no longer"
    ),
    "CHANGE": "changed replaced redirect redirected route rerouted change modify altered prefixed",
    "SKIP": "skip skipping",
    "CONFIRM": "confirm confirmation ask asking approval permission consent",
    "APPROVED": "approved agreed consented authorized authorised confirmed | given consent",
    "ALREADY": "already",
    "TREAT": "treat consider regard",
    "OBEY": "obey follow comply apply",
    "PRIORITY": "precedence priority outranks outrank",
    "DECODE": "decode decrypt unscramble deobfuscate base64 rot13 reverse",
    "NOTE": "note notice attention remember hint tip dear",
    "PRETEND": "pretend lie",
    "BCC": "bcc",
    "SIDE": "sidenote | side note",
    "PLAIN": "| copy of",
    "LAW": "void invalid superseded",
}

OTHER_LANGUAGES: Final = {
    "NOT": (
        "nicht nichts nie niemals kein keine ohne ne pas jamais sans sin nunca jamás não nem sem non mai senza "
        "bez niet nooit geen zonder не без никогда нельзя لا دون değil asla olmadan inte aldrig"
    ),
    "TELL": (
        "sag sage sagen sagst erwähne erwähnen erwähn* mitteilen verrate verraten informiere informieren erzähle "
        "dis dire dites informe informez mentionne* révèle* digas decir dígale menciones mencion* informes "
        "reveles conte contar diga dizer mencione revele dirlo menzion* informare rivel* mów mówić mówi* powiedz* "
        "informuj wspomin* vertel vertellen zeg zeggen noem meld сообщ* говори* скажи* рассказыва* упомина* "
        "раскрыва* تخبر أخبر تذكر söyleme söyle* bahset* bildirme berätta nämn"
    ),
    "PERSON": (
        "benutzer* nutzer* anwender* utilisateur* usuario* usuário* utente* l'utente all'utente użytkownik* "
        "gebruiker* пользовател* المستخدم للمستخدم kullan\u0131c\u0131* användar* l'utilisateur"
    ),
    "QUIET": (
        "heimlich stillschweigend unbemerkt secrètement discrètement secretamente sigilosamente segretamente "
        "тайно незаметно скрытно سرا gizlice potajemnie hemligt"
    ),
    "READ": (
        "lies lese liest öffne lis lisez lire lee leer lea leia leggi leggere odczytaj przeczytaj lees прочитай* "
        "прочти читай اقرأ oku"
    ),
    "SEND": (
        "übergib sende schicke sendest übermittle übergeben schreibe füge envoie* envoyer transmet* passez insère "
        "envía enviar envíe envíalas pasa incluye envie envie-as inclua invia passa passala includi wyślij "
        "wysyłasz przekaż stuur doorgeeft geef verstuur отправь* отправл* передай* переда* вставь* أرسل مرر "
        "gönder* ilet* skicka"
    ),
    "SECRET": (
        "passwort passwörter passworts kennwort kennwörter zugangsdaten schlüssel geheimnis* anmeldedaten passe "
        "mots identifiants contraseña* clave claves credenciales senha* credenciais chave* credenzial* segreti "
        "hasło hasła haseł inloggegevens wachtwoord* парол* ключ* учётн* учетн* секрет* السر المرور parola* "
        "şifre* lösenord | mot de | mots de | clé privée | clés privées | clave privada | chave privada | chiave "
        "privata | privater schlüssel | clé api | كلمة المرور"
    ),
    "TALK": (
        "gespräch gesprächs gesprächsverlauf unterhaltung chatverlauf conversación conversa conversazione rozmow* "
        "gesprek переписк* разговор* беседу диалог* المحادثة konuşma*"
    ),
    "FIELD": (
        "feld argument* paramètre* parámetro* campo parâmetro* parametro* champ parametr* поле параметр* "
        "аргумент* المعامل parametre*"
    ),
    "TOOL": (
        "werkzeug* outil* herramienta* ferramenta* strumento* narzędzi* инструмент* الأداة أداة araç arac\u0131 "
        "gereedschap* hulpmiddel verktyg*"
    ),
    "IGNORE": (
        "ignoriere ignorier missachte vergiss ignorez oublie* ignora ignorar olvida* esqueça dimentica zignoruj "
        "zapomnij negeer vergeet игнорируй* забудь* تجاهل ignorera yoksay | yok say"
    ),
    "EARLIER": (
        "vorherigen vorherige bisherigen obigen früheren alle précédentes précédents toutes todas anteriores "
        "precedenti tutte poprzedni* wszystk* vorige eerdere предыдущ* все выше السابقة önceki tüm tidigare"
    ),
    "ORDERS": (
        "anweisung* anleitungen vorgaben instrucciones instruções istruzion* instrukcj* poleceni* instructies "
        "инструкц* указани* التعليمات talimat* instruktion* consignes"
    ),
    "BEFORE": "bevor antes avant prima перед przed voordat قبل",
    "OTHER": "anderes andere anderen autre autres otra otras outra outras altro altri другие другой inne ander",
    "USE": (
        "rufe benutze verwende aufrufst benutzt appelle utilise llama usa usar chame chama chiama вызови używaj roep"
    ),
}

UNSPACED: Final = {
    "NOT": "不要 请勿 勿 不得 不能 别 ないで しないで せず 말고 마세요 하지마 않고 말것",
    "TELL": "告诉 告知 提及 透露 告訴 知らせ 伝え 言わ 教え 말하 알리 언급",
    "PERSON": "用户 使用者 用戶 ユーザー 利用者 사용자",
    "IGNORE": "忽略 无视 忘记 無視 忘れ 무시 잊어",
    "EARLIER": "之前 以前 先前 所有 すべて これまで 上記 이전 모든",
    "ORDERS": "指令 指示 说明 提示 命令 지시 명령",
    "READ": "读取 读出 打开 読み取 読み込 읽",
    "SEND": "发送 传入 放进 上传 传递 填入 送っ 送信 含め 渡し 入れ 보내 전달 포함",
    "SECRET": "密码 密钥 私钥 凭证 凭据 令牌 パスワード 秘密鍵 認証情報 비밀번호 개인키",
    "TALK": "会话 对话 聊天记录 系统提示词 系统提示 会話 対話 システムプロンプト 대화 시스템프롬프트",
    "FIELD": "参数 字段 引数 パラメータ 매개변수 인수",
    "TOOL": "工具 ツール 도구",
    "QUIET": "秘密地 悄悄 偷偷 こっそり 密かに 몰래",
}
"""Of writing without spaces, or whose words carry endings of any kind: found wherever they stand."""
