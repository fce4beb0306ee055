"""H-CoAtNet and honest baselines for small sets of skin photographs.

``hcoatnet.load_classifier(path)`` loads a trained model that answers photos; see :mod:`hcoatnet.deploy.classifier`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hcoatnet.deploy.classifier import load_classifier

__version__ = "0.1.0"
__all__ = ["__version__", "load_classifier"]


def __getattr__(name: str) -> Any:
    """Import what is heavy when it is first asked for."""
    if name == "load_classifier":
        from hcoatnet.deploy.classifier import load_classifier

        return load_classifier
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
