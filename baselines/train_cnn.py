"""Train the plain CNN under the published protocol.

Run from the repository's root: `python -m baselines.train_cnn`. Takes every flag of `hcoatnet train`.
"""

from hcoatnet.cli import original_command

if __name__ == "__main__":
    original_command("cnn")
