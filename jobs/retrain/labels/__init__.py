"""Import labeled images from several formats as training examples."""
