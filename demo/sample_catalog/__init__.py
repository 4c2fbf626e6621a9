"""A catalog of drawn garments for the demo and the tests; nothing in it was photographed or downloaded."""

from demo.sample_catalog.render import SampleCatalog, SampleCatalogSpec, render_sample_catalog

__all__ = ["SampleCatalog", "SampleCatalogSpec", "render_sample_catalog"]
