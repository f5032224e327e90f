"""Networks: the small ones built here, the bridge to timm's, heads, and the bundled weights."""
