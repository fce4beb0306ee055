"""Train Swin-T under the published protocol.

Run from the repository's root: `python -m baselines.train_swin`. Takes every flag of `hcoatnet train`.
"""

from hcoatnet.cli import original_command

if __name__ == "__main__":
    original_command("swin_tiny_patch4_window7_224")
