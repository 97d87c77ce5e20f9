"""Chapter 04 on machines of many kinds: half-working tools, lost GPUs, modules that don't load, broken packages."""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from helpers import gpu, gpu_devices, gpu_faults, gpu_restart, gpu_versions, shell
from helpers.errors import TutorialError
from helpers.gpu_versions import chosen
from helpers.target import Target

pytestmark = pytest.mark.unit
DATA = Path(__file__).parent / "data" / "gpu"
P100 = "00:06.0 3D controller: NVIDIA Corporation GP100GL [Tesla P100 PCIe 16GB] (rev a1)"
Program = Callable[[str, str], None]


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    """Give a function that puts a shell script first on PATH; a program that hangs costs a second only."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setattr(shell, "ANSWER_SECONDS", 1)

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    add("docker", "exit 1")  # no test here asks the machine's own
    add("sudo", "exit 1")
    return add


def looked(name: str = "local") -> dict[str, object]:
    with Target.open(name) as target:
        return {str(row["what"]): row["there"] for row in gpu.look(target)}


def devices() -> list[str]:
    with Target.open("local") as target:
        return gpu.devices(target)


def recorded(**changes: str) -> dict[str, Mapping[str, object]]:
    with Target.open("local") as target:
        return {str(row["what"]): row for row in gpu.record(target, chosen(**changes))}


def smi(answer: str, others: str = "") -> str:
    """Write an nvidia-smi that answers the query of `gpu_devices`, and prints something else without it."""
    return f'case "$*" in *compute_cap*) {answer};; *) {others or answer};; esac'


# Which GPUs


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (builder@)",
            "580.159.04",
        ),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  570.26  Release Build", "570.26"),
        ("NVRM version: NVIDIA UNIX aarch64 Kernel Module  535.54.03  x", "535.54.03"),
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  390.157\nGCC version:  gcc version 9.4.0", "390.157"),
        ("GCC version:  gcc version 15.3.0 (GCC)", ""),
        ("", ""),
    ],
)
def test_the_running_module_s_version_is_read_of_open_and_closed_ones(text: str, version: str) -> None:
    assert gpu_devices.module_version(text) == version


@pytest.mark.parametrize(
    ("gpu", "capability"),
    [
        ("0000:00:06.0 NVIDIA, device 0x2330", "9.0"),
        ("0000:00:06.0 NVIDIA, device 0x15f8", "6.0"),
        ("0000:00:06.0 NVIDIA, device 0xffff", ""),
        ("01:00.0 3D controller: NVIDIA Corporation Device 20b5 (rev a1)", "8.0"),
        ("01:00.0 3D controller [0302]: NVIDIA Corporation TU104GL [Tesla T4] [10de:1eb8] (rev a1)", "7.5"),
        ("01:00.0 VGA compatible controller: NVIDIA Corporation GB202 [GeForce RTX 5090] (rev a1)", "12.0"),
        ("NVIDIA H100 80GB HBM3", "9.0"),
        ("NVIDIA GH200 480GB", "9.0"),
        ("Tesla P100-PCIE-16GB", "6.0"),
        ("GRID P100-8Q", "6.0"),
        ("GRID V100D-8Q", "7.0"),
        ("NVIDIA A100-4C", "8.0"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "8.0"),
        ("NVIDIA A10G", "8.6"),
        ("NVIDIA L40S-48Q", "8.9"),
        ("Quadro RTX 4000", "7.5"),
        ("NVIDIA RTX 4000 Ada Generation", "8.9"),
        ("GRID A100D-40C", "8.0"),  # of 80 GB, as a virtual GPU
        ("NVIDIA H100XM-80C", "9.0"),
        ("NVIDIA RTXA6000-48Q", "8.6"),
        ("NVIDIA RTX6000-Ada-48Q", "8.9"),
        ("GRID RTX6000-8Q", "7.5"),
        ("NVIDIA GeForce RTX 2050", "8.6"),  # names of one series, chips of several
        ("NVIDIA GeForce MX130", "5.0"),
        ("NVIDIA GeForce MX250", "6.1"),
        ("NVIDIA GeForce MX450", "7.5"),
        ("NVIDIA GeForce MX570", "8.6"),
        ("GeForce GTX 980M", "5.2"),
        ("Quadro K5200", "3.5"),
        ("NVIDIA Something new (compute capability 13.1)", "13.1"),
        ("NVIDIA Something new", ""),
    ],
)
def test_a_gpu_s_capability_is_known_by_its_name_its_chip_or_its_number(gpu: str, capability: str) -> None:
    assert gpu_versions.capability(gpu) == capability


def test_the_driver_names_the_gpus_of_a_machine_without_lspci(program: Program) -> None:
    program("nvidia-smi", smi("echo 'NVIDIA H100 80GB HBM3, 9.0, 580.159.04'"))
    program("lspci", "exit 127")
    assert devices() == ["NVIDIA H100 80GB HBM3 (compute capability 9.0)"]
    assert looked()["driver that runs"] == "580.159.04"
    program("nvidia-smi", smi("echo 'Tesla P100-PCIE-16GB, 6.0, 580.142'"))
    with pytest.raises(TutorialError, match="needs compute capability 7.5 or newer; Tesla P100-PCIE-16GB has 6.0"):
        gpu_versions.require_fit(chosen(driver="580", cuda="13.0"), devices())


def test_a_driver_that_knows_no_capability_is_asked_for_the_name(program: Program) -> None:
    unknown = 'echo "Field \\"compute_cap\\" is not a valid field to query."; exit 2'
    program("nvidia-smi", smi(unknown, "echo 'Tesla P100-PCIE-16GB, 450.80.02'; echo 'Tesla T4, 450.80.02'"))
    program("lspci", "exit 127")
    assert [gpu_versions.capability(device) for device in devices()] == ["6.0", "7.5"]
    assert looked()["driver that runs"] == "450.80.02"


def test_one_card_counts_once_and_a_switch_or_another_s_device_does_not(program: Program) -> None:
    lines = [
        "00:02.0 VGA compatible controller: Intel Corporation UHD Graphics",
        "01:00.0 VGA compatible controller: NVIDIA Corporation TU102 [GeForce RTX 2080 Ti] (rev a1)",
        "01:00.1 Audio device: NVIDIA Corporation TU102 High Definition Audio Controller (rev a1)",
        "01:00.2 USB controller: NVIDIA Corporation TU102 USB 3.1 Host Controller (rev a1)",
        "01:00.3 Serial bus controller: NVIDIA Corporation TU102 USB Type-C UCSI Controller (rev a1)",
        "05:00.0 Bridge: NVIDIA Corporation GA100 [A100 NVSwitch] (rev a1)",
        "06:00.0 3D controller: NVIDIA Corporation GA100 [A100 SXM4 40GB] (rev a1)",
    ]
    program("lspci", f"cat <<'END'\n{chr(10).join(lines)}\nEND")
    program("nvidia-smi", "echo 'nvidia-smi: command not found'; exit 127")
    assert devices() == [lines[1], lines[6]]


def test_a_lost_gpu_counts_still_and_is_told(program: Program) -> None:
    lost = "Unable to determine the device handle for GPU1: 0000:0F:00.0: Unknown Error"
    program("lspci", f"echo '{P100}'; echo '{P100.replace('06.0', '07.0')}'")
    program("nvidia-smi", smi(f"echo 'Tesla P100-PCIE-16GB, 6.0, 535.104.05'; echo '{lost}'; exit 15"))
    assert len(devices()) == 2
    program("nvidia-smi", smi("echo 'Tesla P100-PCIE-16GB, 6.0, 535.1'; echo '[GPU is lost], [GPU is lost], 535.1'"))
    program("lspci", "exit 127")
    names = [gpu_devices.short(device) for device in devices()]
    assert names == ["Tesla P100-PCIE-16GB", "a GPU that does not answer"]


@pytest.mark.parametrize("broken", ["ERR!, ERR!, 535.104.05", "[N/A], [N/A], 535.104.05", "N/A, N/A, 535.104.05"])
def test_a_gpu_without_a_name_is_unknown(program: Program, broken: str) -> None:
    program("lspci", "exit 127")
    program("nvidia-smi", smi(f"echo '{broken}'"))
    (device,) = devices()
    assert gpu_versions.unknown([device]) and gpu_devices.short(device) == "a GPU that does not answer"
    assert looked()["driver that runs"] == "535.104.05"


def test_a_row_without_a_driver_version_is_a_gpu_still(program: Program) -> None:
    program("lspci", "exit 127")
    program("nvidia-smi", smi("echo 'NVIDIA H100 PCIe, 9.0, N/A'; echo 'NVIDIA L4, [N/A], [Unknown Error]'"))
    assert [gpu_versions.capability(device) for device in devices()] == ["9.0", "8.9"]
    assert looked()["driver that runs"] == "none"


def test_an_unknown_gpu_is_unknown_and_stops_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    device = "01:00.0 VGA compatible controller: NVIDIA Corporation Device ffff (rev a1)"
    assert "unknown" in " ".join(gpu_versions.misfits(chosen(), [device]))
    gpu_versions.require_fit(chosen(), [device])
    assert "Not known to fit" in capsys.readouterr().out
    (row,) = gpu_versions.gpus(chosen(), [device])
    assert (row["compute capability"], row["fits"]) == ("unknown", "unknown")
    assert [row["fits"] for row in gpu_versions.gpus(chosen(), [P100])] == ["yes"]


def test_a_gpu_newer_than_the_driver_is_unfit_and_branches_of_all_kinds_are_known() -> None:
    (reason, *_) = gpu_versions.misfits(chosen(), ["NVIDIA B200"])
    assert reason == "driver 535 knows no GPU above 9.0; NVIDIA B200 has 10.0"
    assert gpu_versions.misfits(chosen(driver="570"), ["NVIDIA B200"]) == []
    for driver in ("535-server", "535-open", "535-server-open"):
        assert gpu_versions.misfits(chosen(driver=driver), [P100]) == []
    assert gpu_versions.misfits(chosen(driver="550", cuda="12.4"), [P100]) == []


# Half-working tools


@pytest.mark.parametrize(
    "tools",
    [
        {},
        {"nvidia-smi": "sleep 40"},
        {"lspci": "exit 127", "nvidia-smi": "exit 1"},
        {"docker": 'case "$1" in version|info) echo;; esac; exit 1'},
        {"docker": "sleep 40"},
        {"cat": "exit 1", "awk": "exit 2", "df": "exit 1", "uname": "exit 1", "getconf": "exit 1"},
        {"ps": "exit 1", "dpkg": "exit 127", "modinfo": "exit 127", "lsmod": "exit 127", "dmesg": "exit 1"},
    ],
)
def test_half_working_tools_give_a_value_or_unknown(program: Program, tools: Mapping[str, str]) -> None:
    for name, script in tools.items():
        program(name, script)
    began = time.monotonic()
    rows = looked()
    assert list(rows) == [
        "NVIDIA GPUs", "system", "kernel", "driver that runs", "Docker", "containers that run", "disk free",
    ]  # fmt: skip
    assert all(isinstance(value, str) and value for value in rows.values())
    assert (rows["Docker"], rows["containers that run"]) == ("none", "unknown")
    assert all(row["there"] for row in recorded().values())
    assert time.monotonic() - began < 20


def test_what_a_machine_is_stands_beside_its_gpus(program: Program) -> None:
    program("nvidia-smi", smi("echo 'NVIDIA A30, 8.0, 535.1'"))
    rows = looked()
    assert rows["kernel"] == os.uname().release and "GiB" in str(rows["disk free"])
    assert not set(gpu_devices.QUESTIONS) & {"system", "disk", "Docker", "containers", "kernel"}


def test_docker_is_asked_with_sudo_where_the_user_may_not(program: Program) -> None:
    program("sudo", 'shift; AS_ROOT=yes exec "$@"')
    program("docker", '[ -n "$AS_ROOT" ] || exit 1; case "$1" in version) echo 28.1.1;; ps) echo a1; echo b2;; esac')
    rows = looked("host")
    assert (rows["Docker"], rows["containers that run"]) == ("28.1.1", "2")
    assert looked("local")["Docker"] == "none", "the target local changes nothing, and uses no sudo"


def test_without_an_answer_the_disk_is_unknown_and_a_strange_runtime_is_none(program: Program) -> None:
    program("df", "exit 1")
    program("docker", "echo 'Error: template: no field DefaultRuntime'")
    with Target.open("local") as target:
        with pytest.raises(TutorialError, match="not known how much disk"):
            gpu.free_gib(target)
        assert gpu.data(target, chosen())["low_level_runtime"] == ""
        with pytest.raises(TutorialError, match="can't be installed by this chapter"):
            gpu.data(target, chosen(cuda="99.9"))


# What the messages mean


@pytest.mark.parametrize(
    ("message", "problem", "remedy"),
    [
        ("Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 5", "old one", "restart"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "not loaded", "dkms status"),
        ("NVIDIA-SMI has failed because it couldn't communicate with NVIDIA driver.", "not loaded", "restart"),
        ("Failed to initialize NVML: Unknown Error", "device files", "container"),
        ("Failed to initialize NVML: Insufficient Permissions", "may not open", "sudo"),
        ("Failed to initialize NVML: GPU access blocked by the operating system", "WSL", "wsl --update"),
        ("Failed to initialize NVML: Driver Not Loaded", "not loaded", "restart"),
        ("Failed to initialize NVML: Timeout", "can't reach the driver", "dmesg"),
        ("NVIDIA-SMI couldn't find libnvidia-ml.so library in your system.", "libraries are missing", "--gpus=all"),
        ("Unable to determine the device handle for GPU 0000:0F:00.0: GPU is lost.  Reboot", "bus", "support"),
        ("Unable to determine the device handle for GPU0000:25:00.0: Unknown Error", "bus", "support"),
        ("Unable to determine the device handle for GPU 0000:0F:00.0: Insufficient External Power", "power", "cable"),
        ("NVRM: Xid (PCI:0000:07:00): 79, GPU has fallen off the bus.", "bus", "support"),
        ("GPU 0000:01:00.0: Unable to communicate with GPU because it is insufficiently powered.", "power", "cable"),
        ("Failed to initialize NVML: Not Found", "can't reach the driver", "dmesg"),
        ("No devices were found", "sees no GPU", "dmesg"),
        ("modprobe: ERROR: could not insert 'nvidia': Key was rejected by service", "Secure Boot", "mokutil --import"),
        ("modprobe: ERROR: could not insert 'nvidia': Required key not available", "Secure Boot", "mokutil"),
        ("Error! Your kernel headers for kernel 5.15.0-91-generic cannot be found.", "headers", "linux-headers"),
        ("ERROR: The Nouveau kernel driver is currently in use by your system.", "nouveau", "blacklist"),
        ("NVRM: installed in this system is not supported by open nvidia.ko", "other kind", "-open"),
        ("sh: 1: nvidia-smi: not found", "no driver is installed", "install"),
    ],
)  # fmt: skip
def test_a_message_has_a_reason_and_a_remedy(message: str, problem: str, remedy: str) -> None:
    seen = gpu_versions.read_smi(message)
    assert seen.version == "" and problem in seen.problem and remedy in seen.remedy


KERNEL = dict.fromkeys(gpu_faults.QUESTIONS) | {"kernel": "5.15.0-91-generic", "modules": "ext4 1 2"}
BUILT = {"built": "/lib/modules/5.15.0-91-generic/updates/dkms/nvidia.ko"}


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"modules": "nouveau 2 0 - Live\next4 1 2"}, "nouveau"),
        ({"log": "Loading of module is rejected\nnvidia: Key was rejected by service"}, "Secure"),
        ({**BUILT, "secure boot": "SecureBoot enabled"}, "Secure Boot is on"),
        ({**BUILT, "secure boot": "SecureBoot disabled"}, ""),
        ({"dkms": "nvidia/535.247.01, 5.4.0-1-generic, x86_64: installed"}, "whose headers are missing"),
        ({"dkms": "nvidia/535.247.01: added", "headers": "/lib/modules/x/build"}, "not built for the kernel 5.15.0-91"),
        ({"log": "NVRM: GPU 0000:07:00.0: GPU has fallen off the bus."}, "fallen off"),
        ({"modules": "nvidia 1 0\nnouveau 1 0"}, ""),
        ({"log": "nvidia 0000:01:00.0: firmware not found"}, ""),
        ({}, ""),
    ],
)  # fmt: skip
def test_why_the_module_does_not_run_is_found(state: dict[str, str], problem: str) -> None:
    found, remedy = gpu_faults.module_fault({**KERNEL, **state})
    assert problem in found and bool(found) == bool(problem) == bool(remedy)


def test_the_record_names_the_cause_of_a_driver_that_does_not_run(program: Program) -> None:
    program(
        "nvidia-smi", 'echo "NVIDIA-SMI has failed because it couldn\'t communicate with the NVIDIA driver."; exit 9'
    )
    program("lsmod", "echo 'Module Size Used by'; echo 'nouveau 2301952 1'")
    assert "nouveau" in str(recorded()["driver, running"]["there"])
    program("nvidia-smi", "sleep 40")
    assert "does not answer in time" in str(recorded()["driver, running"]["there"])


# nvidia-smi's table


def test_a_lost_gpu_s_row_and_a_cuda_version_in_error_have_a_remedy() -> None:
    lost = (DATA / "a30-smi.txt").read_text() + (
        "|   1  ERR!                           ERR! | 00000000:0F:00.0 Off |                 ERR! |\n"
    )
    rows = {r["what"]: r for r in gpu_versions.rows(lost, "", "", chosen())}
    assert "NVIDIA A30, GPU 1 does not answer" in str(rows["GPUs"]["there"]) and rows["GPUs"]["remedy"]
    assert rows["CUDA that the driver can do"]["remedy"] == ""
    head = "| NVIDIA-SMI 545.46     Driver Version: 546.80    CUDA Version: {}     |\n"
    for unreadable in ("ERR!", "N/A", "[N/A]"):
        row = {r["what"]: r for r in gpu_versions.rows(head.format(unreadable), "", "", chosen())}
        said = row["CUDA that the driver can do"]
        assert "unknown" in str(said["there"]) and "wsl --shutdown" in str(said["remedy"])
        assert row["driver, running"]["there"] == "546.80"


def test_a_head_without_cuda_or_without_a_version_and_errors_in_a_row_have_a_remedy() -> None:
    old = {
        r["what"]: r for r in gpu_versions.rows("| NVIDIA-SMI 390.157   Driver Version: 390.157 |", "", "", chosen())
    }
    assert old["driver, running"]["there"] == "390.157"
    assert old["CUDA that the driver can do"]["remedy"] == "a newer driver"
    nameless = gpu_versions.read_smi("| NVIDIA-SMI 535.1   Driver Version: ERR!   CUDA Version: 12.2 |")
    assert nameless.version == "" and "driver's version" in nameless.problem and nameless.remedy
    row = "|ERR!   45C    P0              ERR! / 165W |      4MiB / 24576MiB |    ERR!      Default |\n"
    faulty = {r["what"]: r for r in gpu_versions.rows((DATA / "a30-smi.txt").read_text() + row, "", "", chosen())}
    assert "not in full" in str(faulty["GPUs"]["there"]) and "support" in str(faulty["GPUs"]["remedy"])


def test_a_jetson_has_a_gpu_without_an_address_and_a_driver_without_a_version() -> None:
    row = "|   0  Orin (nvgpu)                  N/A  | N/A              N/A |                  N/A |\n"
    seen = gpu_versions.read_smi(f"| NVIDIA-SMI 540.2.0   Driver Version: N/A   CUDA Version: 12.2     |\n{row}")
    assert (seen.version, seen.more) == ("", {"CUDA up to": "12.2", "GPUs": "Orin (nvgpu)"})
    assert "JetPack" in seen.problem and "restart" not in seen.remedy


def test_without_the_driver_s_cuda_library_it_is_named() -> None:
    head = "| NVIDIA-SMI 510.47.03    Driver Version: 510.47.03    CUDA Version: {}      |"
    assert "CUDA library" in gpu_versions.read_smi(head.format("N/A")).problem
    assert "CUDA library" not in gpu_versions.read_smi(head.format("ERR!")).problem


def test_mig_devices_and_processes_are_no_gpus() -> None:
    table = (DATA / "a30-smi.txt").read_text() + (
        "| GPU  GI  CI  MIG |                   Memory-Usage |        Vol|      Shared           |\n"
        "|  0    7   0   0  |              12MiB /  5856MiB  | 14      0 |  1   0    0    0    0 |\n"
        "|    0   N/A  N/A      2212      G   /usr/lib/xorg/Xorg                            Off |\n"
    )
    assert gpu_versions.read_smi(table).more["GPUs"] == "NVIDIA A30"
    wsl = "|   0  NVIDIA GeForce RTX 3080      WDDM  |   00000000:01:00.0  On |   N/A |\n"
    assert gpu_versions.read_smi(table + wsl).more["GPUs"] == "NVIDIA A30, NVIDIA GeForce RTX 3080"


# Packages


def rows(dpkg: str, smi: str = "", nvcc: str = "", **changes: str) -> dict[object, Mapping[str, object]]:
    return {row["what"]: row for row in gpu_versions.rows(smi, nvcc, dpkg, chosen(**changes))}


def test_cuda_without_its_metapackage_is_found_by_its_parts() -> None:
    seen = rows(
        (DATA / "h100-dpkg.txt").read_text(),
        (DATA / "h100-smi-580.txt").read_text(),
        (DATA / "nvcc-13.0.txt").read_text(),
        driver="580",
        cuda="13.0",
    )
    assert (seen["CUDA, installed"]["there"], seen["CUDA, installed"]["remedy"]) == ("13.0.2-1", "")
    assert seen["nvcc"]["there"] == "13.0.88" and seen["driver, running"]["there"] == "580.159.04"
    assert seen["GPUs"]["there"] == "NVIDIA H100 80GB HBM3"
    assert "from no package" in str(seen["driver, installed"]["there"])
    from_file = rows("", nvcc=(DATA / "nvcc-12.2.txt").read_text())["CUDA, installed"]
    assert (from_file["there"], from_file["remedy"]) == ("12.2.91, from no package", "")


def test_several_cudas_are_told_and_libraries_for_old_drivers_are_none() -> None:
    two = "ii  cuda-toolkit-11-8 11.8.0-1 amd64 x\nii  cuda-toolkit-12-2 12.2.2-1 amd64 x\n"
    both = two + "rc  cuda-toolkit-12-4 12.4.1-1 amd64 x\n"
    assert rows(both)["CUDA, installed"] | {"what": 0} == {
        "what": 0, "wanted": "12.2", "there": "12.2.2-1; also 11.8.0-1", "remedy": "",
    }  # fmt: skip
    other = rows("ii  cuda 12.4.1-1 amd64 x\nii  cuda-toolkit-11-8 11.8.0-1 amd64 x\n")["CUDA, installed"]
    assert (other["there"], other["remedy"]) == ("12.4.1-1, 11.8.0-1", "install it")
    assert (
        rows("ii  cuda-compat-12-2 535.1-1 amd64 x\nii  cuda-keyring 1.1-1 all x\n")["CUDA, installed"]["there"]
        == "none"
    )


@pytest.mark.parametrize(
    ("line", "there", "remedy"),
    [
        ("ii  nvidia-driver-535 535.247.01-0ubuntu1 amd64 x", "535.247.01-0ubuntu1", ""),
        ("hi  nvidia-driver-535 535.247.01-0ubuntu1 amd64 x", "535.247.01-0ubuntu1", ""),
        ("it  nvidia-driver-535 535.247.01-0ubuntu1 amd64 x", "535.247.01-0ubuntu1", ""),
        ("ii  nvidia-driver-535-server 535.247.01 amd64 x", "nvidia-driver-535-server 535.247.01", ""),
        ("ii  nvidia-driver-535-server-open 535.247.01 amd64 x", "nvidia-driver-535-server-open 535.247.01", ""),
        ("ii  nvidia-headless-535-server 535.247.01 amd64 x", "nvidia-headless-535-server 535.247.01", ""),
        ("ii  nvidia-dkms-535 535.247.01 amd64 x", "nvidia-dkms-535 535.247.01", ""),
        ("ii  nvidia-driver 535.183.01-1~deb12u1 amd64 x", "nvidia-driver 535.183.01-1~deb12u1", ""),
        ("ii  nvidia-tesla-driver 535.216.01-1 amd64 x", "nvidia-tesla-driver 535.216.01-1", ""),
        ("ii  nvidia-tesla-470-driver 470.256.02-2 amd64 x", "nvidia-tesla-470-driver 470.256.02-2", "install it"),
        ("ii  nvidia-open-kernel-dkms 535.216.01-1 amd64 x", "nvidia-open-kernel-dkms 535.216.01-1", ""),
        ("ii  nvidia-linux-grid-535 535.161.07 amd64 x", "nvidia-linux-grid-535 535.161.07", ""),
        ("ii  nvidia-driver-535 550.1-0ubuntu1 amd64 transitional", "nvidia-driver-535 550.1-0ubuntu1", "install it"),
        ("rc  nvidia-driver-535 535.247.01 amd64 x", "none", "install it"),
        ("iU  nvidia-driver-535 535.247.01 amd64 x", "nvidia-driver-535 535.247.01, unpacked", "dpkg --configure -a"),
        ("iF  nvidia-dkms-535 535.247.01 amd64 x", "nvidia-dkms-535 535.247.01, half-configured", "dpkg --configure"),
        ("iHR nvidia-driver-535 535.247.01 amd64 x", "half-installed", "dpkg --configure -a"),
    ],
)
def test_the_driver_s_packages_are_told_in_every_state(line: str, there: str, remedy: str) -> None:
    row = rows(line)["driver, installed"]
    assert there in str(row["there"]) and remedy in str(row["remedy"]) and bool(row["remedy"]) == bool(remedy)


# The restart


@pytest.fixture
def restart_due(program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., bool]:
    """Give a function that asks whether a restart is due, with the time of the driver's files relative to now."""
    files = tmp_path / "nvidia-driver-535.list"
    original = shell.query

    def in_folder(target: Target, questions: Mapping[str, str]) -> dict[str, str | None]:
        return original(target, {k: v.replace("/var/lib/dpkg/info", str(tmp_path)) for k, v in questions.items()})

    monkeypatch.setattr(gpu_restart, "query", in_folder)
    program("nvidia-smi", "exit 127")
    program("modinfo", "exit 1")

    def due(seconds: float) -> bool:
        files.touch()
        os.utime(files, (time.time() + seconds,) * 2)
        with Target.open("local") as target:
            return gpu.needs_restart(target, "535")

    return due


def test_a_restart_is_due_after_an_installation_and_not_before(restart_due: Callable[..., bool]) -> None:
    assert restart_due(0)
    assert not restart_due(-400 * 86400.0)
    with Target.open("local") as target:
        assert not gpu.needs_restart(target, "990")


def test_without_ps_and_with_a_hidden_process_1_a_restart_is_due_still(
    restart_due: Callable[..., bool], program: Program
) -> None:
    program("ps", "exit 1")
    program("cat", 'case "$*" in /proc/1/*) exit 1;; esac; exec /bin/cat "$@"')
    assert restart_due(0) and not restart_due(-400 * 86400.0)


def test_a_start_that_is_not_known_or_a_changed_clock_is_told(
    restart_due: Callable[..., bool], program: Program
) -> None:
    with pytest.raises(TutorialError, match=r"not known whether a restart is due[\s\S]*clock was changed"):
        restart_due(7200)
    program("sed", "exit 1")
    with pytest.raises(TutorialError, match=r"not known whether a restart is due[\s\S]*when it was started"):
        restart_due(0)


def test_the_module_s_versions_decide_whatever_the_clock_says(
    restart_due: Callable[..., bool], program: Program
) -> None:
    program("cat", 'case "$*" in /sys/module/nvidia/version) echo 535.247.01;; *) exec /bin/cat "$@";; esac')
    program("modinfo", 'case "$*" in *version*) echo 535.247.01;; *) exit 1;; esac')
    assert not restart_due(7200)
    program("modinfo", 'case "$*" in *version*) echo 550.54.14;; *) exit 1;; esac')
    assert restart_due(-400 * 86400.0)
    program("nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    assert restart_due(-400 * 86400.0)
