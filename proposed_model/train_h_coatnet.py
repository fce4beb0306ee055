"""Train H-CoAtNet (ConvNeXt-Tiny backbone) under the published protocol.

Run from the repository's root: `python -m proposed_model.train_h_coatnet`. Takes every flag of `hcoatnet train`.
"""

from hcoatnet.cli import original_command

if __name__ == "__main__":
    original_command("h_coatnet_tiny")
