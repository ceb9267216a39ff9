"""`musedrop cluster`: other machines whose cards are used, too."""
