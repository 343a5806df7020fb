import os
import subprocess
import sys
from pathlib import Path

import pytest

from effnet.kernels import dispatch


def test_every_program_compiles_for_a_gpu(tmp_path):
    if not dispatch.has_triton():
        pytest.skip("Triton is not installed; it comes with the extra 'kernels'")
    environment = os.environ | {"TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    script = Path(__file__).with_name("compile_for_gpu.py")
    done = subprocess.run(
        [sys.executable, str(script), "bfloat16"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    programs = Path(dispatch.__file__).parent.glob("*_programs.py")
    defined = {
        line.removeprefix("def ").partition("(")[0]
        for path in programs
        if "numba" not in path.name
        for line in path.read_text().splitlines()
        if line.startswith("def ") and "_program(" in line
    }
    assert set(done.stdout.split()) == defined
