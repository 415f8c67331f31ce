"""Where images come from: synthetic worlds with known answers, and data sets on disk."""
