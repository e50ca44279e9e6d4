"""What makes passes through a network faster and how exactly they are computed."""
