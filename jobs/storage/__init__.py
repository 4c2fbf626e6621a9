"""The bucket: where photos come from and where manifests and weights are kept."""
