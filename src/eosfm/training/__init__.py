"""Training: specialists, and adaptation of a frozen ensemble."""
