"""Chapter 05's questions: what the platform's set-up scripts ask, answered, and compared before a script runs."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from shlex import quote

from helpers import shell, terminal
from helpers.errors import TutorialError
from helpers.target import Target


@dataclass(frozen=True)
class Question:
    """A question of a set-up script.

    Attributes:
        words: Words of it, by which it is found.
        why: Why the answer is what it is, for the reader.
        course: Whether the course's script asks it; upstream's asks all.
    """

    words: str
    why: str
    course: bool = False


# What upstream's integration-setup.sh and its scripts/install_tools.sh ask, in their order:
# https://github.com/K123AsJ0k1/multi-cloud-hpc-oss-mlops-platform.
QUESTIONS = (
    Question("Setup integration", "the parts that connect the platform with what is outside", course=True),
    Question("deployment option", "your parameter option", course=True),
    Question("local Docker registry", "images that you build need a place", course=True),
    Question("GPU cluster", "your parameter gpu", course=True),
    Question("Install Ray", "your parameter ray", course=True),
    Question("Setup GPU Ray", "with Ray and a GPU, Ray's workers use it; asked after Ray only"),
    Question("continue with the installation", "few cores or little disk: it works, and is slower"),
    Question("wish to install kubectl", "the kubectl that the machine has stays; it is newer"),
    Question("newer kustomize", "the platform's files need its version"),
    Question("installation on the existing cluster", "a second run goes on with the cluster of the first"),
)


def answers(option: int, registry: bool, gpu: bool, ray: bool) -> dict[str, str]:
    """Give an answer to each of `QUESTIONS`, by its words; see `oss_platform.answers`."""
    yes = {True: "y", False: "n"}
    given = ("y", str(option), yes[registry], yes[gpu], yes[ray], yes[gpu and ray], "y", "n", "y", "y")
    return {question.words: answer for question, answer in zip(QUESTIONS, given, strict=True)}


def explained(given: Mapping[str, str], source: str) -> list[Mapping[str, object]]:
    """Say why each answer is what it is.

    Args:
        given: The answers, by words of each question.
        source: Whose script: `course` or `upstream`.

    Returns:
        A row for each question that this script may ask: question has the words, answer, why.
    """
    known = {question.words: question for question in QUESTIONS}
    return [
        {"question has the words": words, "answer": answer, "why": known[words].why if words in known else "yours"}
        for words, answer in given.items()
        if words not in known or known[words].course or source == "upstream"
    ]


@dataclass(frozen=True)
class Prompt:
    """A prompt in a script.

    Attributes:
        text: What `read` prints.
        above: What is printed between the prompt before and this one, such as a menu.
        choices: The answers that it names, as in (y/n) or [1-4]; none where it names none.
    """

    text: str
    above: Sequence[str]
    choices: Sequence[str]


_STRING = r"\"(?:[^\"\\]|\\.)*\"|'[^']*'"
_READ = re.compile(rf"^[^#\n]*?\bread\b(?:[ \t]+(?!-\w*p)[^\s;|&\"']+)*[ \t]+-\w*p[ \t]*({_STRING})", re.MULTILINE)
_ASK = re.compile(r"^ask \w+ \"([^\"]+)\" (\S+)$", re.MULTILINE)  # the course's own way to ask
_PRINTED = re.compile(rf"^[^#\n]*?\b(?:echo|printf)\b[^\n\"']*({_STRING})", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{[^}]*\}|\$[\w!@#]+")
_CHOICES = re.compile(r"[(\[]\s*([A-Za-z]+(?:\s*/\s*[A-Za-z]+)+)\s*[)\]]")
_RANGE = re.compile(r"\[(\d)-(\d)\]")


def prompts(script: str) -> list[Prompt]:
    """Find the prompts of a bash script: of `read -p`, and of the course's function `ask`.

    Args:
        script: Its text.

    Returns:
        The prompts in their order. One that is made of variables only says nothing, and is left out.
    """
    found, end = list[tuple[int, Prompt]](), 0
    for read in _READ.finditer(script):
        text = _unquoted(read[1])
        if re.search(r"\w\w", _VARIABLE.sub("", text)):
            above = [_unquoted(printed) for printed in _PRINTED.findall(script, end, read.start())]
            found.append((read.start(), Prompt(text, above, _choices(text))))
        end = read.end()
    found += [(ask.start(), Prompt(ask[1], (), ask[2].split("/"))) for ask in _ASK.finditer(script)]
    return [prompt for _, prompt in sorted(found, key=lambda row: row[0])]


def _unquoted(string: str) -> str:
    return re.sub(r"\\(.)", r"\1", string[1:-1])


def _choices(text: str) -> Sequence[str]:
    if found := _RANGE.search(text):
        return [str(n) for n in range(int(found[1]), int(found[2]) + 1)]
    named = _CHOICES.search(text)
    return re.split(r"\s*/\s*", named[1]) if named else ()


def fitting(script: str, given: Mapping[str, str]) -> dict[str, str]:
    """Compare answers with the questions of a script.

    Args:
        script: Its text, with that of the scripts that it runs.
        given: The answers, by words of each question.

    Returns:
        The answers in the form that the script takes: `yes` for `y` where it asks (yes/no).

    Raises:
        TutorialError: It asks something that has no answer, or takes another one; nothing has run.
    """
    result, unknown = dict(given), list[str]()
    for prompt in prompts(script):
        words = _words(prompt, given)
        if words is None:
            unknown.append(prompt.text.strip())
            continue
        answer = _in_form(given[words], prompt.choices)
        if answer is None:
            raise TutorialError(
                f"The script does not take the answer to: {prompt.text.strip()}",
                f"it takes {', '.join(prompt.choices)}, and the answer is {given[words]!r}; nothing has run",
                f'correct it: answers["{words}"] = "{prompt.choices[0]}"',
            )
        result[words] = answer
    if unknown:
        idle = unasked(script, given)
        why = "no answer has its words" + (f", and it never asks for: {'; '.join(idle)}" if idle else "")
        raise TutorialError(
            f"The script asks: {'; '.join(unknown)}",
            f"{why}. Nothing has run",
            'add an answer: answers["words of the question"] = "y"',
        )
    return result


def unasked(script: str, given: Mapping[str, str]) -> list[str]:
    """List the answers whose question a script does not have."""
    asked = {_words(prompt, given) for prompt in prompts(script)}
    return [words for words in given if words not in asked]


def _words(prompt: Prompt, given: Mapping[str, str]) -> str | None:
    """Find the answer of a prompt as `terminal.converse` does: by its own words, else by the last of those above it."""
    patterns = [(words, terminal.question_words(words)) for words in given]
    return next((w for line in (prompt.text, *reversed(prompt.above)) for w, p in patterns if p.search(line)), None)


def _in_form(answer: str, choices: Sequence[str]) -> str | None:
    """Give an answer as one of the choices; None where it is none of them."""
    if not choices or answer in choices:
        return answer
    same = [c for c in choices if c.lower() == answer.lower()]
    longer = [c for c in choices if {answer.lower(), c.lower()} in ({"y", "yes"}, {"n", "no"})]
    if same and any(c.islower() for c in choices):  # (Y/n): the capital letter is the default, both are taken
        return answer
    return next(iter(same + longer), None)


def read_script(target: Target, folder: str, script: str) -> str:
    """Read a set-up script on the machine, with the scripts that it names, without running anything.

    Args:
        target: The machine.
        folder: The script's folder there; a relative one starts at the home folder.
        script: Its name.

    Returns:
        Their text, one after the other. Scripts for macOS are left out, as they do not run here.

    Raises:
        TutorialError: It is not there, or bash can't read it.
    """
    there, name = f"cd && cd {quote(folder)}", quote(script)
    named = f"grep -ohE 'scripts/[A-Za-z0-9_./-]+\\.sh' {name} | sort -u | grep -v _mac"
    answers = shell.query(
        target,
        {
            "script": f"{there} && cat {name} && for f in $({named}); do if [ -f $f ]; then echo; cat $f; fi; done",
            "errors": f"{there} && bash -n {name} 2>&1; true",
        },
    )
    if answers["script"] is None:
        raise TutorialError(
            f"{script} can't be read", f"it is not in the folder {folder}",
            "run oss_platform.fetch first; look at the parameters repository, branch and folder", target=target.name,
        )  # fmt: skip
    if answers["errors"]:
        raise TutorialError(
            f"{script} can't be run", "bash finds an error in it", "tell its authors, or take another branch",
            target=target.name, output=answers["errors"],
        )  # fmt: skip
    return answers["script"]
