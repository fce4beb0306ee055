"""Studies: many trainings under one definition, and what they left, gathered for comparison."""
