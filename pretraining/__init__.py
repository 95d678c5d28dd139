"""How the nano models were made: the scripts, in the order in which they run."""
