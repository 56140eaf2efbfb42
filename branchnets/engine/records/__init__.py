"""What a run writes about itself: its directory, who holds it, logs, and what it was made with."""
