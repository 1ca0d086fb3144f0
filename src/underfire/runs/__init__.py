"""Run folders: what was asked for, the stages it takes, how they are computed and kept, and what readers find."""
