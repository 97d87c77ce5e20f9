"""One typed settings object: environment (`TUTORIAL_…`) over `tutorial.toml` over defaults."""

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource

from helpers.errors import TutorialError

ROOT = Path(__file__).resolve().parent.parent
_SYSTEM = ("/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/usr", "/var/lib")  # noqa: S108


class Settings(BaseSettings):
    """All that can be set, with its default; `TUTORIAL_STATE=/tmp/x` in the environment sets `state`."""

    model_config = SettingsConfigDict(env_prefix="TUTORIAL_", toml_file=ROOT / "tutorial.toml", extra="forbid")

    notebooks: Path = Field(ROOT / "notebooks", description="the notebooks that are the chapters")
    build: Path = Field(ROOT / "_build", description="executed notebooks, run reports and the rendered book")
    state: Path = Field(ROOT / ".tutorial", description="what runs or was made: processes, sandboxes, sockets")
    display: Literal["auto", "live", "html", "text"] = Field("auto", description="how helpers show things")
    chapter: str = Field("", description="the chapter that a headless run is in; set by the runner")
    checkpoints: Path | None = Field(None, description="file that checkpoints are recorded in; set by the runner")
    require: str = Field("", description="comma-separated parts that tests may not skip, e.g. docker,chromium")
    vm: str = Field("tutorial-vm", pattern=r"^[a-z][a-z0-9-]*$", description="the VM stand-in: container, SSH Host")
    airgap: bool | None = Field(None, description="no container registry can be reached; found out unless it is set")
    parallel: int = Field(2, ge=1, description="how many independent chapters run at the same time")
    cell_timeout: int = Field(300, ge=1, description="seconds that one cell may take")
    notebook_timeout: int = Field(900, ge=1, description="seconds that one notebook may take in all")

    @field_validator("build", "state")
    @classmethod
    def _a_folder_of_its_own(cls, folder: Path) -> Path:
        """Refuse a folder that holds others' things: parts of these two are replaced and deleted."""
        real = folder.expanduser().resolve()
        for taken in (Path.home(), ROOT, *map(Path, _SYSTEM)):
            if taken.resolve().is_relative_to(real):
                raise ValueError(
                    f"{folder} holds other things, too; choose a folder of its own, such as {real}/tutorial"
                )
        return folder.expanduser()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Order the sources: arguments, environment, `tutorial.toml` (pydantic-settings' own hook)."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)


@cache
def settings() -> Settings:
    """Read the settings once.

    Returns:
        The settings of this process.

    Raises:
        TutorialError: A value is not valid or a name in `tutorial.toml` is unknown; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise TutorialError(
            "The settings are not valid", wrong, "correct tutorial.toml, or the TUTORIAL_… variable of that name"
        ) from None
    except ValueError as error:
        raise TutorialError("tutorial.toml can't be read", str(error), "correct the file; it is TOML") from None
