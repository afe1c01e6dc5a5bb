"""Put `configs/` and `examples/`, which are edited at the root, into the wheel and the sdist."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_FOLDERS = ("configs", "examples")


class Folders(BuildHookInterface):
    """Adds the folders, unless they are there: what is built from an sdist has them already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folders to what is built; an editable installation reads the checkout's."""
        root = Path(self.root)
        if version == "editable":
            return
        for name in _FOLDERS:
            inside = f"kd_core/{name}"
            if not (root / "src" / inside).is_dir():
                target = f"src/{inside}" if self.target_name == "sdist" else inside
                build_data["force_include"][str(root.parents[1] / name)] = target
