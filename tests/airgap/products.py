"""What the lab makes: programs from Go modules, Debian bases by debootstrap, images from Dockerfiles."""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
VERSIONS = tomllib.loads((ROOT / "deployments" / "versions.toml").read_text())
_TOOLKIT = tomllib.loads((ROOT / "deployments/gpu/versions.toml").read_text())["sets"]["reference"]["toolkit"].split(
    "-"
)[0]
_TOOLS, _NODE, _KUBERNETES = VERSIONS["tools"], VERSIONS["node"], VERSIONS["cluster"]["kubernetes"]
_STAMP = {
    f"k8s.io/{module}.git{key}": value
    for module in ("component-base/version", "client-go/pkg/version")
    for key, value in zip(
        ("Version", "Major", "Minor", "TreeState"), (_KUBERNETES, *_KUBERNETES[1:].split(".")[:2], "clean"), strict=True
    )
}


@dataclass(frozen=True)
class Program:
    """A static program of a Go module: `package@version`, or the folder of a module of our own."""

    name: str
    group: str
    source: str
    stamp: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class LinkedProgram(Program):
    """A program that is linked to the C library, because it loads a library of the machine while it runs."""


@dataclass(frozen=True)
class CopiedProgram(Program):
    """A program that is built in a copy of its module, `module@version`: its name is not the module's."""


@dataclass(frozen=True)
class Charts:
    """A Helm repository, ready to be served: charts of our own, each packaged in some versions.

    Attributes:
        charts: Folder below charts/ → its versions, each with the version of the application.
        modules: Folder below charts/ → the Go module whose folder config/crd/bases holds its CRDs.
    """

    name: str
    group: str
    charts: dict[str, dict[str, str]]
    modules: dict[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ("helm",)


@dataclass(frozen=True)
class Debian:
    """A Debian base image, made by debootstrap from this machine's own mirror."""

    name: str
    group: str
    suite: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """An image: a folder with its Dockerfile, other files and folders, and programs or images that it needs."""

    name: str
    group: str
    dockerfile: str
    files: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    names: tuple[str, ...] = ()  # further names of the same image


Product = Program | Debian | Image | Charts

_BOOKWORM, _TRIXIE = "debian:bookworm-slim", "debian:trixie-slim"
NODE = f"kindest/node:{_KUBERNETES}"
VM = "tutorial/vm:bookworm"
OPENSTACK = "tutorial/openstack:zed"
GIT_SERVER = "tutorial/git-server:1"
REGISTRY = f"registry:{VERSIONS['cluster']['registry']}"
_CONTROL_PLANE = tuple(
    f"registry.k8s.io/kube-{part}:{_KUBERNETES}" for part in ("apiserver", "controller-manager", "scheduler", "proxy")
)
_ETCD = f"registry.k8s.io/etcd:{_NODE['etcd']}"
_COREDNS = f"registry.k8s.io/coredns/coredns:{_NODE['coredns']}"
_PAUSE = f"registry.k8s.io/pause:{_NODE['pause']}"
_LOCAL_PATH = f"rancher/local-path-provisioner:{_NODE['local-path-provisioner']}"
_KUBERAY = VERSIONS["kuberay"]
_KUBERAY_MODULE = "github.com/ray-project/kuberay/ray-operator"
_AIRFLOW, _GIT_SYNC = VERSIONS["airflow"]["version"], VERSIONS["airflow"]["git-sync"]
# The operator's image is called as in the chart of its version.
_OPERATORS = {_KUBERAY["reference"]: "kuberay/operator", _KUBERAY["current"]: "quay.io/kuberay/operator"}
# What the node image carries; its first boot imports them.
IN_NODE = (*_CONTROL_PLANE, _ETCD, _COREDNS, _PAUSE, _LOCAL_PATH)

PRODUCTS: dict[str, Product] = {
    product.name: product
    for product in (
        Debian(_BOOKWORM, "bases", "bookworm"),
        Image("python:3.11-slim", "bases", "images/Dockerfile.python", needs=(_BOOKWORM,)),
        Image("redis:7", "bases", "images/Dockerfile.redis", ("images/redis-entrypoint.sh",), (_BOOKWORM,)),
        Image("postgres:15", "bases", "images/Dockerfile.postgres", ("images/postgres-entrypoint.sh",), (_BOOKWORM,)),
        Program("kubernetes", "tools", "kubernetes", _STAMP),
        Program("kind", "tools", f"sigs.k8s.io/kind@{_TOOLS['kind']}"),
        Program("helm", "tools", f"helm.sh/helm/v3/cmd/helm@{_TOOLS['helm']}"),
        Program("kubeconform", "checks", f"github.com/yannh/kubeconform/cmd/kubeconform@{_TOOLS['kubeconform']}"),
        Program("kube-score", "checks", f"github.com/zegl/kube-score/cmd/kube-score@{_TOOLS['kube-score']}"),
        Program("hello-world", "bases", "hello-world"),
        Image("hello-world:latest", "bases", "hello-world/Dockerfile", needs=("hello-world",)),
        Debian(_TRIXIE, "cluster", "trixie"),
        Program("etcd", "cluster", "etcd"),
        Program("pause", "cluster", "pause"),
        Program("coredns", "cluster", f"github.com/coredns/coredns@{_NODE['coredns']}"),
        Program(
            "local-path-provisioner",
            "cluster",
            f"github.com/rancher/local-path-provisioner@{_NODE['local-path-provisioner']}",
        ),
        Program(
            "registry",
            "cluster",
            f"github.com/distribution/distribution/v3/cmd/registry@{VERSIONS['modules']['distribution']}",
        ),
        Image(_CONTROL_PLANE[0], "cluster", "kube/Dockerfile", needs=(_TRIXIE, "kubernetes"), names=_CONTROL_PLANE[1:]),
        Image(_ETCD, "cluster", "etcd/Dockerfile", needs=("etcd",)),
        Image(_PAUSE, "cluster", "pause/Dockerfile", needs=("pause",)),
        Image(_COREDNS, "cluster", "coredns/Dockerfile", needs=("coredns",)),
        Image(_LOCAL_PATH, "cluster", "local-path-provisioner/Dockerfile", needs=("local-path-provisioner",)),
        Image(REGISTRY, "cluster", "registry/Dockerfile", ("registry/config.yml",), ("registry",)),
        Image(
            NODE,
            "cluster",
            "node/Dockerfile",
            (
                "node/10-ptp.conflist",
                "node/default-cni.yaml",
                "node/default-storage.yaml",
                "node/kind-images.service",
                "runc-bounded",
            ),
            (_TRIXIE, "kubernetes", "kind", _CONTROL_PLANE[0], _ETCD, _PAUSE, _COREDNS, _LOCAL_PATH),
        ),
        *(
            LinkedProgram(
                name,
                "nvidia",
                f"github.com/NVIDIA/nvidia-container-toolkit/cmd/{name}@v{_TOOLKIT}",
                {"github.com/NVIDIA/nvidia-container-toolkit/internal/info.version": _TOOLKIT},
            )
            for name in ("nvidia-ctk", "nvidia-container-runtime", "nvidia-container-runtime-hook")
        ),
        Image(VM, "vm", "vm/Dockerfile", ("vm/daemon.json", "vm/sshd.conf", "runc-bounded"), (_BOOKWORM,)),
        *(
            CopiedProgram(f"kuberay-operator-{version}", "ray", f"{_KUBERAY_MODULE}@v{version}")
            for version in _OPERATORS
        ),
        *(
            Image(f"{name}:v{version}", "ray", "images/Dockerfile.kuberay", needs=(f"kuberay-operator-{version}",))
            for version, name in _OPERATORS.items()
        ),
        Image(
            f"rayproject/ray:{VERSIONS['ray']['lab']}",
            "ray",
            "images/Dockerfile.ray",
            ("images/ray.txt",),
            ("python:3.11-slim",),
        ),
        Charts(
            "charts-kuberay",
            "ray",
            {chart: {v: v for v in _OPERATORS} for chart in ("kuberay-operator", "ray-cluster")},
            {"kuberay-operator": _KUBERAY_MODULE},
        ),
        Image(
            f"apache/airflow:{_AIRFLOW}-python3.11",
            "airflow",
            "images/Dockerfile.airflow",
            ("images/airflow.txt", "images/airflow-entrypoint.sh"),
            ("python:3.11-slim",),
        ),
        Image(
            f"registry.k8s.io/git-sync/git-sync:{_GIT_SYNC}",
            "airflow",
            "images/Dockerfile.git-sync",
            ("images/git-sync.sh",),
            (_BOOKWORM,),
        ),
        Image(GIT_SERVER, "airflow", "../../applications/git-server/Dockerfile", needs=(_BOOKWORM,)),
        Charts("charts-apache-airflow", "airflow", {"airflow": {VERSIONS["airflow"]["chart"]: _AIRFLOW}}),
        Image(
            OPENSTACK,
            "cloud",
            "openstack/Dockerfile",
            ("openstack", "../../deployments/cpouta/rates.toml"),
            (_BOOKWORM,),
        ),
    )
}
GROUPS = tuple(dict.fromkeys(product.group for product in PRODUCTS.values()))


def named(words: tuple[str, ...]) -> list[str]:
    """List the products that words mean: each a group's name, or a product's."""
    return [p.name for p in PRODUCTS.values() if p.group in words or p.name in words]
