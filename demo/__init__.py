"""The demo: a rendered catalog, or a folder of photos, through the whole flow."""
