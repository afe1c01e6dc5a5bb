"""The demo."""

from argparse import Namespace


def main(args: Namespace) -> None:
    """Run it."""
    raise NotImplementedError
