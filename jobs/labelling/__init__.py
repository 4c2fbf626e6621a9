"""From labels of any format to examples: photos with a label, which models learn from."""
