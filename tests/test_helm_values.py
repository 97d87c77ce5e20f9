"""Chapter 07: values are shown as Helm computes them; the real helm is asked for the same tables."""

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from helpers import go_yaml, helm_values, tools
from helpers.errors import TutorialError

unit = pytest.mark.unit

# What is written, and what it is to a chart.
SCALARS: list[tuple[str, object]] = [
    ("22:22", "22:22"), ("190:20:30", "190:20:30"), ("1:2", "1:2"), ("1e3", 1000), ("12e03", 12000), ("1E+3", 1000),
    ("1e-7", 1e-7), ("1e400", "1e400"), ("0o777", 511), ("-0o17", -15), ("0o8", "0o8"), ("0777", 511), ("010", 8),
    ("08", 8), ("0x1F", 31), ("0b101", 5), ("+1", 1), ("-0", 0), ("1_000", 1000), ("685_230.15", 685230.15),
    ("1,000", "1,000"), (".5", 0.5), ("-.5", -0.5), ("._5", "._5"), ("1.", 1), ("1.0", 1), ("1.10", 1.1),
    ("yes", True), ("Off", False), ("on", True), ("n", False), ("yEs", "yEs"), ("True", True), ('"yes"', "yes"),
    ("2024-01-01", "2024-01-01"), ("2001-12-14t21:59:43.10-05:00", "2001-12-14t21:59:43.10-05:00"), ("~", None),
    ("NULL", None), ("nULL", "nULL"), ("", None), ("9007199254740993", 9007199254740992),
    ("12345678901234567890", 1.2345678901234567e19), ("123456789012345678901234567890", 1.2345678901234568e29),
    ("!!str 1", "1"), ('!!int "3"', 3), ("!!float 3", 3), ("!own x", "x"), ("'1e3'", "1e3"), ("http://x:80/y", "http://x:80/y"),
    ("x\ty", "x\ty"), ("v1.20", "v1.20"), ("=x", "=x"), ("1Gi", "1Gi"), ("0.10", 0.1), ("1.2.3", "1.2.3"),
]  # fmt: skip

# A file, and what a chart gets of it.
FILES: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("# nothing\n", {}),
    ("\ufeffa: 1\n", {"a": 1}),
    ("---\na: 1\n---\n", {"a": 1}),
    ("a:\t1\n", {"a": 1}),
    (
        "1: a\n1.50: b\ny: c\n2024-01-01: d\n0x10: e\n",
        {"1": "a", "1.5": "b", "true": "c", "2024-01-01": "d", "16": "e"},
    ),
    ("m: &m {x: 1, z: 1}\no: {<<: *m, z: 2}\n", {"m": {"x": 1, "z": 1}, "o": {"x": 1, "z": 2}}),
    ("a: {x, b: c:d}\n", {"a": {"x": None, "b": "c:d"}}),
    ('{"json": [1.5, true, null]}', {"json": [1.5, True, None]}),
]

# A file that Helm refuses, or of which it would pass over a part without a word; and the line that is named.
WRONG: list[tuple[bytes, str]] = [
    ("a: 1\n".encode("utf-16"), "line 1: it is written in UTF-16"),
    ("a: 1\n".encode("utf-16-be"), "line 1"),
    (b"a: 1\nb:\n- =\n", "line 3: `=` alone"),
    (b"a: =\n", "line 1: `=` alone"),
    (b"a:\n\t- 1\n", "line 2: it is indented by a tab"),
    (b"a: 1\nb: [\n", "line 3"),
    (b"a: 1\nb: 2\na: 3\n", "line 3: `a` is there twice, first in line 1"),
    (b"x: {a: 1,\n a: 2}\n", "line 2: `a` is there twice"),
    (b"a: 1\n---\nb: 2\n", "line 3: a second document"),
    (b"a: \xff\n", "line 1"),
    (b"a: 1\nb: \x01\n", "line 2"),
    (b"a: @x\n", "line 1"),
    (b"a: 1\nb: !!int x\n", "line 2: `x` is not a value of the type !!int"),
    (b"a: .inf\n", "line 1: .inf"),
    (b"? {a: 1}\n: 2\n", "line 1"),
    (b"~: 2\n", "line 1: a name in a mapping is null"),
    (b"a: &x {b: *x}\n", "line 1: an anchor contains itself"),
    (b"a: {<<: 3}\n", "line 1: what `<<` merges"),
    (b"- a\n", "not a mapping"),
    (b"text\n", "not a mapping"),
]

DEFAULTS = "keep: 1\ngone: 1\ndeep: {gone: 1, kept: 2}\nlist: [a, b]\n"
OWN = "list: [u, v, w]\nm: {a: [{p: 1}, {p: 2}]}\nnothing: null\ngone: null\n"
# A single value: its path, what it is set to, and what a chart with DEFAULTS has then, without and with the file OWN.
SETTINGS: list[tuple[str, object, Mapping[str, Any], Mapping[str, Any]]] = [
    ("list[0]", "q", {"list": ["q"]}, {"list": ["q", "v", "w"]}),
    ("list[3]", "q", {"list": [None, None, None, "q"]}, {"list": ["u", "v", "w", "q"]}),
    ("m.a[1].p", 9, {"m": {"a": [None, {"p": 9}]}}, {"m": {"a": [{"p": 1}, {"p": 9}]}}),
    ("m.a[0].z", 9, {"m": {"a": [{"z": 9}]}}, {"m": {"a": [{"p": 1, "z": 9}, {"p": 2}]}}),
    ("new[1].x", True, {"new": [None, {"x": True}]}, {"new": [None, {"x": True}]}),
    ("new[0][1]", 5, {"new": [[None, 5]]}, {"new": [[None, 5]]}),
    ("list[0].b", 1, {"list": [{"b": 1}]}, {"list": [{"b": 1}, "v", "w"]}),
    (r"a.b\.c.d", 1, {"a": {"b.c": {"d": 1}}}, {"a": {"b.c": {"d": 1}}}),
    (r"q\[0\]", 1, {"q[0]": 1}, {"q[0]": 1}),
    (r"q\,r\=s", 1, {"q,r=s": 1}, {"q,r=s": 1}),
    ("deep.gone", None, {"deep": {"kept": 2}}, {"deep": {"kept": 2}}),
    ("deep.er", 1, {"deep": {"gone": 1, "kept": 2, "er": 1}}, {"deep": {"gone": 1, "kept": 2, "er": 1}}),
    ("other", None, {"other": None}, {"other": None}),
    ("keep.x", 1, {"keep": {"x": 1}}, {"keep": {"x": 1}}),
    ("big", 12345678901234567890, {"big": 1.2345678901234567e19}, {"big": 1.2345678901234567e19}),
    ("text", "1e3", {"text": "1e3"}, {"text": "1e3"}),
]  # fmt: skip
WRONG_PATHS = ["", "a..b", "a.", ".a", "a[0]x", "a[-1]", "a[x]", "a[", "a=b", "a,b", "[0]", "a[70000]"]


@unit
@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[text for text, _ in SCALARS])
def test_a_value_is_what_it_is_to_a_chart(tmp_path: Path, text: str, value: object) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(f"a: {text}\n")
    found = helm_values.read(path)["a"]
    assert found == value and isinstance(found, bool) == isinstance(value, bool)


@unit
@pytest.mark.parametrize(("text", "content"), FILES)
def test_a_file_is_what_it_is_to_a_chart(tmp_path: Path, text: str, content: dict[str, Any]) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(text, encoding="utf-8")
    assert helm_values.read(path) == content


@unit
@pytest.mark.parametrize(("content", "why"), WRONG)
def test_a_file_that_is_wrong_is_named_with_its_line(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_bytes(content)
    with pytest.raises(TutorialError) as error:
        helm_values.read(path)
    assert why in error.value.why and str(path) in error.value.what and error.value.remedy


@unit
def test_without_libyaml_pyyaml_itself_reads_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    import yaml

    try:
        monkeypatch.delattr(yaml, "CSafeLoader")
        importlib.reload(go_yaml)
        for text, value in SCALARS:
            if "\t" not in text:
                assert go_yaml.values(f"a: {text}".encode(), "x") == {"a": value}
    finally:
        monkeypatch.undo()
        importlib.reload(go_yaml)


@unit
@pytest.mark.parametrize(("path", "value", "plain", "over_own"), SETTINGS, ids=[row[0] for row in SETTINGS])
def test_a_single_value_comes_over_the_files_and_not_into_the_defaults(
    path: str, value: Any, plain: Mapping[str, Any], over_own: Mapping[str, Any]
) -> None:
    defaults, own = (go_yaml.values(text.encode(), "x") for text in (DEFAULTS, OWN))
    name = next(iter(plain))
    assert helm_values.merged([defaults], {path: value})[name] == plain[name]
    assert helm_values.merged([defaults, own], {path: value})[name] == over_own[name]
    assert defaults == go_yaml.values(DEFAULTS.encode(), "x"), "nothing that is given is changed"


@unit
@pytest.mark.parametrize("path", WRONG_PATHS)
def test_a_path_that_helm_would_not_take_is_refused(path: str) -> None:
    with pytest.raises(TutorialError, match=r"not the path of a value|names entry 70000"):
        helm_values.merged([{}], {path: 1})


@unit
@pytest.mark.parametrize("path", ["list.x", "nothing.x", "m[0]", "m.a.p", "m.a[0][0]"])
def test_a_path_that_does_not_fit_the_file_is_refused(path: str) -> None:
    with pytest.raises(TutorialError, match="does not fit the values files"):
        helm_values.merged([{}, go_yaml.values(OWN.encode(), "x")], {path: 1})


@unit
def test_the_diff_gives_paths_that_can_be_set() -> None:
    rows = helm_values.differences({}, {"a.b": {"c[0]": 1}, "d=e": 2, "f": {}})
    assert [(row["value"], row["here"]) for row in rows] == [(r"a\.b.c\[0]", 1), (r"d\=e", 2), ("f", "{}")]
    made = helm_values.merged([{}], {str(row["value"]): row["here"] for row in rows[:2]})  # type: ignore[misc]
    assert made == {"a.b": {"c[0]": 1}, "d=e": 2}


# ------------------------------------------------------------------------------------------------ the real helm

Render = Callable[..., dict[str, Any]]


@pytest.fixture
def render(require: Callable[[str], str], tmp_path: Path) -> Render:
    """Give a function that asks the real helm which values a chart of one file gets."""
    require("docker")  # without a way out the lab makes the program
    chart = tmp_path / "chart"
    (chart / "templates").mkdir(parents=True)
    (chart / "Chart.yaml").write_text("{apiVersion: v2, name: shown, version: 0.1.0}")
    (chart / "templates" / "all.yaml").write_text("{{ toJson .Values }}")

    def ask(defaults: str, files: Sequence[bytes], *words: str) -> dict[str, Any]:
        (chart / "values.yaml").write_text(defaults)
        argv = [str(tools.find("helm")), "template", "shown", str(chart), *words]
        for number, content in enumerate(files):
            (tmp_path / f"{number}.yaml").write_bytes(content)
            argv += ["-f", str(tmp_path / f"{number}.yaml")]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise ValueError(done.stderr)
        return dict(json.loads(done.stdout.partition("all.yaml\n")[2], parse_int=float))

    return ask


def component(test: Any) -> Any:
    """Mark a test that runs the real helm, which may have to be built first."""
    for mark in (pytest.mark.component, pytest.mark.docker, pytest.mark.timeout(1800)):
        test = mark(test)
    return test


@component
def test_the_tables_are_what_the_real_helm_computes(render: Render) -> None:
    text = "".join(f"v{number}: {text}\n" for number, (text, _) in enumerate(SCALARS))
    assert render("", [text.encode()]) == {f"v{number}": value for number, (_, value) in enumerate(SCALARS)}
    for text, content in FILES:
        assert render("", [text.encode()]) == content, text


@component
def test_single_values_are_what_the_real_helm_makes_of_them(render: Render) -> None:
    for path, value, *expected in SETTINGS:
        words = ["--set-json", f"{path}={json.dumps(value)}"]
        for files, made in zip(([], [OWN.encode()]), expected, strict=True):
            shown = render(DEFAULTS, files, *words)
            assert all(shown.get(name, "gone") == part for name, part in made.items()), (path, files)
            ours = helm_values.merged([go_yaml.values(t, "x") for t in (DEFAULTS.encode(), *files)], {path: value})  # type: ignore[dict-item]
            assert ours == shown, (path, files)


@component
def test_what_is_refused_the_real_helm_refuses_or_passes_over(render: Render) -> None:
    passed_over = ("UTF-16", "`=` alone", "twice", "a second document")  # Helm is silent on these, or other tools fail
    for content, why in WRONG:
        if not any(word in why for word in passed_over) and content[:1] not in b"\xff\xfe\0":
            with pytest.raises(ValueError):
                render("", [content])
    for path in set(WRONG_PATHS) - {"", ".a", "a=b", "[0]"}:  # these Helm ignores, or takes for another path and value
        with pytest.raises(ValueError):
            render("", [], "--set-json", f"{path}=1")
