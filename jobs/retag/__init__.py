"""The retag flow: apply new champions to the whole catalog, then switch to them; and roll back."""
