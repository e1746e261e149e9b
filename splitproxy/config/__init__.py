"""The configuration: files in, one validated plain snapshot out, or every reason why not.

    read (reading, scalars) → merge → shape (root, translation) → check → complete (secrets, plain) → advise

`load` is the only way in. What it returns is never changed: a reload loads again.
"""

from splitproxy.config.loading import Loaded, load
from splitproxy.config.problems import Problem
from splitproxy.config.root import Config

__all__ = ["Config", "Loaded", "Problem", "load"]
