"""Time and memory of a call. Imported by the benchmarks.

On a CPU with one torch thread, seconds are the CPU time of this process: equal to wall-clock time
on a quiet machine, and unaffected by other processes on a busy one.
"""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

MIB = 2**20


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, including all its work on the device and excluding earlier work."""
    if device.type == "cpu":
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        start = clock()
        run()
        return clock() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    run()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def in_turns(
    runs: Sequence[Callable[[], object]], device: torch.device, repeats: int
) -> list[list[float]]:
    """Seconds of each, (runs, repeats). The runs take turns, in reverse order every second time,
    so that all of them see the same load."""
    found: list[list[float]] = [[] for _ in runs]
    for turn in range(repeats):
        order = range(len(runs)) if turn % 2 == 0 else reversed(range(len(runs)))
        for i in order:
            found[i].append(seconds(runs[i], device))
    return found


def peak_bytes(run: Callable[[], object], device: torch.device) -> int:
    """Peak memory of a call beyond what was held before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # returns free memory, so that reusing it counts
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak of VmRSS
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def status(field: str) -> int:
    """A number of this process from /proc [bytes]."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no {field} in /proc/self/status: Linux is needed here")
