"""Who becomes the champion, and the way back; the whole retrain flow in one process."""
