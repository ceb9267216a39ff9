"""The classes of diffusers that MuseTalk is made of, imported without the rest of diffusers.

Its packages import every network that they have, its utilities torch's compiler, and both scipy: five seconds of which
nothing runs here. Where a later diffusers is built otherwise, all of it is imported, which only takes longer.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = ["AutoencoderKL", "ResnetBlock2D", "UNet2DConditionModel", "Upsample2D", "tell_compiler"]

UTILITIES = "diffusers.utils"
PACKAGES = ("diffusers.models.transformers", "diffusers.models.autoencoders", "diffusers.models.unets")
"""Whose modules are imported one by one, as those of the utilities are."""
STANDINS = {
    "torch._dynamo": (),
    "diffusers.loaders": ("PeftAdapterMixin", "UNet2DConditionLoadersMixin"),
    "diffusers.loaders.single_file_model": ("FromOriginalModelMixin",),
    "diffusers.quantizers": ("DiffusersAutoQuantizer", "DiffusersQuantizer"),
}
"""Modules that are not imported, and the classes of theirs that are base classes or names of types."""
_for_compiler: list[Any] = []


class _Package(ModuleType):
    """A package that imports a module of its own only when something of it is asked for.

    Its own code runs when what is asked for is neither a module nor imported from one by name.
    """

    def __init__(self, name: str) -> None:
        """Put the package where it is imported from. Raises ImportError without it."""
        super().__init__(name)
        parent, _, _ = name.rpartition(".")
        above = importlib.util.find_spec(parent)  # of a parent without a parent, which is not imported by that
        spec = PathFinder.find_spec(name, above.submodule_search_locations if above else None)
        if spec is None or spec.origin is None:
            raise ImportError(name)
        self.__spec__, self.__path__ = spec, list(spec.submodule_search_locations or ())
        self.__package__, self.__file__ = name, spec.origin
        self.__sources = find_sources(Path(spec.origin).read_text(encoding="utf-8"))
        sys.modules[name] = self

    def __getattr__(self, name: str) -> Any:
        spec = None if name.startswith("__") else self.__spec__
        if spec is None or spec.loader is None:
            raise AttributeError(f"module {self.__name__} has no attribute {name}")
        if name in self.__sources:
            module, there = self.__sources[name]
            setattr(self, name, getattr(importlib.import_module(f"{self.__name__}.{module}"), there))
        elif PathFinder.find_spec(f"{self.__name__}.{name}", self.__path__):
            importlib.import_module(f"{self.__name__}.{name}")
        else:
            self.__class__ = ModuleType  # type: ignore[assignment]
            spec.loader.exec_module(self)
        return getattr(self, name)


def find_sources(code: str) -> dict[str, tuple[str, str]]:
    """Return which names the code of a package imports from its modules: name -> (module, name there)."""
    imports = [node for node in ast.parse(code).body if isinstance(node, ast.ImportFrom)]
    lines = [(node.module, alias) for node in imports if node.level == 1 and node.module for alias in node.names]
    return {alias.asname or alias.name: (module, alias.name) for module, alias in lines if alias.name != "*"}


def import_classes() -> tuple[Any, ...]:
    """Return AutoencoderKL, UNet2DConditionModel, ResnetBlock2D and Upsample2D."""
    if "torch._dynamo" in sys.modules or any(name in sys.modules for name in PACKAGES):
        return _import_whole()
    try:
        with _stand_in():
            return _import_whole()
    except (ImportError, AttributeError, TypeError, NameError, KeyError):
        for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
            del sys.modules[name]
        return _import_whole()


def tell_compiler() -> None:
    """Tell torch's compiler what diffusers tells it as it is imported."""
    import torch._dynamo

    while _for_compiler:
        torch._dynamo.allow_in_graph(_for_compiler.pop())


def _import_whole() -> tuple[Any, ...]:
    names = ("models.autoencoders.autoencoder_kl", "models.unets.unet_2d_condition")
    vae, unet = (importlib.import_module(f"diffusers.{name}") for name in names)
    resnet, upsampling = (importlib.import_module(f"diffusers.models.{name}") for name in ("resnet", "upsampling"))
    return vae.AutoencoderKL, unet.UNet2DConditionModel, resnet.ResnetBlock2D, upsampling.Upsample2D


@contextmanager
def _stand_in() -> Iterator[None]:
    """Put empty modules in the place of those that nothing here needs; they go when the import is over."""
    stand_ins = {name: _make_stand_in(name, classes) for name, classes in STANDINS.items()}
    stand_ins["torch._dynamo"].allow_in_graph = _note_for_compiler  # type: ignore[attr-defined]
    sys.modules.update(stand_ins)
    try:
        utilities = None if "diffusers" in sys.modules else _Package(UTILITIES)
        importlib.import_module("diffusers.models")
        stand_ins["diffusers.quantizers"].__path__ = [f"{sys.modules['diffusers'].__path__[0]}/quantizers"]
        if utilities:
            sys.modules["diffusers"].utils = utilities  # type: ignore[attr-defined]
        for name in PACKAGES:
            _Package(name)
        yield
    finally:
        for name, module in stand_ins.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _make_stand_in(name: str, classes: tuple[str, ...]) -> ModuleType:
    module = ModuleType(name)
    module.__spec__, module.__path__ = importlib.util.spec_from_loader(name, None), []
    for class_name in classes:
        setattr(module, class_name, type(class_name, (), {}))
    return module


def _note_for_compiler(known: Any) -> Any:
    _for_compiler.append(known)
    return known


if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.models.upsampling import Upsample2D
else:
    AutoencoderKL, UNet2DConditionModel, ResnetBlock2D, Upsample2D = import_classes()
