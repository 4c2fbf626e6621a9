"""The query service: a small server that embeds texts and classifies photos with the live models, and its client."""
