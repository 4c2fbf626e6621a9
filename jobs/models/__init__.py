"""Models in the Hugging Face layout: load, preprocess, predict, register."""
