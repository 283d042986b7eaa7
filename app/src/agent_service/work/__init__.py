"""Work in the background: the queue, what runs in it, and what it sends outward."""
