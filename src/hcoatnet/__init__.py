"""H-CoAtNet and honest baselines for small sets of skin photographs."""

__version__ = "0.1.0"
