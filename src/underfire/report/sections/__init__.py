"""The parts of the page that stand or fall with a study: each composes what its template shows."""
