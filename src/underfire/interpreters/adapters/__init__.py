"""Explanations of other libraries and of users' own functions as interpreters, each with a way to follow it."""
