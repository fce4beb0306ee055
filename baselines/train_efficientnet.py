"""Train EfficientNet-B0 under the published protocol.

Run from the repository's root: `python -m baselines.train_efficientnet`. Takes every flag of `hcoatnet train`.
"""

from hcoatnet.cli import original_command

if __name__ == "__main__":
    original_command("efficientnet_b0")
