"""What is measured of a candidate, beside the champion, on the same frozen test images."""
