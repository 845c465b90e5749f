"""How a domain moves: `source` leads, `target` receives, the tables in `phases` and `model.ownership` decide."""
