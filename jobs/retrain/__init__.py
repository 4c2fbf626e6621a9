"""The retrain flow: snapshot, train, optimize, evaluate, gate, promote."""
