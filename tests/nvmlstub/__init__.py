"""A pretend NVIDIA driver: builds nvmlstub.c and writes the figures it reports."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("nvmlstub.c")


def build(folder: Path) -> Path:
    """Compile into `folder`; returns it, for LD_LIBRARY_PATH. The soname is what makes pynvml find it."""
    library = folder / "libnvidia-ml.so.1"
    flags = ["-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden"]
    subprocess.run(["cc", *flags, f"-Wl,-soname,{library.name}", "-o", library, _SOURCE], check=True)
    return folder


class PretendDriver:
    """What the stub tells, in a folder of its own."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._folder = folder
        (folder / "held").mkdir()
        self.env = {"LD_LIBRARY_PATH": str(library), "NVMLSTUB_DIR": str(folder)}

    def devices(self, *lines: str) -> None:
        """ "gpu UUID TOTAL USED RESERVED", or "mig ..." below its gpu."""
        self._replace("devices", lines)

    def faults(self, *lines: str) -> None:
        """ "FUNCTION DEVICE NVML_RETURN DELAY_MS"."""
        self._replace("faults", lines)

    def hold(self, pid: int, device: int, size: int) -> None:
        """`size` bytes of a device are taken while process `pid` lives."""
        self._replace(f"held/{pid}", [f"{device} {size}"])

    def let_go(self, pid: int) -> None:
        (self._folder / "held" / str(pid)).unlink()

    def xids(self, *lines: str) -> None:
        """ "DEVICE XID": what the driver has reported so far."""
        self._replace("xids", lines)

    def _replace(self, name: str, lines: tuple[str, ...] | list[str]) -> None:
        new = self._folder / "new"
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(self._folder / name)
