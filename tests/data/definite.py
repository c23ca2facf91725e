"""What the definite variant of KOALA++ makes of 100 steps in float64, for tests/definite.rs. It is written from the
equations with NumPy alone. Run: python tests/data/definite.py > tests/data/definite.txt

Each line has a case, its tensor's length, the step, the innovation variance of that step, and the parameters after it.
Gradients, losses and first parameters are by a formula, which the test has too.
"""

import numpy as np

LENGTHS = [1, 5, 16, 33, 127]
# learning rate, weight decay, sigma, Q, gamma, R
CASES = {
    "usual": (1.0, 0.0, 0.1, 0.1, 0.1, 1.0),
    "decay": (0.5, 0.01, 0.2, 0.05, 0.2, 0.5),
    "little-prior": (0.5, 0.001, 0.5, 0.0, 0.01, 2.0),
    "large-prior": (0.1, 0.0, 0.1, 0.01, 5.0, 0.1),
}


def number(index, step):
    """A number from -1 to 1, a multiple of 1/1000; step 0 is for the first parameters."""
    return ((index * 7919 + step * 104729 + index * step * 31) % 2001 - 1000) / 1000


def run(length, rate, decay, sigma, q, gamma, noise):
    """Yields the innovation variance and the parameters of each step."""
    theta = np.array([number(i, 0) for i in range(length)])
    h = v = s = None
    for step in range(1, 101):
        gradient = np.array([number(i, step) for i in range(length)])
        loss = 1.0 / step + 0.5 * decay * (theta @ theta)
        row = gradient + decay * theta
        if h is None:
            h, v = row, sigma * row
            s = row @ v + q * (row @ row) + noise
        # H·P with P = (I - K·h)·(P^ + Q·I), K = (v + Q·h)/s, and P^ = gamma·(I - h'h/x) + v'v/y.
        x, y = h @ h, h @ v
        product = gamma * (row - h * (row @ h) / x) + v * (row @ v) / y + q * row
        gain = row @ (v + q * h) / s
        new_v = product - gain * (v + q * h)
        s = row @ new_v + q * (row @ row) + noise
        theta = theta - rate * loss / s * (new_v + q * row)
        h, v = row, new_v
        yield step, s, theta


for name, numbers in CASES.items():
    for length in LENGTHS:
        for step, s, theta in run(length, *numbers):
            if step in (1, 2, 10, 100):
                print(name, length, step, repr(float(s)), *(repr(value) for value in theta.tolist()))
