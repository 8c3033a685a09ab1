"""How long the laptop's AWS takes to be there."""
