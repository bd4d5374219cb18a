"""How the shipped models were made: commands that reproduce them and their numbers."""
