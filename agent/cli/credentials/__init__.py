"""The command that reads content credentials back."""
