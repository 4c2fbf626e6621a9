"""From labelled photos to checkpoints."""
