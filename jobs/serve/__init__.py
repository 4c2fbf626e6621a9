"""The query service: a small server that embeds texts and classifies images with the live models, and its client."""
