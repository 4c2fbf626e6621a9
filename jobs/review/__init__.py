"""The review of single photos: the queue, the answers, and the accuracy that follows from them."""
