"""How long a reader waits for nothing: `import helpers` and `tutorial --help`, as ratios to `python -c pass`.

Alternating runs, the median of each; the files are in the page cache after the first round.
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 15
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "import helpers": ["-c", "import helpers"],
    "tutorial --help": ["-m", "helpers.cli", "--help"],
}


def main() -> None:
    """Print a line a command."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(ROUNDS):
        for name, argv in COMMANDS.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *argv], check=True, stdout=subprocess.DEVNULL)
            seconds[name].append(time.perf_counter() - started)
    plain = statistics.median(seconds["python -c pass"])
    for name, measured in seconds.items():
        median = statistics.median(measured)
        print(f"{name:16} {median:.3f} s   {median / plain:5.1f} × python -c pass")


if __name__ == "__main__":
    main()
