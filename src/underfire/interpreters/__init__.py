"""Interpreters: maps of which parts of an image matter for a class, each with the attacker's model of it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
