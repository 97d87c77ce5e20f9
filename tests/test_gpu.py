"""Chapter 04: tools' words are read, versions are checked, the deploys run in the tests' VM and are broken there."""

import shutil
import subprocess
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers import docker_host, gpu, gpu_lab, gpu_versions
from helpers.errors import TutorialError
from helpers.settings import ROOT
from helpers.target import Completed, Target
from helpers.target_local import LocalTarget

unit = pytest.mark.unit
DATA = Path(__file__).parent / "data" / "gpu"
REFERENCE = gpu_versions.chosen()


def in_vm(test: Callable[..., None]) -> Callable[..., None]:
    for mark in (pytest.mark.e2e, pytest.mark.docker, pytest.mark.timeout(1200)):
        test = mark(test)
    return test


def said(name: str) -> str:
    return (DATA / name).read_text()


@unit
@pytest.mark.parametrize(
    ("file", "version", "cuda", "gpus"),
    [
        ("a30-smi.txt", "535.247.01", "12.2", "NVIDIA A30"),
        ("t1000-470.txt", "470.103.01", "11.4", "Quadro T1000"),
        ("p100-smi-545.txt", "545.23.08", "12.3", "Tesla P100-PCIE-16GB, Tesla P100-PCIE-16GB"),
        ("p100-smi-580.txt", "580.142", "13.0", "Tesla P100-PCIE-16GB"),
        ("p4-580.txt", "580.65.06", "13.0", "Tesla P4"),
        ("t4-610-head.txt", "610.88", "13.3", ""),
    ],
)
def test_nvidia_smi_of_many_drivers_is_read(file: str, version: str, cuda: str, gpus: str) -> None:
    seen = gpu_versions.read_smi(said(file))
    assert (seen.version, seen.more, seen.problem) == (version, {"CUDA up to": cuda, "GPUs": gpus}, "")


@unit
@pytest.mark.parametrize(
    ("file", "problem", "remedy"),
    [
        ("smi-none.txt", "no driver is installed", "install"),
        ("smi-none-bash.txt", "no driver is installed", "install"),
        ("smi-no-module.txt", "kernel module is not loaded", "dkms status"),
        ("smi-no-devices.txt", "sees no GPU", "dmesg"),
        ("a30-smi-mismatch.txt", "the kernel still runs the old one", "restart"),
    ],
)
def test_what_nvidia_smi_says_instead_has_a_meaning_and_a_remedy(file: str, problem: str, remedy: str) -> None:
    seen = gpu_versions.read_smi(said(file))
    assert seen.version == "" and problem in seen.problem and remedy in seen.remedy


@unit
def test_what_nobody_knows_is_shown_as_it_is() -> None:
    assert "Segmentation fault" in gpu_versions.read_smi("Segmentation fault\n").problem
    assert gpu_versions.read_smi("").problem == "it says: nothing"


@unit
def test_nvcc_dpkg_and_the_sample_are_read() -> None:
    assert [gpu_versions.read_nvcc(said(f"nvcc-{v}.txt")).version for v in ("12.2", "12.5")] == ["12.2.91", "12.5.82"]
    assert "PATH" in gpu_versions.read_nvcc(said("nvcc-none.txt")).problem
    there = gpu_versions.read_dpkg(said("a30-dpkg.txt"))
    assert there["nvidia-driver-535"] == "535.247.01-0ubuntu1" and there["libnvidia-container1"] == "1.17.8-1"
    header = (
        "||/ Name Version Architecture Description\n+++-=====-=====-=====-=====\nrc  nvidia-driver-470 470.1 amd64 x\n"
    )
    assert gpu_versions.read_dpkg(header + "hi  cuda 12.2.0-1 amd64 x\n") == {"cuda": "12.2.0-1"}
    fast = {"GPU": "Tesla P100-PCIE-16GB", "GFLOP/s": 3097.508, "precision": "double"}
    assert gpu_versions.read_nbody(said("nbody-p100.txt")) == fast
    assert gpu_versions.read_nbody(said("nbody-gtx1650.txt"))["GFLOP/s"] == 2795.517
    assert gpu_versions.read_nbody("Error: only 0 Devices available") == {}


def _table(smi: str, nvcc: str, dpkg: str) -> dict[str, Mapping[str, object]]:
    rows = gpu_versions.rows(said(smi), said(nvcc), said(dpkg) if dpkg else "", REFERENCE)
    return {str(row["what"]): row for row in rows}


@unit
def test_the_record_of_a_healthy_machine_needs_no_remedy_but_for_the_missing_package() -> None:
    rows = _table("a30-smi.txt", "nvcc-12.2.txt", "a30-dpkg.txt")
    assert {what: row["there"] for what, row in rows.items()} == {
        "driver, installed": "535.247.01-0ubuntu1",
        "driver, running": "535.247.01",
        "CUDA that the driver can do": "12.2",
        "GPUs": "NVIDIA A30",
        "CUDA, installed": "none",  # this machine has the distribution's, which is not what the set names
        "nvcc": "12.2.91",
        "container toolkit": "1.17.8-1",
    }
    assert [what for what, row in rows.items() if row["remedy"]] == ["CUDA, installed"]


@unit
def test_the_record_of_an_updated_driver_says_restart_and_that_of_a_bare_machine_says_install() -> None:
    assert _table("a30-smi-mismatch.txt", "nvcc-12.2.txt", "a30-dpkg.txt")["driver, running"]["remedy"] == (
        "restart the machine"
    )
    bare = _table("smi-none.txt", "nvcc-none.txt", "")
    assert all(row["remedy"] for row in bare.values()) and bare["driver, installed"]["there"] == "none"
    other = _table("p100-smi-580.txt", "nvcc-12.5.txt", "a30-dpkg.txt")
    assert "another branch" in str(other["driver, running"]["remedy"]) and "PATH" in str(other["nvcc"]["remedy"])
    old = _table("t1000-470.txt", "nvcc-12.2.txt", "a30-dpkg.txt")
    assert old["CUDA that the driver can do"]["remedy"] == "a newer driver"


@unit
def test_the_reference_fits_together_and_to_a_p100() -> None:
    p100 = said("p100-lspci.txt").splitlines()
    assert asdict(REFERENCE) == {
        "driver": "535", "cuda": "12.2", "toolkit": "1.17.8-1", "operator": "v24.9.0", "nvshare": "v0.1-8c2f5b90"
    }  # fmt: skip
    assert [gpu_versions.capability(device) for device in p100] == ["6.0", "6.0"]
    assert gpu_versions.capability(said("a30-lspci.txt")) == "8.0"
    assert gpu_versions.misfits(REFERENCE, p100) == []
    gpu_versions.require_fit(REFERENCE, ["01:00.0 VGA compatible controller: NVIDIA Corporation Something new"])


@unit
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"driver": "525"}, "cuda 12.2 needs driver 535.54.03 or newer; the set has 525"),
        ({"cuda": "12.4"}, "cuda 12.4 needs driver 550.54.14 or newer; the set has 535"),
        ({"driver": "580", "cuda": "13.0"}, "cuda 13.0 needs compute capability 7.5 or newer; Tesla P100 PCIe 16GB"),
        ({"driver": "590"}, "driver 590 needs compute capability 7.5 or newer"),
        ({"toolkit": "1.2.3-1"}, "the table knows no toolkit 1.2.3-1"),
        ({"cuda": "12.22"}, "the table knows no cuda 12.22"),
    ],
)
def test_a_set_that_does_not_fit_is_refused_with_the_reason(changes: dict[str, str], reason: str) -> None:
    with pytest.raises(TutorialError, match="do not fit together") as error:
        gpu_versions.require_fit(gpu_versions.chosen(**changes), said("p100-lspci.txt").splitlines())
    assert reason in error.value.why


@unit
def test_nvshare_needs_pascal_and_words_that_are_no_parts_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpu_versions.TABLE["gpus"], "Tesla M60", "5.2")
    device = "00:1e.0 VGA compatible controller: NVIDIA Corporation GM204GL [Tesla M60] (rev a1)"
    (reason,) = gpu_versions.misfits(REFERENCE, [device])
    assert reason.startswith("nvshare v0.1-8c2f5b90 needs compute capability 6.0")
    with pytest.raises(TutorialError, match="no part of a set"):
        gpu_versions.chosen(drivers="535")
    with pytest.raises(TutorialError, match="There is no set"):
        gpu_versions.chosen("newest")


@unit
def test_the_deploys_defaults_are_the_table_s_reference() -> None:
    """Each deploy runs alone, too: what it has by itself must be what the table says."""
    text = {name: (ROOT / f"deployments/host/{name}.py").read_text() for name in gpu.DEPLOYS}
    row = gpu_versions.TABLE["cuda"][REFERENCE.cuda]
    assert f'get("driver", "{REFERENCE.driver}")' in text["nvidia_driver"]
    for key, value in (("cuda", REFERENCE.cuda), ("cuda_release", row["release"]), ("cuda_keyring", row["keyring"])):
        assert f'get("{key}", "{value}")' in text["cuda"]
    assert f'get("cuda_driver", "{row["driver"]}")' in text["cuda"]
    assert f'get("toolkit", "{REFERENCE.toolkit}")' in text["container_toolkit"]
    packages = tomllib.loads((ROOT / "tests/airgap/nvidia/packages.toml").read_text())
    assert {p["version"] for p in packages["toolkit"]} == {REFERENCE.toolkit, "1.18.0-1"}
    everything = "".join(path.read_text() for path in (ROOT / "deployments/host").glob("*.*"))
    assert "trusted=yes" not in everything and "allow-unauthenticated" not in everything


@unit
def test_cuda_without_a_known_package_is_not_tried() -> None:
    with Target.open("local") as target, pytest.raises(TutorialError, match="can't be installed by this chapter"):
        gpu.data(target, replace(REFERENCE, cuda="12.4"))


@unit
def test_without_a_machine_the_three_deploys_are_planned_and_nothing_is_left() -> None:
    with Target.open("local") as target:
        plans = [target.apply(name, gpu.data(target, REFERENCE), dry=True) for name in gpu.DEPLOYS]
        with pytest.raises(TutorialError, match="is not for the target local"):
            target.apply("cuda")
        with pytest.raises(TutorialError, match="not restarted by itself"):
            gpu.restart(target)
    assert [plan.changed[-1] for plan in plans] == [
        "Install the driver 535", "Have LD_LIBRARY_PATH in ~/.bashrc", "Tell containerd of NVIDIA's runtime",
    ]  # fmt: skip


@unit
def test_beside_a_driver_of_another_branch_cuda_comes_without_its_own() -> None:
    with Target.open("local") as target:
        plan = target.apply("cuda", gpu.data(target, replace(REFERENCE, driver="550")), dry=True)
    assert "Install CUDA 12.2: cuda-toolkit-12-2" in plan.changed


@unit
def test_the_sample_s_failures_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    text = 'docker: Error response from daemon: could not select device driver "" with capabilities: [[gpu]].\n'
    monkeypatch.setattr(LocalTarget, "run", lambda self, argv, **_: Completed(argv, 125, "", text, 0.1))
    with Target.open("local") as target, pytest.raises(TutorialError, match="does not know NVIDIA's runtime"):
        gpu.nbody(target)


@pytest.fixture(scope="module")
def bare(docker_vm: Target) -> SimpleNamespace:
    """Give a VM on which nothing of the chapter is installed; the tests that use it leave it so."""
    return _host(docker_vm)


@pytest.fixture
def host(other_vm: str) -> Iterator[SimpleNamespace]:
    """Give a VM to set up: that can't be taken back."""
    with Target.open("vm") as machine:
        yield _host(machine)


def _host(machine: Target) -> SimpleNamespace:
    return SimpleNamespace(machine=machine, folder=gpu_lab.repository(machine), data=gpu.data(machine, REFERENCE))


def _root(machine: Target, *argv: str, input: str | None = None) -> str:
    return machine.run(machine.sudo(*argv), input=input, timeout=120).stdout


def _there(machine: Target, *paths: str) -> list[str]:
    return machine.run(["ls", *paths], check=False).stdout.split()


@in_vm
def test_a_wrong_signature_a_wrong_key_and_an_unreachable_repository_leave_no_source(
    bare: SimpleNamespace, tmp_path: Path
) -> None:
    machine, source = bare.machine, "/etc/apt/sources.list.d/graphics-drivers.list"
    bad = tmp_path / "bad"
    shutil.copytree(bare.folder, bad)
    for index in bad.rglob("InRelease"):
        index.write_text(index.read_text().replace("SHA256:", "Changed-By: nobody\nSHA256:"))
    with gpu_lab.served(machine, bad) as lab:
        with pytest.raises(TutorialError, match="The deploy nvidia_driver failed") as error:
            machine.apply("nvidia_driver", {**bare.data, **lab})
        assert "BADSIG" in error.value.output or "invalid" in error.value.output, error.value.output
        assert _there(machine, source) == []
    with gpu_lab.served(machine, bare.folder) as lab:
        other = {**lab, "ppa_fingerprint": "F" * 40}
        with pytest.raises(TutorialError, match="is not the expected one"):
            machine.apply("nvidia_driver", {**bare.data, **other})
        assert _there(machine, source) == []
    with pytest.raises(TutorialError, match="Read the PPA") as error:
        machine.apply("nvidia_driver", {**bare.data, **lab})
    assert "Connection refused" in error.value.output
    assert _there(machine, source) == []


@in_vm
def test_a_package_that_was_damaged_on_its_way_is_refused(bare: SimpleNamespace, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    shutil.copytree(bare.folder / "cuda", bad / "cuda")
    shutil.copy(bare.folder / "fingerprint", bad)
    (package,) = bad.rglob("*.deb")
    package.write_bytes(package.read_bytes()[:-1])
    with gpu_lab.served(bare.machine, bad) as lab, pytest.raises(TutorialError, match="published checksum"):
        bare.machine.apply("cuda", {**bare.data, **lab})
    assert _there(bare.machine, f"/var/tmp/{package.name}", "/var/cuda-repo-ubuntu2204-12-2-local") == []


@in_vm
def test_a_broken_daemon_json_is_named_before_anything_is_changed(bare: SimpleNamespace) -> None:
    machine, path = bare.machine, "/etc/docker/daemon.json"
    good = machine.run(["cat", path]).stdout
    _root(machine, "tee", path, input='{"runtimes": ')
    try:
        with pytest.raises(TutorialError, match="daemon.json is not valid JSON"):
            machine.apply("container_toolkit", bare.data)
        assert machine.run(["cat", path]).stdout == '{"runtimes": '
        assert _there(machine, "/etc/apt/sources.list.d/nvidia-container-toolkit.list") == []
    finally:
        _root(machine, "tee", path, input=good)


@in_vm
def test_a_machine_is_set_up_restarted_mended_and_cleaned(
    host: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    _set_up(host)
    _check_packages_and_profile(host.machine)
    _check_runtimes(host)
    _restart(host.machine)
    _cut_off_before_dockers_restart(host)
    monkeypatch.setattr(gpu, "opened", lambda _: nullcontext(host.machine))  # the VM, as a Host of the reader's
    _clean(host.machine)


def _set_up(host: SimpleNamespace) -> None:
    """Apply each deploy: dry, for real, and once more, which finds nothing to do."""
    machine = host.machine
    machine.run(["sh", "-c", "printf '# mine, without a line end' >>~/.bashrc"])
    with gpu_lab.served(machine, host.folder) as lab:
        for name in gpu.DEPLOYS:
            planned = machine.apply(name, {**host.data, **lab}, dry=True)
            assert planned.changed and _there(machine, "/usr/bin/nvidia-ctk") == []
            assert machine.apply(name, {**host.data, **lab}).changed
            again = machine.apply(name, {**gpu.data(machine, REFERENCE), **lab})
            assert again.changed == [], "a second run changes nothing"


def _check_packages_and_profile(machine: Target) -> None:
    rows = {row["what"]: row["there"] for row in gpu.record(machine, REFERENCE)}
    assert rows["driver, installed"] == "535.247.01-0ubuntu1" and rows["CUDA, installed"] == "12.2.0-1"
    assert rows["container toolkit"] == "1.17.8-1" and rows["driver, running"] == "no driver is installed"
    assert "nvidia" not in machine.run(["apt-get", "-s", "upgrade"]).stdout, "what is held does not move"
    policy = machine.run(["apt-cache", "policy", "nvidia-container-toolkit", "cuda"]).stdout
    assert "1.18.0-1" in policy and "600" in policy, "there is a newer one, and CUDA's pin holds"
    profile = machine.run(["cat", ".bashrc"]).stdout.splitlines()
    assert [sum(word in line for line in profile) for word in ("cuda-12.2/bin", "cuda-12.2/lib64")] == [1, 1]
    assert "# mine, without a line end" in profile
    path = machine.run(["bash", "-ic", "echo $PATH; echo $LD_LIBRARY_PATH"]).stdout.split()
    assert path[0].startswith("/usr/local/cuda-12.2/bin:") and path[1] == "/usr/local/cuda-12.2/lib64"


def _check_runtimes(host: SimpleNamespace) -> None:
    machine = host.machine
    runtimes = machine.run(["docker", "info", "-f", "{{.DefaultRuntime}} {{json .Runtimes}}"]).stdout
    assert runtimes.startswith("nvidia ") and ("runc-bounded" in runtimes) == bool(host.data["low_level_runtime"])
    config = machine.run(["cat", "/etc/nvidia-container-runtime/config.toml"]).stdout
    assert "\naccept-nvidia-visible-devices-as-volume-mounts = true" in f"\n{config}"
    assert "nvidia-container-runtime" in machine.run(["cat", "/etc/containerd/config.toml"]).stdout
    assert docker_host.run_hello(machine), "a container that asks for no GPU runs as ever"
    asks = ["docker", "run", "--rm", "-e", "NVIDIA_VISIBLE_DEVICES=all", docker_host.HELLO]
    assert "nvidia-container-cli" in machine.run(asks, check=False).stderr, "NVIDIA's real runtime is in between"


def _restart(machine: Target) -> None:
    assert gpu.needs_restart(machine, "535")
    before = machine.run(["sh", "-c", gpu._STARTED]).stdout
    assert gpu.restart(machine) < 120
    assert machine.run(["sh", "-c", gpu._STARTED]).stdout != before
    assert not gpu.needs_restart(machine, "535")
    assert docker_host.run_hello(machine)


def _cut_off_before_dockers_restart(host: SimpleNamespace) -> None:
    """Docker runs with what it had before daemon.json was written: the next run restarts it."""
    machine, path = host.machine, "/etc/docker/daemon.json"
    configured = machine.run(["cat", path]).stdout
    _root(machine, "tee", path, input=configured.replace('"default-runtime": "nvidia",', ""))
    _root(machine, "systemctl", "restart", "docker")
    _root(machine, "tee", path, input=configured)
    with gpu_lab.served(machine, host.folder) as lab:
        assert machine.apply("container_toolkit", {**host.data, **lab}).changed == ["Restart Docker"]
    assert machine.run(["docker", "info", "-f", "{{.DefaultRuntime}}"]).stdout == "nvidia\n"


def _clean(machine: Target) -> None:
    """Take the sources away, and say that the packages stay."""
    goes, stays = gpu.leftovers("GPU-cpouta")
    assert "cuda-ubuntu2204-12-2-local.list" in goes.where and goes.remove
    assert "nvidia-driver-535 535.247.01-0ubuntu1" in stays.where and not stays.remove
    assert "daemon.json" in stays.stays
    goes.remove()
    assert gpu.leftovers("GPU-cpouta") == [] and gpu.sources(machine) == []
    places = ("/etc/apt/sources.list.d", "/etc/apt/preferences.d", "/usr/share/keyrings", "/var")
    left = _there(machine, *places)
    assert not [name for name in left if "nvidia" in name or "cuda" in name or "graphics" in name]
    assert "cuda-12.2" not in machine.run(["cat", ".bashrc"]).stdout
    there = gpu_versions.read_dpkg(machine.run(["dpkg", "-l"]).stdout)
    assert {"nvidia-driver-535", "cuda", "nvidia-container-toolkit"} <= set(there)


@in_vm
def test_the_repository_is_made_once_and_signed_by_a_key_that_is_gone(bare: SimpleNamespace) -> None:
    made = (bare.folder / "fingerprint").stat().st_mtime
    assert gpu_lab.repository(bare.machine) == bare.folder
    assert (bare.folder / "fingerprint").stat().st_mtime == made
    assert not [path for path in bare.folder.rglob("*") if "private" in path.name or path.suffix == ".kbx"]
    for index in bare.folder.rglob("InRelease"):
        key = bare.folder / "toolkit" / "gpgkey"
        with_key = ["gpg", "--show-keys", "--with-colons", str(key)]
        assert (bare.folder / "fingerprint").read_text().strip() in subprocess.run(
            with_key, capture_output=True, text=True
        ).stdout
        assert "BEGIN PGP SIGNED MESSAGE" in index.read_text()
