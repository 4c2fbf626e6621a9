"""Access the bucket: images, manifests and weights."""
