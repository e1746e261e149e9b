"""The data plane: what a worker process runs. Callbacks on one event loop, no task per request."""
