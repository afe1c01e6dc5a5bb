"""Parts of a training state: the form of its entries, and what differs between processes."""
