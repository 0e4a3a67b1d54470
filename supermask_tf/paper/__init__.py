"""What the book computes from records. Nothing but the book and the command imports this."""
