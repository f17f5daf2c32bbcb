"""The build backend: setuptools, with a manifest that is not at the top of the repository.

By default setuptools adds `tests/test*.py` to a source distribution, without what they import.
"""

from setuptools.build_meta import *  # noqa: F403  (a backend is the functions of this module)
from setuptools.command.egg_info import manifest_maker

manifest_maker.template = ".packaging/MANIFEST.in"
