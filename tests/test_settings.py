"""Settings: environment over `tutorial.toml` over defaults; a bad value is named."""

from pathlib import Path

import pytest

from helpers.errors import TutorialError
from helpers.settings import ROOT, Settings, settings

pytestmark = pytest.mark.unit


@pytest.fixture
def toml(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "tutorial.toml"
    monkeypatch.setitem(Settings.model_config, "toml_file", path)
    settings.cache_clear()
    return path


def test_environment_goes_over_file_over_default(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings().notebooks == ROOT / "notebooks"
    toml.write_text("parallel = 3\ncell_timeout = 7\n")
    monkeypatch.setenv("TUTORIAL_PARALLEL", "4")
    settings.cache_clear()

    assert (settings().parallel, settings().cell_timeout) == (4, 7)
    settings.cache_clear()


@pytest.mark.parametrize(
    ("text", "named"), [("paralel = 3", "paralel"), ("parallel = 'many'", "parallel"), ("parallel = ", "TOML")]
)
def test_a_bad_file_is_a_clear_error(toml: Path, text: str, named: str) -> None:
    toml.write_text(text)
    settings.cache_clear()
    with pytest.raises(TutorialError, match=named):
        settings()
    settings.cache_clear()


def test_a_bad_variable_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTORIAL_DISPLAY", "pretty")
    settings.cache_clear()
    with pytest.raises(TutorialError, match="display"):
        settings()
    settings.cache_clear()


@pytest.mark.parametrize("name", ["STATE", "BUILD"])
@pytest.mark.parametrize(
    "value", ["/", "~", "{home}", "{home}/", "{home}/../home", "{above}", "{link}", "{root}", "/etc"]
)
def test_a_folder_that_holds_other_things_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    home, link = tmp_path / "home", tmp_path / "link"
    home.mkdir()
    link.symlink_to(home)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv(f"TUTORIAL_{name}", value.format(home=home, above=tmp_path, link=link, root=ROOT))
    settings.cache_clear()
    with pytest.raises(TutorialError, match="holds other things"):
        settings()
    monkeypatch.setenv(f"TUTORIAL_{name}", "~/of its own")
    assert getattr(settings(), name.lower()) == home / "of its own"
    settings.cache_clear()
