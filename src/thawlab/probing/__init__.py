"""Which backbone suits some images: many heads on cached features, before anything is fine-tuned."""
