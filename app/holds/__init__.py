"""Money set aside for a payment to come: authorise, capture, void, expire."""
