"""Chapter 04's faults: what the messages of NVIDIA's tools and of the kernel mean, and what helps.

Sources: https://docs.nvidia.com/deploy/nvml-api/group__nvmlDeviceEnumvs.html (NVML's return codes),
https://docs.nvidia.com/deploy/xid-errors/ and https://wiki.ubuntu.com/UEFI/SecureBoot/DKMS.
"""

import re
from collections.abc import Mapping

NO_DRIVER = "no driver is installed"
HANGS = (
    "nvidia-smi does not answer in time: the driver or a GPU hangs",
    "restart the machine; if it happens again, tell the cloud's support what `sudo dmesg | grep Xid` prints",
)
_LOST = "a GPU has fallen off the PCI bus"
_LOST_REMEDY = (
    "stop the VM and start it again; if it happens again, tell the cloud's support what `sudo dmesg | grep Xid` prints"
)
ERRORS = ("a GPU does not answer, or not in full (ERR!)", _LOST_REMEDY)
_HEADERS = "sudo apt-get install linux-headers-$(uname -r) && sudo dkms autoinstall, then restart the machine"
_ENROL = (
    "sudo mokutil --import /var/lib/shim-signed/mok/MOK.der, restart and choose Enroll MOK on the console; "
    "or turn Secure Boot off in the VM's firmware"
)
_NOUVEAU_REMEDY = (
    "restart the machine, the driver's package keeps nouveau out; if it stays: echo 'blacklist nouveau' | sudo tee "
    "/etc/modprobe.d/blacklist-nouveau.conf && sudo update-initramfs -u, and restart again"
)
_UNLOADED = "the driver's kernel module is not loaded"
# A pattern of the message, what it means, what helps. The first that fits counts, so causes come before symptoms.
_MESSAGES = (
    (
        r"Driver/library version mismatch|API mismatch",
        "the driver was updated, and the kernel still runs the old one",
        "restart the machine",
    ),
    (
        r"key was rejected by service|required key not available",
        "Secure Boot refuses the driver's kernel module: its signing key is not enrolled",
        _ENROL,
    ),
    (
        r"kernel headers for kernel .* cannot be found|unable to find the kernel source tree",
        "the driver's kernel module was not built, because the kernel's headers are missing",
        _HEADERS,
    ),
    (
        r"open kernel modules? .*(not supported|does not support)|not supported by open|"
        r"requires use of the NVIDIA open kernel modules",
        "the GPU needs the other kind of kernel module",
        "older than Turing: install nvidia-driver-NNN; Blackwell and newer: nvidia-driver-NNN-open",
    ),
    (
        r"legacy drivers|has been deprecated.*GPU|ignor(ed|ing) .*legacy GPU",
        "this driver no longer supports the GPU",
        "choose an older driver of the table",
    ),
    (r"\bnouveau\b", "the kernel runs nouveau, which keeps NVIDIA's kernel module out", _NOUVEAU_REMEDY),
    (r"GPU is lost|fallen off the bus|device handle.*(unknown error|not found)", _LOST, _LOST_REMEDY),
    (
        r"couldn't communicate with (the )?NVIDIA driver|driver not loaded",
        _UNLOADED,
        "restart the machine; if it stays, `dkms status` shows whether the module was built for this kernel, "
        "`mokutil --sb-state` whether Secure Boot refuses it",
    ),
    (
        r"insufficient permissions|suitable permissions",
        "your user may not open the GPU's device files",
        "try `sudo nvidia-smi`; if that works, see the owner and mode of /dev/nvidia* (ls -l)",
    ),
    (
        r"access blocked by the operating system",
        "Windows does not give the GPU to WSL",
        "update the driver in Windows and run `wsl --update` there; install no driver inside WSL",
    ),
    (
        r"requires reset|reset required",
        "a GPU must be reset after a fault",
        "end what runs on it, then sudo nvidia-smi --gpu-reset, or restart the machine",
    ),
    (
        r"insufficient external power|insufficiently powered",
        "a GPU has no power cable, or a loose one",
        "shut the machine down and connect the card's power cables",
    ),
    (
        r"corrupted infoROM",
        "a GPU's own memory of settings is damaged",
        "restart the machine; if it stays, have the card replaced",
    ),
    (
        r"libnvidia-ml\.so|shared library not found",
        "the driver's libraries are missing: its installation is incomplete, or a container got none of them",
        "on the machine, install the driver again; in a container, add --gpus=all",
    ),
    (
        r"failed to initialize NVML: unknown error|device handle",
        "the GPU's device files can't be used, as in a container that lost them when systemd was reloaded",
        "in a container, start it again; on the machine, restart it",
    ),
    (
        r"no (devices|supported GPUs) were found",
        "the driver runs and sees no GPU",
        "`sudo dmesg | grep NVRM` shows the reason",
    ),
    (
        r"failed to initialize NVML",
        "the driver's library can't reach the driver",
        "restart the machine; `sudo dmesg | grep NVRM` shows the reason",
    ),
    (r"not found|no such file", NO_DRIVER, "install the driver; without a GPU none is needed"),
)


def meaning(message: str) -> tuple[str, str]:
    """Give what a message means.

    Args:
        message: What a tool or the kernel printed.

    Returns:
        The problem and its remedy; both are empty where the message is not a known one.
    """
    found = ((p, r) for pattern, p, r in _MESSAGES if re.search(pattern, message, re.IGNORECASE))
    return next(found, ("", ""))


# What is asked of a machine whose driver does not run, for `module_fault`.
QUESTIONS = {
    "kernel": "uname -r",
    "modules": "lsmod || cat /proc/modules",
    "secure boot": "mokutil --sb-state",
    "built": "modinfo -F filename nvidia",
    "dkms": "dkms status",
    "headers": "ls -d /lib/modules/$(uname -r)/build",
    "log": "log=$(dmesg || sudo -n dmesg || journalctl -kq); echo \"$log\" | grep -iE 'nv(rm|idia)|key' | tail -n 20",
}


def module_fault(answers: Mapping[str, str | None]) -> tuple[str, str]:
    """Give why the driver's kernel module does not run, as far as the machine shows it.

    Args:
        answers: What the machine answered to `QUESTIONS`.

    Returns:
        The problem and its remedy; both are empty where nothing is wrong, or nothing is known.
    """
    loaded = {line.split()[0] for line in (answers["modules"] or "").splitlines() if line.strip()}
    if "nvidia" in loaded:
        return "", ""
    if "nouveau" in loaded:
        return meaning("nouveau")
    if (found := meaning(answers["log"] or ""))[0] not in ("", NO_DRIVER):
        return found
    if answers["built"] and "enabled" in (answers["secure boot"] or "").lower():
        return f"{_UNLOADED}, and Secure Boot is on", f"restart the machine; if it stays: {_ENROL}"
    if answers["built"] or "nvidia" not in (answers["dkms"] or ""):
        return "", ""
    problem = f"the driver's kernel module is not built for the kernel {answers['kernel'] or 'that runs'}"
    if not answers["headers"]:
        return f"{problem}, whose headers are missing", _HEADERS
    return problem, "sudo dkms autoinstall, then restart the machine; it prints why where it fails"
