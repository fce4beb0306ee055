"""What predictions tables say: metrics, computed without a model and without torch."""
