"""Run the whole Compose file on its images, as the runbook describes."""
