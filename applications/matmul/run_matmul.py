"""Multiplies matrices on the CPU and checks the product, as nvshare's check does on a GPU; with the same last lines."""

import os
import signal
import sys
import time

started = time.time()

import numpy  # noqa: E402 - the time to load it counts, as it does in the check on the GPU

size, rounds = int(os.environ.get("MATMUL_SIZE", "1000")), int(os.environ.get("MATMUL_ROUNDS", "10"))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # process 1 of a container has no default for it
sys.stdout.write(f"{os.environ.get('HOSTNAME', 'matmul')}\n")
ones = numpy.ones((size, size), dtype=numpy.float32)
for done in range(1, rounds + 1):
    product = ones @ ones
    sys.stdout.write(f"{done}/{rounds}\n")
    sys.stdout.flush()
if not (product == size).all():
    sys.exit("FAIL: the product is wrong")
sys.stdout.write(f"PASS\n--- {time.time() - started} seconds ---\n")
sys.stdout.flush()
if os.environ.get("MATMUL_HOLD"):
    signal.pause()
