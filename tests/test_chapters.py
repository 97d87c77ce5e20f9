"""How a reader names chapters, and what a chapter's outcome depends on."""

import json
from pathlib import Path

import pytest

from helpers import chapters
from helpers.errors import TutorialError
from helpers.settings import settings

pytestmark = pytest.mark.unit


def _notebook(path: Path, **meta: object) -> None:
    tutorial = {"title": path.stem, "minutes": 1, "reads": [], "after": [], **meta}
    path.write_text(json.dumps({"cells": [], "metadata": {"tutorial": tutorial}, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture
def shelf(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = sandbox / "notebooks"
    folder.mkdir()
    for name in ("01_ssh_config", "08_forwarder_local", "10_airflow"):
        _notebook(folder / f"{name}.ipynb")
    monkeypatch.setenv("TUTORIAL_NOTEBOOKS", str(folder))
    settings.cache_clear()
    return folder


@pytest.mark.parametrize("word", ["1", "01", "ssh", "01_ssh_config", "01_ssh_config.ipynb"])
def test_a_chapter_is_named_as_readers_do(shelf: Path, word: str) -> None:
    assert [c.name for c in chapters.select([word])] == ["01_ssh_config"]


def test_the_order_is_the_books(shelf: Path) -> None:
    assert [c.name for c in chapters.select(["10", "1"])] == ["01_ssh_config", "10_airflow"]
    assert [c.name for c in chapters.select(first="08")] == ["08_forwarder_local", "10_airflow"]


@pytest.mark.parametrize(("word", "count"), [("7", 0), ("_", 3), ("nothing", 0)])
def test_a_word_that_fits_none_or_many_is_answered_with_the_names(shelf: Path, word: str, count: int) -> None:
    with pytest.raises(TutorialError, match=f"fits {count} chapters") as caught:
        chapters.select([word])

    assert "01_ssh_config, 08_forwarder_local, 10_airflow" in caught.value.remedy


@pytest.mark.parametrize("text", ["{", "{}", '{"metadata": {}}'])
def test_a_notebook_without_its_metadata_is_a_clear_error(shelf: Path, text: str) -> None:
    (shelf / "02_broken.ipynb").write_text(text)
    with pytest.raises(TutorialError, match="02_broken.ipynb is not a chapter"):
        chapters.chapters()


def test_the_fingerprint_follows_what_the_chapter_reads_and_nothing_else(shelf: Path) -> None:
    read, other = shelf.parent / "application", shelf.parent / "other"
    for folder in (read, other):
        (folder / "logs").mkdir(parents=True)
        (folder / "run.py").write_text("1")
    _notebook(shelf / "01_ssh_config.ipynb", reads=[str(read)])

    def fingerprint(target: str = "local", **parameters: object) -> str:
        return chapters.select(["1"])[0].fingerprint(target, parameters)

    before = fingerprint()
    (other / "run.py").write_text("2")
    (read / "logs" / "today.log").write_text("it ran")
    assert fingerprint() == before
    assert len({before, fingerprint("cpouta"), fingerprint(user="me")}) == 3
    (read / "run.py").write_text("2")
    assert fingerprint() != before
