"""The plan of the house, held against the code: which room may import what."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("agent", "gpu_pool", "models")
HEAVY = {"torch", "numpy", "cv2", "av", "librosa", "diffusers", "transformers", "onnxruntime"}
WORLDS: dict[str, str | tuple[str, ...]] = {  # one outside world, one module
    "sqlite3": "agent.ledger",
    "sqlite_utils": "agent.ledger",
    "watchdog": "agent.intake",
    "pynvml": "gpu_pool.nvml",
    # What the daemon starts goes through gpu_pool. The others are commands in processes of their own.
    "subprocess": ("gpu_pool.", "agent.cli.systemctl", "agent.cli.credentials.programs", "agent.hooks.calls"),
    "jeepney": "agent.desktop",
    "c2pa": "agent.credentials",
    "cryptography": "agent.credentials",
    "starlette": "agent.page",
    "uvicorn": "agent.page",
    "av": "models.media",
    "torch": ("models.musetalk", "models.musev", "models.motion", "models.checkpoints"),
    "PIL": ("models.musetalk", "models.musev", "models.motion", "models.media"),
    "ray": ("gpu_pool.cluster.ray_actor", "gpu_pool.cluster.ray_bridge"),
    "urllib": ("models.checkpoints.downloads", "agent.hooks.calls"),
    "huggingface_hub": "models.checkpoints.downloads",
    "httpx2": "models.checkpoints.downloads",
}
MODELS_FOR_AGENT = {"models.facts", "models.types", "models.catalog", "models.nofollow", "models.inputs"} | {
    "models.motion.types",
    "models.motion.catalog",
}
AGENT = (
    {"cli"},
    {"desktop"},
    {"page"},
    {"client", "daemon", "hooks"},
    {"intake"},
    {"results"},
    {"selftest", "setup"},
    {"scheduler"},
    {"service", "settings_file"},
    {"ledger", "library", "settings"},
    {"jobs"},
    {"credentials"},
    {"clock", "errors", "fs", "languages", "text"},
)
MUSETALK = (
    {"__main__", "engine", "selftest"},
    {"commands", "session"},
    {"networks", "prepared_job"},
    {"audio", "avatar", "engines"},
    {"compositing", "inpainting", "tracking"},
    {"weights"},
    {"nets"},
    {"options", "frame_timing", "geometry", "draft"},
)
LAYERS = {"agent": AGENT, "models.musetalk": MUSETALK}
"""The layers of a package, from the top down: each imports only from those below it."""
MAX_MODULES, MAX_MODULES_OF = 15, {"gpu_pool": 20}
"""How many modules a folder may hold."""
MAX_LINES = 45
"""How many lines a function may have."""


def modules() -> dict[str, ast.Module]:
    found = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


MODULES = modules()


def imports(tree: ast.Module, *, top_only: bool = False) -> Iterator[str]:
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            known = [name for name in submodules if name in MODULES]
            yield from known or [node.module]


def violations() -> Iterator[str]:
    for name, tree in MODULES.items():
        package = name.split(".")[0]
        for imported in imports(tree):
            head = imported.split(".")[0]
            if package != "models" and head in HEAVY:
                yield f"{name} imports {imported}, which only models may"
            if package != "agent" and head in PACKAGES and head != package:
                yield f"{name} imports {imported}: it may only look at its own package"
            if package == "agent" and head == "models" and imported not in MODELS_FOR_AGENT:
                yield f"{name} imports {imported}: of models it may see {sorted(MODELS_FOR_AGENT)}"
            home = WORLDS.get(head)
            if home and not name.startswith(home):
                yield f"{name} imports {imported}, which lives in {home}"


def test_floors_are_kept() -> None:
    """Imports go down only, and each outside world has one room."""
    assert list(violations()) == []


def test_no_import_cycles() -> None:
    """No module imports itself through others."""
    graph = {name: {i for i in imports(tree) if i in MODULES} for name, tree in MODULES.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as cycle:
        pytest.fail(f"import cycle: {cycle.args[1]}")
    assert len(order) == len(MODULES)


def find_arrows(package: str) -> Iterator[tuple[str, str]]:
    """Yield which part of a package imports which other part; a part is a module or a package right below it."""
    home, depth = f"{package}.", package.count(".") + 1
    for name, tree in MODULES.items():
        for imported in imports(tree):
            if name.startswith(home) and imported.startswith(home):
                yield name.split(".")[depth], imported.split(".")[depth]


@pytest.mark.parametrize("package", LAYERS)
def test_imports_go_down(package: str) -> None:
    """Each part of a package has a layer, and imports only itself and lower layers."""
    layer = {name: number for number, names in enumerate(LAYERS[package]) for name in names}
    arrows = {(one, other) for one, other in find_arrows(package) if one != other}
    assert [(one, other) for one, other in sorted(arrows) if layer[one] >= layer[other]] == []


def test_every_part_has_a_layer() -> None:
    """A new module or package is put into a layer when it is made."""
    for package, layers in LAYERS.items():
        home, depth = f"{package}.", package.count(".") + 1
        parts = {name.split(".")[depth] for name in MODULES if name.startswith(home)}
        assert parts == {name for names in layers for name in names}, package


def test_folders_are_small() -> None:
    """No folder holds more modules than can be read at a glance."""
    modules = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if path.stem != "__init__")
    sizes = Counter(str(path.parent.relative_to(ROOT)) for path in modules)
    assert {name: size for name, size in sizes.items() if size > MAX_MODULES_OF.get(name, MAX_MODULES)} == {}


def test_functions_are_short() -> None:
    """Each function fits on a screen."""
    functions = (
        (f"{name}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    )
    assert {name: lines for name, lines in functions if lines > MAX_LINES} == {}


def test_types_stand_on_the_standard_library_alone() -> None:
    """The vocabulary of both packages imports nothing that has to be installed."""
    for name in ("gpu_pool.types", "models.types"):
        assert {i.split(".")[0] for i in imports(MODULES[name], top_only=True)} <= sys.stdlib_module_names


def modules_loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules), file=sys.stderr)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(run.stderr.split())


def loaded_by(statement: str) -> set[str]:
    return {name.split(".")[0] for name in modules_loaded_by(statement)}


@pytest.mark.parametrize("module", ["agent.daemon", "agent.cli.main", "agent.cli.doctor", "agent.cli.demo"])
def test_daemon_and_commands_load_no_media_libraries(module: str) -> None:
    """The daemon and every command start without torch, numpy, OpenCV, PyAV or Ray."""
    assert loaded_by(f"import {module}").isdisjoint({*HEAVY, "ray"})


EXTRAS = (
    *(
        "torch",
        "diffusers",
        "transformers",
        "safetensors",
        "huggingface_hub",
        "httpx2",
        "soxr",
        "onnxruntime",
        "triton",
    ),
    *("ftfy", "accelerate", "ray", "c2pa", "cryptography", "pillow_heif", "jeepney"),
)
"""Packages that `pip install musedrop` alone doesn't bring."""


@pytest.mark.parametrize(
    "module",
    ["models.handler", "models.preview.engine", "agent.daemon", "agent.cli.main", "agent.cli.doctor", "agent.cli.demo"]
    + ["agent.page.app", "agent.page.server", "agent.hooks.runner", "agent.selftest.program", "gpu_pool.agent.serve"],
)
def test_nothing_needs_an_extra_to_start(module: str) -> None:
    """Daemon, commands, page and workers start where no extra is installed."""
    modules_loaded_by(f"sys.modules.update(dict.fromkeys({EXTRAS})); import {module}")


def test_init_loads_no_daemon(tmp_path: Path) -> None:
    """`musedrop init` needs folders and a settings file, and neither the daemon nor its ledger and pool."""
    loaded = modules_loaded_by(f"from agent.cli.main import init; from pathlib import Path; init(Path('{tmp_path}'))")
    assert (tmp_path / "musedrop.toml").is_file()
    assert "agent.settings_file" in loaded
    assert {
        name for name in loaded if name.startswith(("agent.daemon", "agent.ledger", "gpu_pool", "watchdog"))
    } == set()


def test_looking_at_a_job_loads_no_networks() -> None:
    """`inspect` and `report` of MuseTalk run on CPU workers, which need not load torch for them."""
    assert loaded_by("import models.musetalk.engine").isdisjoint({"torch", "diffusers", "transformers", "soxr"})


def broad_handlers() -> Iterator[str]:
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                kind = getattr(node.type, "id", None)
                if node.type is None or kind in ("Exception", "BaseException"):
                    yield name


def test_broad_handlers_only_at_the_edge_of_a_process() -> None:
    """Only the worker's edge turns any exception into data."""
    assert set(broad_handlers()) <= {"gpu_pool.worker"}
