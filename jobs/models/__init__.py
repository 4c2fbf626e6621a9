"""Checkpoints in the Hugging Face layout: loading, preprocessing, predicting, registering."""
