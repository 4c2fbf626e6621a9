"""The review of single photos: which to show, what may be answered, and the accuracy that follows."""
