"""The outputs that git keeps of a notebook: text of a `local` run, and nothing that differs from run to run.

As a pre-commit step: `python -m helpers.notebook_outputs FILE…` (exit code 1 when a file had to be changed).
"""

import sys
from pathlib import Path
from typing import Any

import nbformat

from helpers.errors import TutorialError
from helpers.processes import write_atomically

VARIES = "nbval-ignore-output"
_KEPT_METADATA = ("kernelspec", "language_info", "tutorial")
_LANGUAGE_INFO = {"name": "python"}


def strip(notebook: Any) -> None:
    """Drop images, widgets, HTML, execution counts, times and run metadata, in place.

    Args:
        notebook: An nbformat 4 notebook.

    Raises:
        TutorialError: A cell's output is an error; such a notebook is not committed.
    """
    notebook.metadata = {k: v for k, v in notebook.metadata.items() if k in _KEPT_METADATA}
    notebook.metadata["language_info"] = _LANGUAGE_INFO
    for cell in notebook.cells:
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags" and v}
        if cell.cell_type == "code":
            cell.execution_count = None
            varies = VARIES in cell.metadata.get("tags", ())
            cell.outputs = [] if varies else [o for o in map(_text_of, cell.outputs) if o]


def _text_of(output: Any) -> Any:
    if output.output_type == "error":
        raise TutorialError(
            "A notebook with a failed cell is not committed",
            f"{output.ename}: {output.evalue}",
            "mend the cell and run `make refresh`",
        )
    if output.output_type == "stream":
        return nbformat.from_dict({"output_type": "stream", "name": output.name, "text": output.text})
    text = output.get("data", {}).get("text/plain")
    if text is None:
        return None
    kept = {"output_type": output.output_type, "data": {"text/plain": text}, "metadata": {}}
    if output.output_type == "execute_result":
        kept["execution_count"] = None
    return nbformat.from_dict(kept)


def refresh(source: Path, executed: Path) -> bool:
    """Write the outputs of an executed copy into a notebook, matched by cell id.

    Args:
        source: The notebook in git.
        executed: Its copy, executed with text display on the target `local`.

    Returns:
        Whether the notebook changed.

    Raises:
        TutorialError: A cell failed in the copy.
    """
    notebook = nbformat.read(source, as_version=4)
    outputs = {c.id: c.outputs for c in nbformat.read(executed, as_version=4).cells if c.cell_type == "code"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = outputs.get(cell.id, [])
    return _write(source, notebook)


def _write(path: Path, notebook: Any) -> bool:
    strip(notebook)
    text: str = nbformat.writes(notebook) + "\n"
    changed = text != path.read_text(encoding="utf-8")
    if changed:
        write_atomically(path, text)
    return changed


def main(files: list[str]) -> int:
    """Strip notebooks in place.

    Args:
        files: Their paths.

    Returns:
        1 when one had to be changed, as pre-commit has it, else 0.
    """
    changed = [name for name in files if _write(Path(name), nbformat.read(name, as_version=4))]
    for name in changed:
        sys.stdout.write(f"{name}: stripped to the outputs that git keeps\n")
    return 1 if changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
