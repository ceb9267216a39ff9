"""How a card computes."""

from __future__ import annotations

import subprocess
import sys

SET_AND_READ = """
import torch
from models.musetalk.inpainting.math_flags import set_math_flags
torch.backends.cudnn.benchmark = True
torch.set_float32_matmul_precision("high")
set_math_flags()
set_math_flags()
cudnn = torch.backends.cudnn
print(torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32, cudnn.allow_tf32)
print(cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision, cudnn.benchmark, cudnn.deterministic)
"""


def test_flags_are_exact_and_can_be_read() -> None:
    """Whatever was set before; afterwards the older getters answer, which Inductor asks."""
    run = subprocess.run([sys.executable, "-c", SET_AND_READ], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["highest", "False", "False", "ieee", "ieee", "False", "True"], run.stderr
