"""A trained model in other hands: bundles, prediction, export and serving."""
