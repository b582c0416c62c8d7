"""The steps. Each is run inside one transaction: killed anywhere, it either happened or did not."""
