"""Chapters 07 and 10: applications installed by Helm: chart repositories, values, releases.

The real helm of this machine is run, with the cluster's kubeconfig and with a configuration of the tutorial's own: the
reader's repositories stay as they are. Source: https://helm.sh/docs/helm/.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers import go_yaml, helm_rollout, helm_values, tools
from helpers.errors import TutorialError
from helpers.helm_values import Setting
from helpers.kind import Cluster
from helpers.settings import settings
from helpers.target import Completed
from helpers.target_local import run_here

_REPOSITORY_SECONDS = 20.0
_SCHEMA = re.compile(r"^- at '(?P<path>[^']*)': (?P<wrong>.*)$", re.MULTILINE)
_UNREACHABLE = "Kubernetes cluster unreachable"
# What helm says → why that is, and what to do.
_REASONS = (
    (_UNREACHABLE, "the cluster's API was not reached", "run the cell again: it opens the way to the cluster anew"),
    (
        r"another operation \(.*\) is in progress",
        "a helm that was ended in the middle left the release half-done",
        "take it back with rollback(release, revision), or uninstall(release); then run the cell again",
    ),
    (r"repo \S+ not found|no cached repo", "that repository is not known here", "add_repository(name, url) first"),
    (
        r"chart .*not found|no chart (name|version) found",
        "the repository has no such chart, or not in that version",
        "correct the chart's name and version; `helm search repo NAME --versions` lists what there is",
    ),
    (
        r"no matches for kind",
        "the cluster does not know that kind: its operator's CRDs are missing",
        "install the operator's chart first, or update_crds(chart)",
    ),
    (
        r"exists and cannot be imported",
        "an object of that name is there, and another release or somebody's kubectl made it",
        "remove that one, or take another name for the release",
    ),
    (r"release: not found", "there is no such release", "`helm list -A` shows those that there are"),
)


@dataclass(frozen=True)
class Chart:
    """A chart in a repository.

    Attributes:
        repository: The repository's name here, such as `kuberay`.
        name: The chart's name there.
        version: Its version; empty means the newest.
    """

    repository: str
    name: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.repository}/{self.name}"

    @property
    def words(self) -> list[str]:
        """The chart as arguments of helm."""
        return [str(self), *(["--version", self.version] if self.version else [])]


class Helm:
    """Helm for a cluster.

    Args:
        cluster: The cluster; its tunnel is opened when it is first needed.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def add_repository(self, name: str, url: str) -> None:
        """Make a chart repository known under a name, and read what it has; a second time reads it anew.

        Args:
            name: Its name here.
            url: Its address.

        Raises:
            TutorialError: It can't be reached, or is no chart repository.
        """
        words = ["repo", "add", name, url, "--force-update"]
        try:
            done = self._run(*words, timeout=_REPOSITORY_SECONDS)
            said = done.stderr if done.returncode else ""
        except TutorialError as error:  # helm itself would wait for two minutes
            said = error.why
        if said:
            raise TutorialError(
                f"The chart repository {name} can't be had",
                f"{url} does not answer as one",
                "check the address, and that this machine reaches it; releases that are installed go on",
                target=self.cluster.target.name,
                command=["helm", *words],
                output=said,
            )

    def defaults(self, chart: Chart) -> dict[str, Any]:
        """Read a chart's own values (`helm show values`)."""
        text = self._checked("show", "values", *chart.words).encode()
        content: dict[str, Any] = go_yaml.values(text, f"the values of {chart}") or {}
        return content

    def diff(self, chart: Chart, *values: Path, set: Mapping[str, Setting] | None = None) -> list[Mapping[str, object]]:
        """Show what values files change of a chart's defaults.

        Args:
            chart: The chart.
            values: Values files; the later ones come over the earlier ones.
            set: Single values by their path, over all of them.

        Returns:
            A row for each value that differs: value (its path), default, here.

        Raises:
            TutorialError: A file can't be read, or the chart is not to be had.
        """
        defaults = self.defaults(chart)
        here = helm_values.merged([defaults, *map(helm_values.read, values)], set)
        return helm_values.differences(defaults, here)

    def upgrade(
        self,
        release: str,
        chart: Chart,
        *values: Path,
        set: Mapping[str, Setting] | None = None,
        namespace: str = "default",
        timeout: float = 600,
        reuse: bool = False,
    ) -> int:
        """Install a release, or bring it to these values, and wait until its pods are ready, with a table that moves.

        Args:
            release: Its name.
            chart: What to install.
            values: Values files; the later ones come over the earlier ones.
            set: Single values by their path, over all of them.
            namespace: Its namespace; it is made where it is missing.
            timeout: Seconds to wait for it to be ready.
            reuse: Keep the values of the revision before, where nothing here says otherwise.

        Returns:
            The number of the new revision.

        Raises:
            TutorialError: A file can't be read, a value has a wrong name or type, the chart is not to be had, or the
                pods are not ready in time, with their reasons. The release is there then: correct what is wrong and
                call it again.
        """
        helm_values.merged([{}, *map(helm_values.read, values)], set)  # what is wrong in them is said with its line
        words = ["upgrade", "--install", release, *chart.words, "-n", namespace, "--create-namespace", "-o", "json"]
        words += [word for path in values for word in ("-f", str(path))]
        words += [word for path, value in (set or {}).items() for word in ("--set-json", f"{path}={json.dumps(value)}")]
        # Without either word helm keeps the earlier values where no new ones are given, and only there.
        words.append("--reset-then-reuse-values" if reuse else "--reset-values")
        made = json.loads(self._checked(*words, timeout=timeout))
        helm_rollout.wait(self.cluster, release, namespace, made["manifest"], timeout)
        return int(made["version"])

    def rollback(self, release: str, revision: int, namespace: str = "default", timeout: float = 600) -> None:
        """Bring a release back to what it was in a revision, and wait until that is ready.

        Args:
            release: Its name.
            revision: The revision's number, as `history` has it.
            namespace: Its namespace.
            timeout: Seconds to wait for it to be ready.

        Raises:
            TutorialError: There is no such revision, or its pods are not ready in time.
        """
        self._checked("rollback", release, str(revision), "-n", namespace, timeout=timeout)
        manifest = self._checked("get", "manifest", release, "-n", namespace)
        helm_rollout.wait(self.cluster, release, namespace, manifest, timeout)

    def uninstall(self, release: str, namespace: str = "default", timeout: float = 180) -> None:
        """Remove a release and wait until its objects are gone; one that is gone already is no error. CRDs stay."""
        words = ["uninstall", release, "-n", namespace, "--ignore-not-found", "--cascade", "foreground", "--wait"]
        self._checked(*words, "--timeout", f"{timeout:g}s", timeout=timeout + 20)

    def releases(self) -> list[Mapping[str, object]]:
        """List all releases (`helm list -A --all`): release, namespace, revision, state, chart."""
        found = json.loads(self._checked("list", "-A", "--all", "-o", "json"))
        return [
            {
                "release": r["name"],
                "namespace": r["namespace"],
                "revision": int(r["revision"]),
                "state": r["status"],
                "chart": r["chart"],
            }
            for r in found
        ]

    def state(self, release: str, namespace: str = "default") -> str:
        """Say the state of a release: `deployed`, `failed`, `pending-upgrade`, …; empty where there is none."""
        mine = [r for r in self.releases() if (r["release"], r["namespace"]) == (release, namespace)]
        return str(mine[0]["state"]) if mine else ""

    def history(self, release: str, namespace: str = "default") -> list[Mapping[str, object]]:
        """List the revisions of a release, oldest first: revision, state, chart, what was done."""
        found = json.loads(self._checked("history", release, "-n", namespace, "-o", "json"))
        return [
            {"revision": r["revision"], "state": r["status"], "chart": r["chart"], "what": r["description"]}
            for r in found
        ]

    def update_crds(self, chart: Chart) -> list[str]:
        """Bring a chart's CRDs into the cluster: helm installs them once and never updates them.

        Args:
            chart: The operator's chart.

        Returns:
            Their names.

        Raises:
            TutorialError: The chart is not to be had, or the cluster refused one.
        """
        text = self._checked("show", "crds", *chart.words)
        # Server-side: the annotation of a client-side apply would be larger than Kubernetes allows.
        words = ["apply", "--server-side", "--force-conflicts", "-o", "name", "-f", "-"]
        return [line.partition("/")[2] for line in self.cluster.kubectl(*words, input=text).splitlines()]

    def _checked(self, *words: str, timeout: float = 60) -> str:
        done = self._run(*words, cluster=words[0] != "show", timeout=timeout)
        if done.returncode != 0:
            raise self._failed(words, done)
        return done.stdout

    def _run(self, *words: str, cluster: bool = False, timeout: float = 60) -> Completed:
        name, folder = self.cluster.target.name, settings().state / self.cluster.target.name / "helm"
        env = {f"HELM_{part.upper()}_HOME": str(folder / part) for part in ("cache", "config", "data")}
        argv = [str(tools.find("helm")), *words]
        if cluster:
            self.cluster.connect()
            argv += ["--kubeconfig", str(self.cluster.kubeconfig)]
        return run_here(argv, check=False, timeout=timeout, env=env, target=name)

    def _failed(self, words: Sequence[str], done: Completed) -> TutorialError:
        said = done.stderr
        why, remedy = next((reason for sign, *reason in _REASONS if re.search(sign, said)), ("", ""))
        if _UNREACHABLE in said:
            self.cluster.close()  # the next call opens the way anew
        if wrong := _wrong_values(said):
            why, remedy = "; ".join(wrong), "correct these values; `defaults(chart)` has the names that the chart knows"
        return TutorialError(
            f"helm {words[0]} failed",
            why or f"exit code {done.returncode}",
            remedy or "read what it said, correct the cause and run the cell again",
            target=self.cluster.target.name,
            command=["helm", *words],
            output=said,
        )


def _wrong_values(said: str) -> list[str]:
    """Name the values that a chart's schema refuses, by their paths, from what helm said."""
    found = []
    for line in _SCHEMA.finditer(said):
        path = line["path"].strip("/").replace("/", ".")
        if unknown := re.fullmatch(r"additional properties (.*) not allowed", line["wrong"]):
            names = re.findall(r"'([^']*)'", unknown[1])
            found += [f"{path}.{name}: the chart knows no such value".lstrip(".") for name in names]
        else:
            found.append(f"{path}: {line['wrong']}")
    return found
