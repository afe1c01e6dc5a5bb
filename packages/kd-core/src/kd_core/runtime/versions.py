"""Which versions of ours and of what we build on are installed; nothing of it is imported."""

_VERSIONED = (
    "kd-core",
    "kd-cls",
    "kd-det",
    "kd-reid",
    "torch",
    "torchvision",
    "detectron2",
    "pb1-detectron2",  # a re-upload of release 0.6
    "torchreid",
)


def versions() -> str:
    """Return the versions of ours and of what we build on, as they are installed, in one line."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in _VERSIONED:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return ", ".join([*found, f"Python {platform.python_version()}"])
