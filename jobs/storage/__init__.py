"""The bucket: photos, manifests and weights."""
