"""The part that two deploys share: CUDA's lines in the user's ~/.bashrc, which one writes and the other takes away.

Source: https://docs.nvidia.com/cuda/archive/12.2.0/cuda-installation-guide-linux/#environment-setup.
"""


def lines(version: str) -> dict[str, str]:
    """Give the line of each variable, for a version such as 12.2."""
    folder = f"/usr/local/cuda-{version}"
    return {
        "PATH": f"export PATH={folder}/bin:$PATH",
        "LD_LIBRARY_PATH": f"export LD_LIBRARY_PATH={folder}/lib64${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}",
    }
