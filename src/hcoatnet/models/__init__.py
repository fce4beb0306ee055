"""The models, all registered with timm: ``timm.create_model("h_coatnet_tiny")`` works once this is imported."""

from hcoatnet.models import cnn, gft, h_coatnet, h_coatnet_window, swin

__all__ = ["cnn", "gft", "h_coatnet", "h_coatnet_window", "swin"]
