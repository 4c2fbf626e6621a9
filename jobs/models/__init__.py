"""Load, preprocess for, run and register models in the Hugging Face layout."""
