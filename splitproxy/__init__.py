"""splitproxy: a traffic-splitting reverse proxy that runs releases by itself."""

__version__ = "0.1.0"
