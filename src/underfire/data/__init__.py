"""Labelled images: folders and tables read, pictures decoded, and those chosen that a run is about."""
