"""What of diffusers and torch is imported, and what is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.musetalk.nets.diffusion import find_sources

LOOK = """
import gc, json, sys
from pathlib import Path
import numpy as np
from models.musetalk.engine import MuseTalkEngine
from models.musetalk.options import Options
networks = MuseTalkEngine("cpu:0")._open_session(ROOT, Options(precision="fp32"), Path()).networks
networks.whisper_encoder, networks._faces
latents = networks.encode_faces(np.zeros((1, 256, 256, 3), np.uint8))
networks.inpainter.inpaint(latents, np.zeros((1, 50, networks.inpainter._predict.table.shape[1]), np.float32))
heavy = ("torch._dynamo", "transformers", "scipy", "sympy", "librosa", "matplotlib", "pandas", "requests", "datasets")
unused = ("loaders", "quantizers", "pipelines", "schedulers", "hooks", "guiders", "utils.dynamic_modules_utils")
unused += ("utils.export_utils", "utils.loading_utils", "utils.state_dict_utils", "models.autoencoders.vq_model")
there = [name for name in (*heavy, *(f"diffusers.{one}" for one in unused)) if name in sys.modules]
nets = [name for name in sys.modules if name.startswith("diffusers.models.transformers.")]
from models.musetalk.nets import diffusion
diffusion.tell_compiler()
import diffusers
from diffusers.models.transformers import DiTTransformer2DModel
from diffusers.models.autoencoders import AutoencoderTiny
from diffusers.utils import export_utils, load_image, check_min_version
check_min_version("0.1")
later = [one.__name__ for one in (DiTTransformer2DModel, AutoencoderTiny, load_image, diffusers.utils.numpy_to_pil)]
print(json.dumps([there, nets, gc.isenabled(), *later]))
"""


def run(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_worker_imports_what_it_runs(master: Path) -> None:
    """With all networks open there is no compiler, no scipy and no registry of networks; what is asked for comes."""
    there, nets, collects, *later = run(f"ROOT = {str(master)!r}\n{LOOK}")
    assert there == []
    assert len(nets) <= 3
    assert collects
    assert later == ["DiTTransformer2DModel", "AutoencoderTiny", "load_image", "numpy_to_pil"]


def test_names_are_found_where_a_package_takes_them_from() -> None:
    """One line may rename; other levels, modules as a whole and stars are left to the package's own code."""
    code = "from ..up import a\nfrom .one import b, c as d\nfrom . import two\nfrom .three import *\n"
    code += "if b:\n    from .four import e\n"
    assert find_sources(code) == {"b": ("one", "b"), "d": ("one", "c")}


@pytest.mark.parametrize("first", ["import diffusers.models.unets", "BROKEN"])
def test_all_of_diffusers_serves_as_well(first: str) -> None:
    """Where a program has it already, and where a later one lacks a module that is named here."""
    if first == "BROKEN":
        first = "import importlib.util as u; found = u.find_spec; "
        first += "u.find_spec = lambda name, *rest: None if name.endswith('transformers') else found(name, *rest)"
    code = f"{first}\nfrom models.musetalk.nets.diffusion import UNet2DConditionModel as net\n"
    code += "import json; print(json.dumps([base.__name__ for base in net.__mro__]))"
    assert "PeftAdapterMixin" in run(code)
