"""Train the Gradient Focal Transformer under the published protocol.

Run from the repository's root: `python -m baselines.train_gft`. Takes every flag of `hcoatnet train`.
"""

from hcoatnet.cli import original_command

if __name__ == "__main__":
    original_command("gft_tiny")
