"""What a candidate must show before it goes live, and the page that says whether it did."""
