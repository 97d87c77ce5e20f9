"""A small neural network in plain Python: two moons of points, and a hidden layer that learns to tell them apart."""

import math
import random

_POINTS, _HIDDEN, _SEED = 120, 6, 7


def moons(count: int, source: random.Random) -> list[tuple[float, float, int]]:
    """Make points on two half circles that reach into each other, with some noise.

    Args:
        count: How many.
        source: Where chance comes from.

    Returns:
        x, y, and 0 or 1 for the half circle.
    """
    points = []
    for place in range(count):
        angle, moon = math.pi * source.random(), place % 2
        x, y = (math.cos(angle), math.sin(angle)) if moon == 0 else (1 - math.cos(angle), 0.5 - math.sin(angle))
        points.append((x + source.gauss(0, 0.15), y + source.gauss(0, 0.15), moon))
    return points


def train(rate: float, momentum: float, epochs: int) -> float:
    """Train a network by gradient descent and test it; the same arguments give the same result on any machine.

    Args:
        rate: The learning rate.
        momentum: How much of the last step goes into the next one, 0 to 1.
        epochs: How often it sees each point.

    Returns:
        The share of test points that it tells right, 0 to 1.
    """
    source = random.Random(_SEED)  # noqa: S311 - the same in every run, and no secret
    learned, unseen = moons(_POINTS, source), moons(_POINTS, source)
    weights = [[source.gauss(0, 1) for _ in range(4)] for _ in range(_HIDDEN)]  # of x, y, 1; and of the output
    steps = [[0.0] * 4 for _ in range(_HIDDEN)]
    for _ in range(epochs):
        source.shuffle(learned)
        for x, y, moon in learned:
            hidden = [math.tanh(w[0] * x + w[1] * y + w[2]) for w in weights]
            error = _answer(weights, hidden) - moon
            for weight, step, value in zip(weights, steps, hidden, strict=True):
                back = error * weight[3] * (1 - value * value)
                for place, slope in enumerate((back * x, back * y, back, error * value)):
                    step[place] = momentum * step[place] - rate * slope
                    weight[place] += step[place]
    right = 0
    for x, y, moon in unseen:
        hidden = [math.tanh(w[0] * x + w[1] * y + w[2]) for w in weights]
        right += (_answer(weights, hidden) > 0.5) == bool(moon)
    return right / len(unseen)


def _answer(weights: list[list[float]], hidden: list[float]) -> float:
    total = sum(w[3] * value for w, value in zip(weights, hidden, strict=True))
    return 1 / (1 + math.exp(-max(-60.0, min(60.0, total))))
