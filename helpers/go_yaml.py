"""YAML as the tools of Kubernetes read it: kind, Helm and kubectl are written in Go, and Go's YAML is not Python's.

Python's YAML takes `22:22` for the number 1342, `1e3` for a text and `0o777` for a text. Go takes them for a text, 1000
and 511. Source: https://github.com/yaml/go-yaml (resolve.go), versions 2 (Helm) and 3 (kind).
"""

import codecs
import math
import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from helpers.errors import TutorialError

_PREFIX = "tag:yaml.org,2002:"
STR, NULL, BOOL, INT, FLOAT, MERGE = (f"{_PREFIX}{name}" for name in ("str", "null", "bool", "int", "float", "merge"))
_PLAIN = "plain"  # the tag of a scalar that has neither quotes nor a tag: its text says what it is
_NULLS = {"", "~", "null", "Null", "NULL"}
_TRUE, _FALSE = ({word, word.title(), word.upper()} for word in ("true", "false"))
# These are truth values to Helm's YAML; to kind's only where a truth value is expected.
YES = {"y", "Y", "yes", "Yes", "YES", "on", "On", "ON"}
NO = {"n", "N", "no", "No", "NO", "off", "Off", "OFF"}
_NOT_NUMBERS = {".nan", ".NaN", ".NAN", *(sign + i for sign in ("", "+", "-") for i in (".inf", ".Inf", ".INF"))}
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]*))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_EXACT = 2**53  # whole numbers above it have no exact float
_WIDE = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HELP = "correct the file, or the path to it"


# libyaml, which PyYAML's wheels contain, is what Go's YAML was translated from; PyYAML's own reader stands in for it.
_Reader: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Reader):  # type: ignore[misc]
    """A reader without PyYAML's own idea of what a text without quotes is."""

    def resolve(self, kind: type[Node], value: Any, implicit: Any) -> str:
        if kind is ScalarNode:
            return _PLAIN if implicit[0] else STR
        return str(super().resolve(kind, value, implicit))


class Wrong(Exception):
    """A part of the document is not what is expected; `node` is where."""

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(reason)
        self.node, self.reason = node, reason


def line(node: Node) -> int:
    """Give the line, from 1 on, at which a node begins."""
    return int(node.start_mark.line) + 1


def compose(content: bytes, name: str, *, several: bool = True) -> Node | None:
    """Read the first document of a file as a tree of nodes, each with its line.

    Args:
        content: The file's bytes.
        name: Its name, for the message.
        several: Whether more documents may follow; Go's readers ignore those.

    Returns:
        The root; None where the document is empty.

    Raises:
        TutorialError: It is not YAML; the message names the line.
    """
    try:
        loader = _Loader(content)
        if not loader.check_node():
            return None
        root: Node = loader.get_node()
        while not several and loader.check_node():
            second = loader.get_node()
            if second.value != "":  # a last `---` with nothing below is none
                raise Wrong(second, "a second document begins here, and only the first one would be read")
        return root
    except Wrong as error:
        why = f"line {line(error.node)}: {error.reason}"
        raise TutorialError(f"{name} can't be read", why, "keep one document in the file") from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise TutorialError(f"{name} can't be read", reason(error, content), _HELP) from None


def reason(error: Exception, content: bytes) -> str:
    """Say in which line of a file Python's YAML found what."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark, text = error.problem_mark or error.context_mark, error.problem or error.context or "it is not YAML"
        if mark and "cannot start" in text and b"\t" in _indent(content, mark.line):
            text = "it is indented by a tab, and YAML takes spaces only"
        return f"line {mark.line + 1}: {text}" if mark else text
    if isinstance(error, yaml.reader.ReaderError):
        at = error.position if isinstance(error.position, int) else 0
        number = content[:at].count(b"\n") + 1
        return f"line {number}: it has a character that YAML does not take ({error.reason})"
    return "line 1: it is nested too deeply" if isinstance(error, RecursionError) else f"line 1: {error}"


def _indent(content: bytes, number: int) -> bytes:
    lines = content.splitlines()  # YAML counts more characters as ends of lines
    text = lines[number] if number < len(lines) else content
    return text[: len(text) - len(text.lstrip())]


def refuse_utf_16(content: bytes, name: str) -> None:
    """Refuse UTF-16, in which some editors of Windows write; the course's other tools take UTF-8 only."""
    if content.startswith(_WIDE):
        why, remedy = (
            "line 1: it is written in UTF-16, and not in UTF-8",
            f"convert it: iconv -f UTF-16 -t UTF-8 {name}",
        )
        raise TutorialError(f"{name} can't be read", why, remedy)


def scalar(node: ScalarNode, words: bool = True) -> tuple[str, Any]:
    """Tell what a scalar is to Go's YAML.

    Args:
        node: The scalar.
        words: Whether `yes`, `no`, `on` and `off` are truth values (version 2) or texts (version 3).

    Returns:
        Its tag and its value.

    Raises:
        ValueError: It has a tag that it does not fit.
    """
    if node.tag not in (_PLAIN, NULL, BOOL, INT, FLOAT):
        return STR, node.value
    tag, value = _plain(node.value, words)
    if node.tag == FLOAT and tag == INT:
        return FLOAT, float(value)
    if node.tag not in (_PLAIN, tag):
        raise ValueError(f"`{node.value}` is not a value of the type !!{node.tag.removeprefix(_PREFIX)}")
    return tag, value


def _plain(text: str, words: bool) -> tuple[str, Any]:
    if text in _NULLS:
        return NULL, None
    if text in _TRUE or (words and text in YES):
        return BOOL, True
    if text in _FALSE or (words and text in NO):
        return BOOL, False
    if text in _NOT_NUMBERS:
        return FLOAT, float(text.replace(".", ""))
    number = text.replace("_", "") if text[0] in "+-0123456789" else text
    if found := _INTEGER.fullmatch(number):
        value = next(
            int(digits, base) for digits, base in zip(found.groups()[1:], (16, 2, 8, 10), strict=True) if digits
        )
        value = -value if found[1] == "-" else value
        if -(2**63) <= value < 2**63 or (not found[1] and value < 2**64):
            return INT, value
    if _FLOAT.fullmatch(number) and math.isfinite(float(number)):
        return FLOAT, float(number)
    return STR, text


def same_keys(node: MappingNode) -> Iterator[tuple[Node, Node]]:
    """List the keys of a mapping that are there already: each with the first of its name."""
    first: dict[str, Node] = {}
    for key, _ in node.value:
        if isinstance(key, ScalarNode):
            if key.value in first:
                yield key, first[key.value]
            first.setdefault(key.value, key)


def pairs(node: MappingNode) -> list[tuple[Node, Node]]:
    """List the keys and values of a mapping, with what `<<` merges into it; what is written itself counts."""
    own = [(key, value) for key, value in node.value if not _merges(key)]
    names = {key.value for key, _ in own if isinstance(key, ScalarNode)}
    for key, value in node.value:
        for merged in (value.value if isinstance(value, SequenceNode) else [value]) if _merges(key) else ():
            if not isinstance(merged, MappingNode):
                raise Wrong(merged, "what `<<` merges is not a mapping")
            own += [pair for pair in pairs(merged) if pair[0].value not in names]
            names |= {pair[0].value for pair in own if isinstance(pair[0], ScalarNode)}
    return own


def _merges(key: Node) -> bool:
    return isinstance(key, ScalarNode) and key.value == "<<" and key.tag in (_PLAIN, MERGE)


def values(content: bytes, name: str, *, strict: bool = False) -> Any:
    """Read a document as Helm does: YAML becomes JSON, and each number of it a float.

    Args:
        content: The file's bytes.
        name: Its name, for the message.
        strict: Refuse what Helm passes over without a word: a second document, a name that occurs twice, and `=` alone.

    Returns:
        What Helm has for it: mappings whose names are all texts, lists, texts, numbers, truth values and None. Whole
        numbers are integers as long as a float holds them exactly.

    Raises:
        TutorialError: Helm would not take it; the message names the line.
    """
    refuse_utf_16(content, name)
    root = compose(content, name, several=not strict)
    try:
        return None if root is None else _json(root, strict, ())
    except Wrong as error:
        raise TutorialError(f"{name} can't be read", f"line {line(error.node)}: {error.reason}", _HELP) from None


def documents(content: bytes, name: str, *, strict: bool = False) -> list[Any]:
    """Read all documents of a file, as `values` reads one; empty ones are left out."""
    refuse_utf_16(content, name)
    try:
        roots = [root for root in yaml.compose_all(content, _Loader) if root.value != ""]
        return [_json(root, strict, ()) for root in roots]
    except Wrong as error:
        raise TutorialError(f"{name} can't be read", f"line {line(error.node)}: {error.reason}", _HELP) from None
    except (yaml.YAMLError, UnicodeError, RecursionError) as error:
        raise TutorialError(f"{name} can't be read", reason(error, content), _HELP) from None


def _json(node: Node, strict: bool, above: tuple[Node, ...]) -> Any:
    if node in above:
        raise Wrong(node, "an anchor contains itself")
    if isinstance(node, SequenceNode):
        return [_json(part, strict, (*above, node)) for part in node.value]
    if isinstance(node, MappingNode):
        for again, first in same_keys(node) if strict else ():
            raise Wrong(again, f"`{again.value}` is there twice, first in line {line(first)}")
        return {_name(key): _json(value, strict, (*above, node)) for key, value in pairs(node)}
    if strict and node.tag == _PLAIN and node.value == "=":  # Helm takes it for a text, other readers don't take it
        raise Wrong(node, "`=` alone is a special word of YAML; put it into quotes")
    return _number(node, _value(node))


def _value(node: Node) -> Any:
    if not isinstance(node, ScalarNode):
        raise Wrong(node, "a name in a mapping is a mapping or a list itself")
    try:
        return scalar(node)[1]
    except ValueError as error:
        raise Wrong(node, str(error)) from None


def _number(node: Node, value: Any) -> Any:
    try:
        return number(value)
    except OverflowError:
        raise Wrong(node, f"{node.value} is not a number that JSON has") from None


def number(value: Any) -> Any:
    """Give a value as it is after JSON has carried it to Helm: a number is a float then, a whole one shown as such.

    Raises:
        OverflowError: It is infinite, or not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    carried = float(value)
    if not math.isfinite(carried):
        raise OverflowError
    return int(carried) if carried.is_integer() and abs(carried) <= _EXACT else carried


def _name(key: Node) -> str:
    value = _number(key, _value(key))
    if value is None:
        raise Wrong(key, "a name in a mapping is null")
    return str(value).lower() if isinstance(value, bool) else str(value)
