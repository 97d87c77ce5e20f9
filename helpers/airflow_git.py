"""Chapter 10: the git repository that Airflow's DAGs come from, and a server for it in the cluster."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from helpers import airgap, port_forward
from helpers import cluster as deployed
from helpers.errors import TutorialError
from helpers.kind import Cluster
from helpers.settings import ROOT, settings
from helpers.shell import OWN_REPOSITORY
from helpers.target_local import run_here

FOLDER = deployed.FOLDER / "git-server"
DAGS = ROOT / "applications" / "forwarder" / "airflow" / "dags"
IMAGE = "tutorial/git-server:1"
_SERVICE, _PORT = "git-server", 9418
_BARE, _BRANCH, _IN_REPOSITORY = "/git/dags.git", "main", "dags"
_AUTHOR = ("-c", "user.name=tutorial", "-c", "user.email=tutorial@example.org")


@dataclass(frozen=True)
class Source:
    """Where git-sync finds the DAGs.

    Attributes:
        repo: The repository's address, as pods reach it.
        branch: The branch.
        path: The folder in it.
    """

    repo: str
    branch: str
    path: str

    def values(self) -> dict[str, str]:
        """Give the chart's values for it."""
        names = {"repo": self.repo, "branch": self.branch, "ref": self.branch, "subPath": self.path}
        return {f"dags.gitSync.{name}": value for name, value in names.items()}


SERVER = Source(f"git://{_SERVICE}.{deployed.NAMESPACE}.svc.cluster.local/dags.git", _BRANCH, _IN_REPOSITORY)


def reference(values: Path) -> Source:
    """Read the repository that a values file names."""
    sync = yaml.safe_load(values.read_text(encoding="utf-8"))["dags"]["gitSync"]
    return Source(sync["repo"], sync["branch"], sync["subPath"])


class Server:
    """A git server in the cluster, and a working copy of its repository here.

    Args:
        cluster: The cluster.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.folder = settings().state / cluster.target.name / "dags"

    def start(self) -> str:
        """Have the server run, and put the course's DAGs into its repository.

        Returns:
            The id of the commit.

        Raises:
            TutorialError: The server does not get ready, or takes no commit.
        """
        self._supply()
        deployed.apply(self._cluster, FOLDER)
        self._cluster.kubectl("rollout", "status", f"deployment/{_SERVICE}", "-n", deployed.NAMESPACE, "--timeout=120s")
        deployed.in_pod(
            self._cluster, _SERVICE, ["git", "init", "--quiet", "--bare", f"--initial-branch={_BRANCH}", _BARE]
        )
        port = port_forward.start(self._cluster, _SERVICE, _PORT, namespace=deployed.NAMESPACE)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        _git("clone", "--quiet", f"git://127.0.0.1:{port}/dags.git", str(self.folder))
        _git("checkout", "--quiet", "-B", _BRANCH, cwd=self.folder)
        shutil.copytree(DAGS, self.folder / _IN_REPOSITORY, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__*"))
        return self.push("The course's DAGs")

    def _supply(self) -> None:
        """Have the server's image in the node: from the lab, or built on the cluster's machine."""
        if airgap.needed(self._cluster.target):
            deployed.supply_node(self._cluster, [IMAGE])
            return
        text = (ROOT / "applications" / "git-server" / "Dockerfile").read_text(encoding="utf-8")
        self._cluster.target.run(["docker", "build", "-q", "-t", IMAGE, "-"], input=text, timeout=600)
        deployed.load(self._cluster, [IMAGE])

    def change(self, name: str, old: str, new: str) -> str:
        """Replace a text in a DAG's file, commit it and push it.

        Args:
            name: The file's name.
            old: The text that is there.
            new: The text in its place.

        Returns:
            The id of the commit.

        Raises:
            TutorialError: The file has no such text, or the push failed.
        """
        path = self.folder / _IN_REPOSITORY / name
        text = path.read_text(encoding="utf-8")
        if old not in text:
            raise TutorialError(f"{name} has no {old!r}", "it was changed before, perhaps", "start() takes it back")
        path.write_text(text.replace(old, new), encoding="utf-8")
        return self.push(f"{name}: {new}")

    def stop(self) -> None:
        """Take the server away, with the repository in it and the working copy here."""
        port_forward.stop(self._cluster, _SERVICE)
        deployed.delete(self._cluster, FOLDER)
        shutil.rmtree(self.folder, ignore_errors=True)

    def push(self, message: str) -> str:
        """Commit what has changed in the working copy, if anything, and push it.

        Args:
            message: The commit's message.

        Returns:
            The id of the newest commit.

        Raises:
            TutorialError: git failed; the message has what it said.
        """
        _git("add", "--all", cwd=self.folder)
        if _git("status", "--porcelain", cwd=self.folder):
            _git(*_AUTHOR, "commit", "--quiet", "-m", message, cwd=self.folder)
            _git("push", "--quiet", "origin", _BRANCH, cwd=self.folder)
        return _git("rev-parse", "HEAD", cwd=self.folder)


def _git(*words: str, cwd: Path | None = None) -> str:
    done = run_here(["git", *words], cwd=cwd, check=False, env=OWN_REPOSITORY)
    if done.returncode == 127:
        raise TutorialError("git is missing on this machine", "", "install it: apt install git")
    if done.returncode != 0:
        raise TutorialError(
            "git failed",
            f"exit code {done.returncode}",
            "read what it said; is the tunnel to the git server open? Then run the cell again",
            command=["git", *words],
            output=done.stderr,
        )
    return done.stdout.strip()
