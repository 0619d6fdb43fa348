"""Asking a running router: plain data from `commands`, HTTP on a Unix socket, a client, and text for people."""
