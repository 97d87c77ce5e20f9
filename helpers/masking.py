"""Secrets in texts: recognised by what they are called, by where they stand and by their form, and replaced by `***`.

What is no secret stays readable: names without values, references (`$TOKEN`, `<none>`), literals (`false`, `null`) and
sentences ("the token is invalid"). A doubtful value of a name that means a secret is replaced.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Sequence
from typing import Any

_STARS = "***"
# What may stand after `token:` and the like without being one.
_WORDS = (
    "again also always an and another any are as ask at authentication basic be bearer between bool both but by "
    "break bytes can cannot check configured continue could created default deleted denied digest disabled do "
    "does during either "
    "empty enabled enter error even every exists expected expired failed false file for found from give given has "
    "have here if in incorrect int invalid is it its just log made make mandatory may missing more most much must "
    "needed neither never new next nil no nobody none not nothing now null object obtained of off old on one only "
    "optional or other our own please provided raise read received redacted refreshed refused regcred rejected renewed "
    "required return revoked rotated same saved secretstr see set should since stored updated using via "
    "so some str string such than that the their them then there these they this those through to too true try "
    "type unchanged undefined under unknown unset until up use used valid very wait was we were what when where "
    "which while who whoever whose why will with without would wrong yes you your "
)
_PLAIN = frozenset(_WORDS.split())
_REFERENCE = re.compile(
    r"\$\{?[A-Z_][A-Z0-9_]*\}?$|\$[a-z_]+$|\$[({]|\{|<|\[|\(|%[({s]|"
    r"[|>][+-]?\d*$|\d+ bytes$|[A-Za-z_][\w.]*\(|\*\*\*|…|\.\.\.|\?\w*$|#\s|#$|"
    r"[a-z0-9-]+-secrets?$|[a-z][a-z-]*-(?:password|token|key)$|"  # a Secret, and the names of keys in one
    r"(?:args|cfg|cls|conf|config|data|each|local|module|os|random_password|self|settings|var)\.[a-z_]+(?:[.\[]|$)|"
    r"[A-Za-z_][\w.]*\[(?:[\"'0-9]|$)|"
    r"(?:~|\.{1,2})/|/(?:data|etc|home|media|mnt|opt|path|private|root|run|secrets|srv|tmp|usr|Users|var)/"
)
_QUOTE = r"(?:\\*[\"']|&(?:quot|\#34|\#39|\#x27|apos);)"
_QUOTED = (
    r"\"(?:\\.|[^\"\\\n])+\"?|'(?:\\.|[^'\\\n])+'?|"
    r"(?P<quote>\\+[\"']|&(?:quot|\#34|\#39|\#x27|apos);)(?:(?!(?P=quote)).)+(?:(?P=quote))?"
)
_BARE = r"[^\s\"'`,;}\]&<>\\]+"
_VALUE = rf"(?P<value>{_QUOTED}|{_BARE})"
_KEY_OF = (
    "access|account|api|auth|certificate|encryption|fernet|hmac|jwt|license|master|private|secret|session|shared|"
    "signing|storage|subscription|webhook"
)
_NAME = (
    r"(?:pass(?:word|wd|phrase|code)|(?<=[_.])pass|(?<=[_;])pwd|(?<!unexpected )token|"
    r"(?<!existing)(?<!existing[_-])(?<!pull)(?<!pull[ _-])(?<!tls)(?<!tls[_-])secret|"
    rf"(?:{_KEY_OF})[-_. ]?key(?:[-_]base|[-_]data)?|client-key-data)(?:[-_]?\d+)?"
)
_TYPE = r"[ \t]*:[ \t]*(?:str|bytes|SecretStr|Optional\[str\]|str \| None)[ \t]*="
_NO_VALUE = r"(?!\d+ bytes|password [a-z])"  # passwd says: "passwd: password updated successfully"
_EQUALS = rf"(?:{_TYPE}|[ \t]*(?:=>|:=|==?|:))[ \t]*{_NO_VALUE}(?:[bfru]{{1,2}}(?=[\"']))?"
_LISTED = r"[\"'][ \t]*,[ \t]*(?=[\"'])"  # in a list of arguments
_OF_DATA = (
    "CACHE FOREIGN GROUP HOST IDEMPOTENCY OBJECT PARTITION PRIMARY PUB PUBLIC ROUTING SORT"  # keys that are no secrets
)
_NO_SECRET_KEY = "".join(f"(?<!{word})" for word in _OF_DATA.split())
_OPTION = (
    r"(?<![\w-])--?(?:[a-z0-9]+-)*(?:pass(?:word|wd|phrase)?|token|secret|client-secret|certificate-key|"
    r"(?:api|access|secret|private|account)-?key)"
)
_HEAD = rf"{_QUOTE}?\]?"  # after a name: its closing quote, and the bracket of `environ["TOKEN"]`


def _hidden(match: re.Match[str]) -> str:
    """Replace the group `value`, unless it is no secret; its quotes stay."""
    value = match["value"]
    quotes = re.match(rf"({_QUOTE}?)(.*?)({_QUOTE}?)\Z", value, re.DOTALL)
    opening, inner, closing = quotes.groups() if quotes else ("", value, "")
    if _is_plain(inner):
        return match[0]
    before, after = match[0][: match.start("value") - match.start()], match[0][match.end("value") - match.start() :]
    return f"{before}{opening}{_STARS}{closing}{after}"


def _is_plain(value: str) -> bool:
    words = re.findall(r"[\w'-]+", value.lower())
    if len(value) < 2 or not value.strip("*.?_-•… x") or _REFERENCE.match(value) or _REFERENCE.match(value.split()[0]):
        return True
    return bool(words) and value[:1].isalpha() and words[0] in _PLAIN


def _if_random(match: re.Match[str]) -> str:
    return _hidden(match) if _is_random(match["value"].strip("\"'\\")) else match[0]


def _is_random(value: str) -> bool:
    """Tell whether a value can be a key: long, of letters and digits, and no path, address or public key."""
    word = re.fullmatch(r"[\w+/=.~-]{16,}", value) and re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
    return bool(word) and not _REFERENCE.match(value) and not value.startswith(("ssh-", "ecdsa-", "sk-ssh-", "/"))


def _if_credentials(match: re.Match[str]) -> str:
    """Replace base64 text that holds `name:password`."""
    try:
        text = base64.b64decode(match["value"] + "===", validate=False)
    except (binascii.Error, ValueError):
        return match[0]
    return _hidden(match) if b":" in text and text.isascii() and text.decode().isprintable() else match[0]


def _if_private_key(match: re.Match[str]) -> str:
    head = base64.b64decode(match[0][:60])
    return _STARS if b"PRIVATE KEY" in head else match[0]


def _secret_object(text: str) -> str:
    """Replace the values of a Kubernetes Secret in YAML: of the keys below `data:` and `stringData:`."""
    lines, depth = [], -1
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip())
        if line.strip() and indent <= depth:
            depth = -1
        if depth >= 0 and (
            pair := re.match(r"(\s*[\"']?[\w.-]+[\"']?:[ \t]*)([^\s{\"'#|>].*|\"[^\"]+\"|'[^']+')$", line)
        ):
            line = pair[1] + _STARS
        elif depth >= 0 and line.strip() and ":" not in line:
            line = " " * indent + _STARS  # of a block
        if re.fullmatch(r"\s*(?:data|stringData):\s*", line):
            depth = indent
        lines.append(line)
    return "\n".join(lines)


def _passwords_of_list(match: re.Match[str]) -> str:
    """Replace the passwords of cloud-init's list of `name:password`."""
    return re.sub(r"^([ \t]+(?:- )?[\w.-]+:)(?!RANDOM|R$)[^\s|>]\S*", rf"\1{_STARS}", match[0], flags=re.MULTILINE)


def _secret_json(match: re.Match[str]) -> str:
    return re.sub(r"(\\*\"[\w.-]+\\*\"[ \t]*:\s*\\*\")[^\"\\]+", rf"\1{_STARS}", match[0])


_REGISTRY = "docker|podman|nerdctl|registry|oras|skopeo|crane"
_PEM = r"[A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----"
_AUTHORIZATION = rf"\bauthorization{_HEAD}[ \t]*[:=][ \t]*{_QUOTE}?"
_SCHEMES = "basic|bearer|token|apikey|api-key|key|jwt|oauth|negotiate|ntlm|bot|glsa"
_Replacement = str | Callable[[re.Match[str]], str]
_IGNORE = re.IGNORECASE
_LINES = re.IGNORECASE | re.MULTILINE


def _rule(pattern: str, by: _Replacement = _STARS, flags: int = 0) -> tuple[re.Pattern[str], _Replacement]:
    return re.compile(pattern, flags), by


# Known forms, wherever they stand. Sources: the providers' documentation of their token formats.
_FORMS = (
    r"gh[opsur]_\w{20,}|github_pat_\w{20,}|gl(?:agent|cbt|dt|ft|pat|ptt|rt|soat)-[\w-]{10,}|xox[abeoprs]-[\w-]{8,}|"
    r"xapp-[\w-]{20,}|A(?:KI|SI)A[A-Z0-9]{16}|eyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?|sk-(?=[\w-]*\d)[\w-]{20,}|"
    r"hf_(?=[a-z]*[A-Z0-9])[A-Za-z0-9]{16,}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,}|dckr_[a-z]+_[\w-]{20,}|AIza[\w-]{30,}|"
    r"ya29\.[\w-]{16,}|SG\.[\w-]{16,}\.[\w-]{16,}|[rs]k_(?:live|test)_\w{10,}|do[opr]_v1_[a-f0-9]{40,}|"
    r"hv[bs]\.[\w-]{20,}|gAAAAAB[\w-]{60,}={0,2}|AGE-SECRET-KEY-1[A-Z0-9]{20,}|"
    r"(?:bot)?\d{8,10}:AA[\w-]{30,}"
)
_RULES = (
    _rule(rf"-----BEGIN {_PEM}.*?(?:-----END {_PEM}|\Z)", flags=re.DOTALL),
    _rule(r"(Private-Lines: *\d+\r?\n)(?:[\w+/=]+\r?\n?)+", rf"\1{_STARS}\n"),
    _rule(r"(Private-MAC: *)[0-9a-f]+", rf"\1{_STARS}"),
    _rule(r"LS0tLS1CRUdJTi[\w+/=]{46,}", _if_private_key),
    _rule(rf"(?<![\w-])(?:{_FORMS})"),
    # Addresses. A password may hold @ and /; what looks like a port and a path is none.
    _rule(
        r"(?<=://)[^\s/:@\"'<>]{0,100}:(?!\*+@|\$[({]|[{<]|\d{1,5}(?:[/?#\s]|$))[^\s\"'<>]{1,300}(?=@)",
        f"{_STARS}:{_STARS}",
    ),
    _rule(r"(?<=://)(?=[^@\s/]*\d)[\w-]{20,}(?=@)"),
    _rule(r"(?<=://hooks\.slack\.com/)(?:services|workflows|triggers)/[\w/-]{20,}"),
    _rule(
        r"([?&](?:[\w-]*(?:token|signature|credential|secret|password|passwd)|sig|jwt|api_?key|temp_url_sig)=)"
        r"(?P<value>[^&\s#\"'<>\\]+)",
        _hidden,
        _IGNORE,
    ),
    _rule(r"[?&](?:key|code|auth)=(?P<value>[^&\s#\"'<>\\]+)", _if_random, _IGNORE),
    # Headers.
    _rule(rf"{_AUTHORIZATION}(?:digest|aws4-hmac-sha256|hawk)[ \t]+(?P<value>.+)", _hidden, _IGNORE),
    _rule(rf"{_AUTHORIZATION}(?:{_SCHEMES})[ \t]+(?P<value>[^\s\"'\\&<>,;]+)", _hidden, _IGNORE),
    _rule(
        rf"{_AUTHORIZATION}(?:[a-z][\w-]{{2,20}}[ \t]+)?(?P<value>(?=\S*\d|\S{{12}})[^\s\"'\\&<>,;]+)",
        _hidden,
        _IGNORE,
    ),
    _rule(rf"\bcookie{_HEAD}[ \t]*[:=][ \t]*{_QUOTE}?[^\s=;,\"'&]+=(?P<value>[^\n\"'&]+)", _hidden, _IGNORE),
    _rule(r"\bbearer[ \t]+(?P<value>(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,})", _hidden, _IGNORE),
    _rule(r"\bbasic[ \t]+(?P<value>[A-Za-z0-9+/]{6,}={0,2})(?![\w-])", _if_credentials, _IGNORE),
    _rule(r"\\*\"auth\\*\"[ \t]*:[ \t]*\\*\"(?P<value>[A-Za-z0-9+/]{6,}={0,2})", _if_credentials),
    _rule(r"(?:^|:)_auth[ \t]*=[ \t]*\"?(?P<value>[A-Za-z0-9+/]{6,}={0,2})", _if_credentials, _LINES),
    _rule(rf"dockerconfigjson{_HEAD}{_EQUALS}{_VALUE}", _hidden, _IGNORE),
    # Names and values: lines of environments (NAME=…) and of YAML to their end, others to the value's end.
    _rule(
        r"^[ \t]*(?:-[ \t]+)?(?:export[ \t]+)?(?:(?=[\w.-]+[ \t]*:)|(?-i:(?=[A-Z0-9_]+=)))"
        rf"[\w.-]{{0,80}}{_NAME}[ \t]*[:=][ \t]*{_NO_VALUE}(?P<value>[^\s\"'&\\<>{{](?:(?!</).)*)",
        _hidden,
        _LINES,
    ),
    _rule(rf"(?P<q>{_QUOTE})[\w.-]{{0,80}}{_NAME}=(?P<value>(?:(?!(?P=q)|</).)+)", _hidden, _IGNORE),
    _rule(
        rf"^([ \t-]*)([\w.-]{{0,80}}{_NAME}{_HEAD}:[ \t]*[|>][+-]?\d*[ \t]*\n)(?:\1[ \t]+\S.*\n?)+",
        rf"\1\2\1  {_STARS}\n",
        _LINES,
    ),
    _rule(rf"{_NAME}{_HEAD}{_EQUALS}{_VALUE}", _hidden, _IGNORE),
    _rule(rf"{_NO_SECRET_KEY}_KEY{_HEAD}{_EQUALS}{_VALUE}", _hidden),
    _rule(rf"{_NO_SECRET_KEY}[_-]key{_HEAD}{_EQUALS}{_VALUE}", _if_random, _IGNORE),
    _rule(rf"(?:basic[-_]?auth|rediscli_auth){_HEAD}{_EQUALS}\[?{_VALUE}", _hidden, _IGNORE),
    _rule(rf"\b(?:requirepass|masterauth)[ \t,\"']+{_VALUE}", _hidden, _IGNORE),
    _rule(r"(?:password|passphrase|token) (?:is|was):?[ \t]+(?P<value>(?=\S*\d)(?=\S*[a-z])\S{6,})", _hidden, _IGNORE),
    _rule(
        rf"name{_HEAD}:[ \t]*{_QUOTE}?[\w.-]{{0,80}}{_NAME}{_QUOTE}?,?\s+{_QUOTE}?value{_HEAD}:[ \t]*{_VALUE}",
        _hidden,
        _IGNORE,
    ),
    _rule(rf"<(\w*{_NAME})>(?P<value>[^<>\n]+)</", _hidden, _IGNORE),
    _rule(r"(?:identified by|password)[ \t]+(?P<value>'[^'\n]+')", _hidden, _IGNORE),
    _rule(r"\bset password for [^\s=]{1,100}[ \t]*=[ \t]*(?:password\()?(?P<value>'[^'\n]+')", _hidden, _IGNORE),
    # Tables of two columns, pairs, and what has the user's name between.
    _rule(
        rf"^\|[ \t]*(?:[\w.-]{{0,80}}{_NAME}|adminPass)[ \t]*\|[ \t]*(?P<value>[^\s|]+)(?=[ \t]*\|[ \t]*$)",
        _hidden,
        _LINES,
    ),
    _rule(rf"\(b?[\"'][\w.-]{{0,80}}{_NAME}[\"'],[ \t]*b?(?P<value>\"[^\"\n]+\"|'[^'\n]+')\)", _hidden, _IGNORE),
    _rule(
        r"(?:\bauth=|BasicAuth)\((?:\"[^\"\n]{0,100}\"|'[^'\n]{0,100}'),[ \t]*(?P<value>\"[^\"\n]+\"|'[^'\n]+')",
        _hidden,
    ),
    _rule(r"\bpassword for (?:user )?[\"']?[\w.@-]{1,100}[\"']?:[ \t]+(?P<value>[^\s\"',;]+)", _hidden, _IGNORE),
    _rule(rf"\bENV[ \t]+\w{{0,80}}{_NAME}[ \t]+(?!-){_VALUE}", _hidden, _IGNORE),
    _rule(r"^[ \t]+pass:[ \t]+(?P<value>[^\s\d\"',;{}\[\]]\S*|\"[^\"\n]+\"|'[^'\n]+')[ \t]*$", _hidden, re.MULTILINE),
    _rule(r"(?<=> )AUTH[ \t]+(?:[\w-]{1,100}[ \t]+)?(?P<value>\S+)[ \t]*$", _hidden, re.MULTILINE),
    _rule(r"\blogin[ \t]+\S{1,100}\s+password[ \t]+(?P<value>\S+)", _hidden, _IGNORE),
    # Options of commands.
    _rule(rf"{_OPTION}(?:[ \t]+|={{1}}|{_LISTED})(?!-){_VALUE}", _hidden, _IGNORE),
    _rule(rf"\bsshpass{_HEAD}[ \t,\"']+-p[ \t,]*{_VALUE}", _hidden),
    _rule(rf"\b(?:{_REGISTRY})[ \t]+login\b[^\n]{{0,300}}?[ \t]-p[ \t]+{_VALUE}", _hidden),
    _rule(rf"\bmysql(?:admin|dump)?[ \t](?:[^\n]{{0,300}}?[ \t])?-p(?![ \t]){_VALUE}", _hidden),
    _rule(rf"\bssh-keygen[ \t](?:[^\n]{{0,300}}?[ \t])?-[NP][ \t]+{_VALUE}", _hidden),
    _rule(rf"[ \t]-pass(?:in|out)?[ \t]+pass:{_VALUE}", _hidden),
    _rule(
        rf"\becho[ \t]+(?:-n[ \t]+)?{_VALUE}(?=[ \t]*\|[^\n|]{{0,300}}(?:--password-stdin|sudo -S|chpasswd))", _hidden
    ),
    _rule(rf"\bredis-cli[ \t](?:[^\n]{{0,300}}?[ \t])?-a[ \t]+{_VALUE}", _hidden),
    _rule(
        r"\b(?:curl|wget|http)[ \t](?:[^\n]{0,300}?[ \t])?(?:-u|--user|--proxy-user)[ =]*[\"']?[^\s:\"']+:"
        r"(?P<value>[^\s\"']+)",
        _hidden,
    ),
)
_DOCUMENT = re.compile(r"^(?=---[ \t]*$)", re.MULTILINE)
_IS_SECRET = re.compile(r"^[ \t-]*kind:[ \t]*[\"']?Secret[\"']?[ \t]*$", re.MULTILINE)
_SECRET_JSON = re.compile(r"\\*\"(?:data|stringData)\\*\"[ \t]*:\s*\{[^{}]*\}")
_IS_SECRET_JSON = re.compile(r"\\*\"kind\\*\"[ \t]*:[ \t]*\\*\"Secret\\*\"")
_CUT_KEY = re.compile(r"(?:^[\w+/=]{16,}\r?\n){1,200}(?=-----END [A-Z0-9 ]*PRIVATE KEY)", re.MULTILINE)
_CHPASSWD = re.compile(
    r"(?<=chpasswd:\n)(?:[ \t]+\w.*\n){0,2}?[ \t]+list:[ \t]*(?:[|>].*)?\n(?:[ \t]+(?:- )?[\w.-]+:.*\n?)+"
)
_VARIABLE = re.compile(rf"{_NAME}$", re.IGNORECASE)
_VARIABLE_KEY = re.compile(rf"{_NO_SECRET_KEY}_KEY$")


def mask(text: str) -> str:
    """Replace secrets in a text by `***`.

    Secrets are: the values of this process's environment variables whose names mean a secret, private keys, tokens of
    known forms, credentials in addresses and headers, the values of names such as `password`, `…_token` or
    `api_key`, secret options of commands, and the content of Kubernetes Secrets. Masking twice changes nothing more.

    Args:
        text: Any text that is about to be shown, logged or stored.

    Returns:
        The same text without the secrets.

    Example:
        >>> mask("redis://:hunter2@127.0.0.1, token: eight8 of them; the token is invalid")
        'redis://***:***@127.0.0.1, token: *** of them; the token is invalid'
    """
    for value in sorted(_own_secrets(), key=len, reverse=True):
        text = re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", _STARS, text)
    if "PRIVATE KEY" in text:
        text = _CUT_KEY.sub(f"{_STARS}\n", text)
    if _IS_SECRET.search(text):
        text = "".join(_secret_object(part) if _IS_SECRET.search(part) else part for part in _DOCUMENT.split(text))
    if _IS_SECRET_JSON.search(text):
        text = _SECRET_JSON.sub(_secret_json, text)
    if "chpasswd:" in text:
        text = _CHPASSWD.sub(_passwords_of_list, text)
    for pattern, by in _RULES:
        text = pattern.sub(by, text)
    return text


def mask_command(argv: Sequence[str]) -> list[str]:
    """Replace secrets in a command; an option's value may be a word of its own.

    Args:
        argv: The command's words.

    Returns:
        As many words.
    """
    words = [mask(word) for word in argv]
    for place, option in enumerate(argv[:-1]):
        if re.fullmatch(_OPTION, option, re.IGNORECASE) and not argv[place + 1].startswith("-"):
            words[place + 1] = _STARS
    return words


def mask_notebook(text: str, *, sources: bool = True) -> str:
    """Replace secrets in a notebook's file; it stays a notebook.

    Args:
        text: The file's content. What is no JSON is masked as ordinary text.
        sources: Mask all of it; else the outputs of cells only.

    Returns:
        The same notebook, without secrets in its sources and outputs.
    """
    try:
        content = json.loads(text)
    except ValueError:
        return mask(text)
    if sources:
        content = _masked(content)
    else:
        for cell in content.get("cells", []):
            cell |= {"outputs": _masked(cell["outputs"])} if "outputs" in cell else {}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _masked(value: Any) -> Any:
    if isinstance(value, str):
        return mask(value)
    if isinstance(value, dict):
        return {n: part if n.startswith("image/") else _masked(part) for n, part in value.items()}
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        lines = any(part.endswith("\n") for part in value)  # a text, cut into its lines
        return mask("".join(value)).splitlines(keepends=True) if lines else [mask(part) for part in value]
    return [_masked(part) for part in value] if isinstance(value, list) else value


def _own_secrets() -> set[str]:
    """Give the secrets among this process's environment, as far as they can be told from ordinary text."""
    found = set()
    for name, value in os.environ.items():
        mixed = re.search(r"\d", value) and re.search(r"[A-Za-z]", value)
        means_secret = _VARIABLE.search(name) or (_VARIABLE_KEY.search(name) and mixed and len(value) >= 8)
        long_enough = len(value) >= (8 if value.isdigit() else 4 if mixed else 6)
        if means_secret and long_enough and value.lower() not in _ORDINARY and not _is_plain(value):
            found.add(value)
    return found


_ORDINARY = {
    "admin",
    "airflow",
    "changeme",
    "passwd",
    "password",
    "postgres",
    "private",
    "public",
    "secret",
    "tutorial",
}
