"""The device that a user names."""

import torch
from kd_core.errors import UserError
from kd_core.runtime.failures import first_line


def chosen_device(name: str | None, usual: torch.device) -> torch.device:
    """Return the device of `--device`, or the usual one.

    Raises:
        UserError: If there is no such device here.
    """
    if name is None:
        return usual
    try:
        device = torch.device(name)
        torch.ones((), device=device).item()  # fails where there is none
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"--device {name}: cannot be used here ({first_line(error):.80}); name cpu or cuda:0, "
            "or leave it out"
        ) from error
    return device
