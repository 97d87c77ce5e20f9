"""The Ray job of chapter 07 on this machine: how many times as fast two workers are as one (two cores: 2 at most)."""

import os
import statistics
import tempfile
from contextlib import redirect_stdout
from io import StringIO

os.environ["TUTORIAL_STATE"] = tempfile.mkdtemp(prefix="bench-ray-")

from helpers.ray_local import LocalRay

ROUNDS, EPOCHS = 3, 1000


def main() -> None:
    """Print the median of the rounds' ratios; Ray is stopped in the end."""
    with redirect_stdout(StringIO()), LocalRay() as local:
        found = [local.ray.search(1, 2, epochs=EPOCHS) for _ in range(ROUNDS)]
    one, two = (statistics.median(search.rounds[place].seconds for search in found) for place in (0, 1))
    print(f"twelve trials by Ray   1 worker {one:.1f} s, 2 workers {two:.1f} s: {one / two:.2f} times as fast")


if __name__ == "__main__":
    main()
