"""The query service: a small server that answers texts and photos by the live models, and its client."""
