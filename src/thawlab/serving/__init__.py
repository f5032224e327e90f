"""A page and a JSON API over trained classifiers, and the limits that keep them up whatever is sent."""
