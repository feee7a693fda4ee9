"""A process that multiplies by a tridiagonal matrix, in ways that its first argument chooses. Needs only the standard library."""

import array
import json
import os
import struct
import subprocess
import sys
import time

MODE, N = sys.argv[1], 60
SOURCE, SINK = sys.stdin.buffer, sys.stdout.buffer
if len(sys.argv) > 2:
    # The ids of this process and of a child that outlives it.
    child = subprocess.Popen(["sleep", "1000"], stdin=SOURCE, stdout=SINK)
    with open(sys.argv[2], "a") as file:
        file.write(f"{os.getpid()} {child.pid}\n")
NUMBER = "f" if MODE == "f32" else "d"


def forever():
    while True:
        time.sleep(1)


def send(data):
    SINK.write(data)
    SINK.flush()


def header(count, length):
    return struct.pack("<8sQQ", b"vectors\n", count, length)


def numbers(values):
    return array.array(NUMBER, values).tobytes()


def product(v):
    at = lambda i: v[i] if 0 <= i < N else 0.0
    lower = 0.5 if MODE == "asymmetric" else 1.0
    diagonal = 3.0 if MODE == "other" else 2.0
    return [diagonal * at(i) - lower * at(i - 1) - at(i + 1) for i in range(N)]


if MODE == "silent":
    forever()
if MODE == "talkative":
    while True:
        send(b"still loading\n")
if MODE == "leaves":
    print("no module named torch", file=sys.stderr)
    sys.exit(3)
greeting = {"dim": N, "dtype": {"f": "f32", "d": "f64"}[NUMBER], "name": "chain"}
if MODE == "coarse":
    greeting["epsilon"] = 1e-3
if MODE == "no rows":
    greeting["dim"] = 0
if MODE == "huge":
    greeting["dim"] = 1 << 60
if MODE == "half":
    greeting["dtype"] = "f16"
if MODE == "renamed":
    greeting["name"] = str(os.getpid())
version = 2 if MODE == "newer" else 1
print("loading")  # before the greeting this is no error
print(f"loss-landscape external {version} {json.dumps(greeting)}", flush=True)

requests = 0
while request := SOURCE.read(24):
    requests += 1
    mark, count, length = struct.unpack("<8sQQ", request)
    assert (mark, length) == (b"vectors\n", N)
    size = array.array(NUMBER).itemsize * N
    vectors = [array.array(NUMBER, SOURCE.read(size)) for _ in range(count)]
    products = [product(v) for v in vectors]
    # The first two requests check the symmetry.
    if MODE == "coarse":
        products = [[x * (1 + 1e-3 * (-1) ** requests) for x in p] for p in products]
    if requests > 2:
        if MODE in ("crash", "renamed"):
            print("\n".join(f"line {i}" for i in range(100)), file=sys.stderr)
            raise RuntimeError("out of memory on device 7")
        if MODE == "hang":
            print("almost", file=sys.stderr)
            forever()
        if MODE == "slow":
            for _ in range(8):
                print("10 %", end="\r", file=sys.stderr, flush=True)
                time.sleep(0.4)
        if MODE == "print":
            print("epoch 1: loss 0.3", flush=True)
        if MODE == "murmur":
            print("v", end="", flush=True)
            forever()
        if MODE == "longer":
            send(header(count, N + 1) + numbers([0.0] * (N + 1)))
            forever()
        if MODE == "fewer":
            send(header(count - 1, N))
            forever()
        if MODE == "stops":
            send(header(count, N) + numbers(products[0])[:100])
            forever()
        if MODE == "cut":
            send(header(count, N) + numbers(products[0])[:101])
            sys.exit(0)
        if MODE == "more":
            products.append([0.0])
        if MODE == "nan":
            products[-1][7] = float("nan")
        if MODE == "infinite":
            products[0][0] = float("-inf")
        if MODE == "closes":
            os.close(1)
            forever()
    data = b"".join(numbers(p) for p in products)
    if MODE == "bytewise":
        for byte in header(count, N) + data:
            send(bytes([byte]))
    else:
        send(header(count, N) + data)
if MODE == "stays":
    forever()
