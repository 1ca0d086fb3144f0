"""The attack: what it minimises, the one loop, how images move, and the named solvers with their recipes."""
