"""Review single images: choose them, store the answers, and estimate the accuracy from them."""
