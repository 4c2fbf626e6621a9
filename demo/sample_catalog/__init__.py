"""Render a catalog of drawn garments for the demo, tests and benchmarks, without photographs or downloads."""

from demo.sample_catalog.render import SampleCatalog, SampleCatalogSpec, render_sample_catalog

__all__ = ["SampleCatalog", "SampleCatalogSpec", "render_sample_catalog"]
