"""A trained model in other hands: ``bundle``."""

from cyclopts import App


def register(app: App) -> None:
    """Add these commands to the command line."""
