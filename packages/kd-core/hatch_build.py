"""Put `configs/`, the one place where configs are edited, into the wheel and the sdist."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_INSIDE = "kd_core/configs"


class Configs(BuildHookInterface):
    """Adds the folder, unless it is there: what is built from an sdist has it already."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folder to what is built; an editable installation reads the checkout's."""
        root = Path(self.root)
        if version == "editable" or (root / "src" / _INSIDE).is_dir():
            return
        target = f"src/{_INSIDE}" if self.target_name == "sdist" else _INSIDE
        build_data["force_include"][str(root.parents[1] / "configs")] = target
