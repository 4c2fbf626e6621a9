"""Render a catalog of drawn garments, so that the demo, tests and benchmarks need no photographs or downloads."""

from demo.sample_catalog.render import SampleCatalog, SampleCatalogSpec, render_sample_catalog

__all__ = ["SampleCatalog", "SampleCatalogSpec", "render_sample_catalog"]
