"""Run the whole flow on a rendered catalog or on a folder of images."""
