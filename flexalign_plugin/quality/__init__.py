"""Quality of an alignment: one record of all figures, their computation, and the warnings."""
