"""The gates that a candidate must pass before it is promoted, and the page that shows them."""
