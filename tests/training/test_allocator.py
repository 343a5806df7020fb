import platform
import subprocess
import sys

import pytest
import torch

from effnet.training.allocator import keep_memory

_KEPT = """
import sys, torch
from effnet.training.allocator import keep_memory
if sys.argv[1] == "keep":
    assert keep_memory(torch.device("cpu"))
def pages():
    return int(open("/proc/self/statm").read().split()[0])
torch.empty(1)
before = pages()
torch.empty(16 << 20)
print(pages() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
@pytest.mark.parametrize(("way", "is_kept"), [("keep", True), ("leave", False)])
def test_the_memory_of_a_large_tensor_stays_with_the_process(way, is_kept):
    command = [sys.executable, "-c", _KEPT, way]
    pages = int(subprocess.run(command, capture_output=True, check=True).stdout)
    assert (pages * 4096 > 60 << 20) is is_kept


def test_a_gpu_changes_nothing():
    assert not keep_memory(torch.device("cuda"))
