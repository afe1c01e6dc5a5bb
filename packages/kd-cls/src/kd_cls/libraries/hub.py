"""The Hugging Face Hub: whether it is reached, asked once before a library asks again and again."""

from pathlib import Path

from kd_core.experiment.downloads import why_not_reached


def reach(repository: str, cache: str | None) -> None:
    """Ask the Hub once for a repository of which nothing is there.

    Args:
        repository: ORG/NAME, with or without a revision.
        cache: Folder of downloaded files; None is the library's own.

    Raises:
        Exception: That of the library, if the Hub is not reached.
    """
    import huggingface_hub as hub
    from huggingface_hub import constants

    name = repository.partition("@")[0]
    folder = f"models--{name.replace('/', '--')}"
    if any(Path(cache or constants.HF_HUB_CACHE, folder).glob("snapshots/*/*")):
        return
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(name, "config.json"))
    except Exception as error:  # the library explains all others itself
        if why_not_reached(error) is not None:
            raise
