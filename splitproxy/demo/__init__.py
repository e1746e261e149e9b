"""The demo: two versions of a service, the proxy between them and its own traffic, shown while it runs."""
