"""Chapter 05's questions: a script with upstream's ten prompts is answered in a real terminal, and checked before."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers import oss_platform, oss_questions
from helpers.errors import TutorialError
from helpers.oss_platform import Platform
from helpers.target import Target

pytestmark = pytest.mark.unit
# The shape of upstream's set-up: the prompts, their loops and their order; what it installs is left out.
SETUP = r"""#!/bin/bash
set -eoa pipefail
read -p "Setup integration (y/n) (default is [n]): " choice
case "$choice" in y|Y ) SETUP=true ;; * ) SETUP=false ;; esac
echo
echo "Please choose the deployment option:"
echo "[1] Kubeflow (all components)"
echo "[4] Standalone KFP and Kserve"
read -p "Enter the number of your choice [1-4] (default is [1]): " option
read -p "Install local Docker registry? (y/n) (default is [y]): " registry
read -p "Setup GPU Cluster (Requires atleast 1 GPU) (y/n) (default is [n]): " gpu
read -p "Install Ray? (It requires ~4 additional CPUs) (y/n) (default is [n]): " ray
if [ "$ray" = y ]; then
  read -p "Setup GPU Ray (Requires atleast 1 GPU) (y/n) (default is [n]): " gpu_ray
fi
if [[ $(nproc) -lt 4096 ]]; then
  echo "WARNING: Not enough CPU cores detected!"
  while true; do
    read -p "Do you want to continue with the installation? (y/n): " yn
    case $yn in [Yy]* ) break;; [Nn]* ) exit 1;; "" ) echo "Please enter a response.";; * ) echo "yes or no.";; esac
  done
fi
/bin/bash "$(dirname "$0")/scripts/install_tools.sh"
if [[ -e cluster ]]; then
  while true; do
    read -p "Do you want to continue the installation on the existing cluster? (y/n): " choice
    case "$choice" in y|Y ) echo "Using existing kind cluster..."; break;; n|N ) exit 0 ;; esac
  done
fi
touch cluster
echo "got $SETUP $option $registry $gpu $ray ${gpu_ray:-none}"
"""
TOOLS = r"""#!/bin/bash
set -eoa pipefail
RECOMMENDED_KUBECTL_VERSION="v1.28.2"
if [[ ":$PATH:" != *$HOME/.local/bin* ]]; then echo "PATH has no ~/.local/bin"; exit 7; fi
while true; do
  read -p "Do you wish to install kubectl ($RECOMMENDED_KUBECTL_VERSION)? (y/n): " yn
  case $yn in [Yy]* ) echo "kubectl replaced"; break;; [Nn]* ) break;; * ) echo "Please answer yes or no.";; esac
done
while true; do
  read -p "Do you wish to install a newer kustomize version? (y/n): " yn
  case $yn in [Yy]* ) mkdir -p ~/.local/bin; printf '#!/bin/sh\necho kind-platform\n' >~/.local/bin/kubectl
    chmod +x ~/.local/bin/kubectl; break;; [Nn]* ) exit 8;; * ) echo "Please answer yes or no.";; esac
done
kubectl config current-context
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Give a function that puts a platform into a home folder of the test's own; PATH has no ~/.local/bin."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("TUTORIAL_STATE", str(tmp_path / "state"))

    def write(text: str = SETUP, tools: str = TOOLS) -> Path:
        folder = tmp_path / "platform"
        (folder / "scripts").mkdir(parents=True, exist_ok=True)
        for path, content in ((folder / "integration-setup.sh", text), (folder / "scripts/install_tools.sh", tools)):
            path.write_text(content)
            path.chmod(0o755)
        return folder

    return write


UPSTREAM = Platform("upstream", folder="platform")


def setup(answers: dict[str, str], quiet: float = 1.0) -> list[str]:
    with Target.open("local") as target:
        return oss_platform.setup(target, UPSTREAM, answers, timeout=60, quiet=quiet)


@pytest.mark.parametrize(
    ("wishes", "got"),
    [
        ({}, "got true 4 y n n none"),
        ({"ray": True}, "got true 4 y n y n"),
        ({"ray": True, "gpu": True, "option": 3, "registry": False}, "got true 3 n y y y"),
    ],
)
def test_all_ten_questions_are_answered_and_a_second_run_goes_on_with_the_cluster(
    script: Callable[..., Path], wishes: dict[str, bool], got: str
) -> None:
    script()
    first = setup(oss_platform.answers(**wishes))  # type: ignore[arg-type]
    assert first[-1] == got and "kind-platform" in first and "kubectl replaced" not in first
    again = setup(oss_platform.answers(**wishes))  # type: ignore[arg-type]
    assert again[-1] == got and "Using existing kind cluster..." in again


def test_the_tools_are_found_after_the_script_though_no_profile_was_read(script: Callable[..., Path]) -> None:
    script()
    setup(oss_platform.answers())
    with Target.open("local") as target:
        assert oss_platform.cluster(target, UPSTREAM).name == "platform"


def test_a_question_that_is_not_known_is_told_before_anything_runs(script: Callable[..., Path]) -> None:
    folder = script(SETUP.replace("touch cluster", "touch cluster; read -rp 'Send usage data? (y/n): ' x"))
    began = time.monotonic()
    with pytest.raises(TutorialError, match=r"The script asks: Send usage data\? \(y/n\):") as told:
        setup(oss_platform.answers())
    assert "Nothing has run" in told.value.why and 'answers["words of the question"]' in told.value.remedy
    assert not (folder / "cluster").exists() and time.monotonic() - began < 15
    assert setup({**oss_platform.answers(), "usage data": "n"})[-1].startswith("got true")


def test_a_question_in_a_script_that_it_runs_is_found_too(script: Callable[..., Path]) -> None:
    script(tools=TOOLS.replace("set -eoa pipefail", 'set -eoa pipefail\nread -p "Your name: " name'))
    with pytest.raises(TutorialError, match="The script asks: Your name:"):
        setup(oss_platform.answers())


def test_a_question_that_has_gone_is_told_and_the_script_runs(
    script: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    script(SETUP.replace('read -p "Install local Docker registry? (y/n) (default is [y]): " registry', "registry=y"))
    assert setup(oss_platform.answers())[-1] == "got true 4 y n n none"
    assert "This script does not ask: local Docker registry." in capsys.readouterr().out


def test_a_question_that_was_reworded_names_the_answer_that_is_left_over(script: Callable[..., Path]) -> None:
    script(SETUP.replace("Setup GPU Cluster (Requires", "Use the graphics card (Requires"))
    with pytest.raises(TutorialError, match="The script asks: Use the graphics card") as told:
        setup(oss_platform.answers())
    assert "never asks for: GPU cluster" in told.value.why


@pytest.mark.parametrize(
    ("words", "answer", "takes"),
    [("GPU cluster", "true", "y, n"), ("deployment option", "7", "1, 2, 3, 4"), ("Install Ray", "", "y, n")],
)
def test_an_answer_that_the_script_does_not_take_is_refused_before_it_runs(
    script: Callable[..., Path], words: str, answer: str, takes: str
) -> None:
    script()
    with pytest.raises(TutorialError, match="does not take the answer to") as told:
        setup({**oss_platform.answers(), words: answer})
    assert f"it takes {takes}" in told.value.why


def test_answers_have_the_form_that_the_script_wants(script: Callable[..., Path]) -> None:
    script(
        "#!/bin/bash\n"
        'until [[ $a == yes ]]; do read -p "Install Ray (yes/no): " a; done\n'
        'until [[ $b == Y ]]; do read -n 1 -p "Setup GPU cluster [Y/N]: " b; done\n'
        'until [[ $c == y ]]; do read -p "Setup integration [Y/n]: " c; done\n'
        'echo "Install local Docker registry? (y/n)"; read d; echo "got $a$b$c$d"\n'
    )
    assert setup(oss_platform.answers(ray=True, gpu=True))[-1] == "got yesYyy"


def test_a_question_without_read_s_prompt_ends_in_an_error_with_its_text(script: Callable[..., Path]) -> None:
    script('#!/bin/bash\necho "Format the disk? (y/n)"\nread answer\necho done\n')
    with pytest.raises(TutorialError, match=r"The script asks: Format the disk\? \(y/n\)"):
        setup(oss_platform.answers())


def test_a_script_that_bash_can_t_read_or_that_is_not_there_is_told_before(script: Callable[..., Path]) -> None:
    folder = script("#!/bin/bash\ntouch ran\nif true; then\n  echo x\nesac\n")
    with pytest.raises(TutorialError, match="bash finds an error in it") as told:
        setup(oss_platform.answers())
    assert "line 5" in told.value.output and not (folder / "ran").exists()
    (folder / "integration-setup.sh").unlink()
    with pytest.raises(TutorialError, match="can't be read"):
        setup(oss_platform.answers())


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('read -p "Name: " x', "Name: "),
        ("read -r -p 'Name: ' x", "Name: "),
        ('read -rp "Say \\"hi\\": " x', 'Say "hi": '),
        ('  read -t 10 -n 1 -ep"Key (a/b)? " x', "Key (a/b)? "),
        ('if ! read -sp "Password: " x; then', "Password: "),
        ("while read -r line; do :; done <file", None),
        ('# read -p "Old: " x', None),
        ('read -r -p "$2 ($3) [${!1}]: " x', None),
        ('ask GPU_CLUSTER "Setup GPU cluster" y/n', "Setup GPU cluster"),
    ],
)
def test_prompts_are_found_in_bash(line: str, text: str | None) -> None:
    assert [prompt.text for prompt in oss_questions.prompts(f"echo a\n{line}\n")] == ([text] if text else [])


def test_each_answer_is_explained_and_the_course_s_script_asks_half_of_them() -> None:
    answers = {**oss_platform.answers(), "my question": "y"}
    upstream = oss_platform.explained(answers, UPSTREAM)
    assert len(upstream) == 11 and all(row["why"] for row in upstream)
    course = oss_platform.explained(oss_platform.answers(), Platform())
    script = (oss_platform.FOLDER / oss_platform.SCRIPT).read_text()
    assert len(course) == len(oss_questions.prompts(script)) == 5
    assert oss_questions.fitting(script, oss_platform.answers(ray=True)) == oss_platform.answers(ray=True)
    bash = subprocess.run(["bash", "-n"], input=SETUP + TOOLS, capture_output=True, text=True, env=dict(os.environ))
    assert bash.stderr == ""
