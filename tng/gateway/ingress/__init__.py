"""Ways in: how plain traffic is taken up, and what its destination is."""
