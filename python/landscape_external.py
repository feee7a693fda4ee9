"""Serves products of a symmetric matrix to `landscape --external "python FILE"` and to `operator::External`.

    from landscape_external import serve
    serve(hvp, dim=10_000, dtype="f32", name="net.pth, CIFAR-10")

This file is all that the other process needs; copy it next to your program. docs/external.md describes the protocol.
"""

import json
import os
import select
import struct
import sys
import threading
import time

import numpy

MARK = b"vectors\n"
F_SETPIPE_SZ = 1031  # Linux


def serve(hvp, dim, dtype="f32", name="", epsilon=None):
    """Answers requests for products until standard input ends.

    hvp      maps a vector, a numpy array of shape (dim,), to its product: anything that numpy.asarray accepts.
             The array is valid during the call only.
    dim      number of rows of the matrix
    dtype    "f32" or "f64": type of the computation and of the transferred numbers
    name     name of the matrix, such as model, weights and data
    epsilon  relative error of the products, if larger than the rounding of dtype: 1e-3 for TF32, 1e-2 for bfloat16
    """
    source, sink = os.fdopen(os.dup(0), "rb", 0), os.fdopen(os.dup(1), "wb", 0)
    os.dup2(2, 1)  # prints go to standard error from now on
    threading.Thread(target=_exit_after_hangup, args=(source.fileno(),), daemon=True).start()
    for pipe in (source, sink):
        _enlarge(pipe)
    greeting = {"dim": int(dim), "dtype": dtype, "name": name, "epsilon": epsilon}
    _write(sink, b"loss-landscape external 1 " + json.dumps(greeting).encode() + b"\n")
    number = {"f32": "<f4", "f64": "<f8"}[dtype]
    header = bytearray(24)
    block = numpy.empty((0, dim), number)
    while _read(source, memoryview(header)):
        mark, count, length = struct.unpack("<8sQQ", header)
        if mark != MARK or length != dim:
            raise ValueError(f"expected vectors of length {dim}, found the header {bytes(header)}")
        if len(block) != count:
            block = numpy.empty((count, dim), number)
        if not _read(source, memoryview(block).cast("B")):
            return
        for row in block:
            product = numpy.asarray(hvp(row))
            if product.shape != (dim,):
                raise ValueError(f"hvp must return shape ({dim},), not {product.shape}")
            row[:] = product
        _write(sink, header)
        _write(sink, memoryview(block).cast("B"))


def _read(pipe, buffer):
    """Fills the buffer. Returns False at the end of the pipe."""
    done = 0
    while done < len(buffer):
        size = pipe.readinto(buffer[done:])
        if not size:
            return False
        done += size
    return True


def _write(pipe, data):
    data = memoryview(data)
    while data:
        data = data[pipe.write(data) :]


def _enlarge(pipe):
    """Makes the buffer of a pipe 1 MiB, where the system can."""
    try:
        import fcntl

        fcntl.fcntl(pipe, F_SETPIPE_SZ, 1 << 20)
    except (ImportError, OSError):
        pass


def _exit_after_hangup(pipe):
    """Ends this process, even during a product, when the process that asked for it is gone."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(pipe, select.POLLHUP)
        while not any(event & select.POLLHUP for _, event in poll.poll()):
            pass
        time.sleep(3)  # time for an orderly end
        os._exit(1)
