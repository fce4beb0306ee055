"""Train ViT-Tiny/16 under the published protocol.

Run from the repository's root: `python -m baselines.train_vit`. Takes every flag of `hcoatnet train`.
"""

from hcoatnet.cli import original_command

if __name__ == "__main__":
    original_command("vit_tiny_patch16_224")
