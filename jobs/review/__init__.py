"""The review of single images: which to show, what may be answered, and the accuracy that follows."""
