"""A pretend NVIDIA driver: builds nvmlstub.c and writes the figures it reports."""

from __future__ import annotations

import subprocess
from pathlib import Path

_SOURCE = Path(__file__).with_name("nvmlstub.c")


def build_library(folder: Path) -> Path:
    """Compile into `folder`; return it, for LD_LIBRARY_PATH. pynvml looks for the soname."""
    library = folder / "libnvidia-ml.so.1"
    flags = ["-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden"]
    subprocess.run(["cc", *flags, f"-Wl,-soname,{library.name}", "-o", library, _SOURCE], check=True)
    return folder


class PretendDriver:
    """Sets what the stub reports; its files are in a folder of their own."""

    def __init__(self, library: Path, folder: Path) -> None:
        self._folder = folder
        (folder / "held").mkdir()
        self.env = {"LD_LIBRARY_PATH": str(library), "NVMLSTUB_DIR": str(folder)}

    def set_devices(self, *lines: str) -> None:
        """Each line: "gpu UUID TOTAL USED RESERVED", or "mig ..." below its gpu."""
        self._replace("devices", lines)

    def set_faults(self, *lines: str) -> None:
        """Each line: "FUNCTION DEVICE NVML_RETURN DELAY_MS"."""
        self._replace("faults", lines)

    def hold_memory(self, pid: int, device: int, size: int, number: int | None = None) -> None:
        """Let process `pid` hold `size` bytes of a device while it lives; the driver calls it `number`."""
        self._replace(f"held/{pid}", [f"{device} {size} {number or pid}"])

    def set_gauges(self, *lines: str) -> None:
        """Each line: "DEVICE CELSIUS LOAD_PERCENT MILLIWATTS"."""
        self._replace("gauges", lines)

    def set_xids(self, *lines: str) -> None:
        """Each line: "DEVICE XID", a critical event so far."""
        self._replace("xids", lines)

    def _replace(self, name: str, lines: tuple[str, ...] | list[str]) -> None:
        new = self._folder / "new"
        new.write_text("".join(f"{line}\n" for line in lines))
        new.replace(self._folder / name)
