"""What the numbers were measured on: no name, no folder, only what moves them."""

import datetime
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("bptt", "numpy", "numba", "torch", "jax", "keras")


def describe(threads: int, cores: int) -> dict[str, Any]:
    return {
        "processor": processor(),
        "cores": cores,
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}",
        "load before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    """The model string of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
