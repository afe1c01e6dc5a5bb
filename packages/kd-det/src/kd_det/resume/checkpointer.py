"""Checkpoints of whole runs: written atomically, and read only if nothing is missing."""

from pathlib import Path
from typing import Any

from kd_core.errors import UserError
from kd_core.files import checkpoint

from kd_det.resume.last_checkpoint import write_last
from kd_det.weights import SafeCheckpointer


class WholeCheckpointer(SafeCheckpointer):
    """Checkpointer that writes atomically and reads only plain data.

    A checkpoint to resume from must have every part.
    """

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load a file, by default with all its parts."""
        self.wanted = list(self.checkpointables) if checkpointables is None else checkpointables
        self.whole = checkpointables is None
        return super().load(path, checkpointables)

    def _load_file(self, filename: str) -> dict[str, Any]:
        contents = super()._load_file(filename)
        missing = [part for part in self.wanted if part not in contents]
        if missing:
            raise UserError(
                f"{filename} has no part {missing[0]!r}, without which training cannot resume "
                "exactly: Detectron2 itself or an older kd_det wrote it. Start a run in another "
                "OUTPUT_DIR, with this file as MODEL.WEIGHTS"
            )
        return contents

    def save(self, name: str, **kwargs: Any) -> None:
        """Write the state to `<name>.pth`, and then its name to `last_checkpoint`."""
        if not self.save_dir or not self.save_to_disk:
            return
        parts = {key: part.state_dict() for key, part in self.checkpointables.items()}
        file = Path(self.save_dir) / f"{name}.pth"
        checkpoint.save({"model": self.model.state_dict(), **parts, **kwargs}, file)
        write_last(file.parent, file.name)
