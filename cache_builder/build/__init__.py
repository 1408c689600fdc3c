"""The batch job: what a build was asked for, what it will do, and the tiles it writes."""
