"""What the kernel knows about links, and who is on them."""
