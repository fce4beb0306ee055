"""Train a true CoAtNet-0 under the published protocol.

Run from the repository's root: `python -m baselines.train_coatnet`. Takes every flag of `hcoatnet train`.
"""

from hcoatnet.cli import original_command

if __name__ == "__main__":
    original_command("coatnet_0_rw_224")
