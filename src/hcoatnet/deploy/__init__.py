"""A trained model in other hands: bundles, prediction, export and serving."""

import os

# ONNX Runtime 1.29 and later reports to its maker which models it runs, and writes a number for the device to the disk,
# unless this stands before its first import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
