"""What of diffusers and torch is imported, and what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

LOOK = """
import sys, json
import models.musetalk.session
from models.musetalk.nets import diffusion
heavy = ("torch._dynamo", "transformers", "scipy", "sympy", "diffusers.loaders", "diffusers.quantizers")
there = [name for name in heavy if name in sys.modules]
nets = [name for name in sys.modules if name.startswith("diffusers.models.transformers.")]
diffusion.tell_compiler()
from diffusers.models.transformers import DiTTransformer2DModel
from diffusers.models.autoencoders import AutoencoderTiny
print(json.dumps([there, nets, DiTTransformer2DModel.__name__, AutoencoderTiny.__name__]))
"""


def run(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_worker_imports_what_it_runs() -> None:
    """No compiler, no scipy and no registry of networks; what is asked for later is there then."""
    there, nets, *later = run(LOOK)
    assert there == []
    assert len(nets) <= 3
    assert later == ["DiTTransformer2DModel", "AutoencoderTiny"]


@pytest.mark.parametrize("first", ["import diffusers.models.unets", "BROKEN"])
def test_all_of_diffusers_serves_as_well(first: str) -> None:
    """Where a program has it already, and where a later one lacks a module that is named here."""
    if first == "BROKEN":
        first = "import importlib.util as u; found = u.find_spec; "
        first += "u.find_spec = lambda name, *rest: None if name.endswith('transformers') else found(name, *rest)"
    code = f"{first}\nfrom models.musetalk.nets.diffusion import UNet2DConditionModel as net\n"
    code += "import json; print(json.dumps([base.__name__ for base in net.__mro__]))"
    assert "PeftAdapterMixin" in run(code)
