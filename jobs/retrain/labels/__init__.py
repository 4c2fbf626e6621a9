"""Import labels of any format as examples: photos with a category or a text."""
