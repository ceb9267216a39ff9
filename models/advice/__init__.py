"""Advice about the input of a job, as a photographer and a sound engineer would give it, before the work."""
