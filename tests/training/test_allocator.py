import platform
import subprocess
import sys

import pytest
import torch

from effnet.training.allocator import keep_memory

_FAULTS = """
import resource, sys, torch
from effnet.training.allocator import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory(torch.device("cpu"))
for number in range(8):
    if number == 4:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(16 << 20).fill_(number)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
def test_pages_are_fetched_once_and_not_for_each_tensor():
    faults = [
        int(subprocess.run([sys.executable, "-c", _FAULTS, way], capture_output=True, check=True).stdout)
        for way in ("keep", "leave")
    ]
    assert faults[0] * 10 < faults[1]


def test_a_gpu_changes_nothing():
    assert not keep_memory(torch.device("cuda"))
