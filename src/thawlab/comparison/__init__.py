"""Several runs beside each other: what differs, what their predictions show, and what they cannot show."""
